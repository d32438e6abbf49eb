"""What tissues look like in CT and MR: typical values, around which a random scanner spreads its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TissueLook:
    """What a tissue may look like.

    Attributes
    ----------
    hu, hu_spread : float
        Mean CT number without contrast medium and its standard deviation between people, HU.
    gain_HU : float
        Rise in a full contrast phase, HU.
    texture_HU : float
        Largest amplitude of what varies within the tissue, HU.
    t1, t2 : float
        Brightness of its water in MR of T1 and T2 weighting, 0 to 1.
    """

    hu: float
    hu_spread: float
    gain_HU: float
    texture_HU: float
    t1: float
    t2: float


LOOKS: dict[str, TissueLook] = {
    "air": TissueLook(-1000, 0, 0, 0, 0.0, 0.0),
    "gas": TissueLook(-950, 40, 0, 20, 0.0, 0.0),
    "fat": TissueLook(-100, 9, 0, 14, 0.30, 0.30),
    "muscle": TissueLook(52, 10, 12, 22, 0.40, 0.20),
    "skin": TissueLook(15, 20, 10, 15, 0.40, 0.30),
    "lung": TissueLook(-770, 70, 20, 130, 0.08, 0.08),
    "liver": TissueLook(55, 10, 55, 16, 0.60, 0.35),
    "spleen": TissueLook(46, 6, 75, 16, 0.42, 0.60),
    "kidney": TissueLook(33, 6, 140, 60, 0.42, 0.65),
    "pancreas": TissueLook(36, 12, 50, 25, 0.60, 0.40),
    "blood": TissueLook(42, 7, 130, 20, 0.30, 0.25),
    "myocardium": TissueLook(44, 6, 70, 35, 0.40, 0.30),
    "bowel": TissueLook(26, 14, 25, 45, 0.40, 0.50),
    "stomach": TissueLook(28, 14, 20, 45, 0.40, 0.50),
    "urine": TissueLook(8, 6, 0, 8, 0.15, 0.98),
    "bile": TissueLook(10, 8, 0, 5, 0.30, 0.95),
    "gland": TissueLook(40, 8, 40, 20, 0.42, 0.50),
    "thyroid": TissueLook(95, 20, 60, 15, 0.45, 0.50),
    "adrenal": TissueLook(25, 14, 45, 10, 0.42, 0.45),
    "brain": TissueLook(35, 4, 4, 8, 0.50, 0.60),
    "nerve": TissueLook(32, 8, 4, 8, 0.45, 0.60),
    "breast": TissueLook(10, 25, 10, 40, 0.45, 0.45),
    "breast_gland": TissueLook(10, 25, 10, 40, 0.45, 0.45),
    "cartilage": TissueLook(90, 25, 5, 40, 0.35, 0.25),
    "spongiosa": TissueLook(190, 45, 15, 80, 0.35, 0.35),
    "cortical": TissueLook(680, 130, 0, 150, 0.06, 0.05),
    "tumour": TissueLook(45, 20, 45, 30, 0.40, 0.60),
    "csf": TissueLook(8, 5, 0, 5, 0.15, 1.0),
    "eye": TissueLook(15, 8, 0, 5, 0.20, 0.95),
    "thymus": TissueLook(15, 30, 10, 25, 0.40, 0.50),
    "wall": TissueLook(40, 8, 45, 15, 0.42, 0.40),
    "contents": TissueLook(20, 14, 0, 30, 0.40, 0.60),
    "stool": TissueLook(20, 25, 0, 70, 0.45, 0.40),
    "medullary": TissueLook(-40, 30, 0, 25, 0.35, 0.40),
}
"""Typical values for 120 kV and 1.5 T by tissue, or by a part of its name; chosen here: the ranges are what matters."""

OTHER_TISSUE = TissueLook(40, 25, 40, 25, 0.45, 0.45)


def look_of(tissue: str) -> TissueLook:
    """Look of a tissue: by its name, by a part of it ("spongiosa_ribs", "colon_wall"), or that of any soft tissue.

    Examples
    --------
    >>> look_of("spongiosa_ribs") == LOOKS["spongiosa"], look_of("cervix") == OTHER_TISSUE
    (True, True)
    """
    if tissue in LOOKS:
        return LOOKS[tissue]
    parts = tissue.split("_")
    for part in (parts[-1], *parts):
        if part in LOOKS:
            return LOOKS[part]
    return OTHER_TISSUE
