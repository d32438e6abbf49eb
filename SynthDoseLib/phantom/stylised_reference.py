"""What the stylised adult is asked to weigh, and what its tissues look like on CT."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache

from SynthDoseLib.core import SynthDoseError, resource_path

from .calibration import schneider_calibration

SEXES = ("female", "male")


@dataclass(frozen=True)
class Tissue:
    """A tissue of the stylised adult.

    Attributes
    ----------
    name : str
    hu : float
        Mean CT number, HU.
    density_g_cm3 : float
        Density that the Schneider calibration gives that CT number, so that image and mass tell the same.
    texture_hu : float
        Standard deviation of what is not noise (vessels, fat between muscle fibres, trabeculae), HU.
    """

    name: str
    hu: float
    density_g_cm3: float
    texture_hu: float


TISSUES: tuple[Tissue, ...] = tuple(
    Tissue(name, hu, float(schneider_calibration().density([hu])[0]), texture)
    for name, hu, texture in (
        ("air", -1000.0, 0.0),
        ("fat", -102.0, 7.0),
        ("muscle", 45.0, 9.0),
        ("skin", 10.0, 5.0),
        ("lung", -750.0, 45.0),
        ("liver", 55.0, 3.0),
        ("spleen", 48.0, 3.0),
        ("kidney", 34.0, 4.0),
        ("pancreas", 36.0, 9.0),
        ("blood", 42.0, 2.0),
        ("myocardium", 46.0, 3.0),
        ("bowel", 28.0, 10.0),
        ("stomach", 30.0, 8.0),
        ("urine", 8.0, 2.0),
        ("bile", 10.0, 2.0),
        ("gland", 38.0, 5.0),
        ("thyroid", 88.0, 5.0),
        ("adrenal", 28.0, 4.0),
        ("brain", 36.0, 4.0),
        ("nerve", 34.0, 3.0),
        ("breast", 0.0, 25.0),
        ("cartilage", 85.0, 15.0),
        ("spongiosa", 210.0, 55.0),
        ("cortical", 690.0, 110.0),
        ("tumour", 62.0, 3.0),
        ("gas", -985.0, 5.0),
        ("csf", 8.0, 3.0),
    )
)
"""Tissues in the order of their index; typical unenhanced values at 120 kV, chosen here."""

TISSUE_INDEX: dict[str, int] = {tissue.name: index for index, tissue in enumerate(TISSUES)}

CORTICAL_SHARE = 0.45
"""Share of a bone's voxels that are its shell: with it a bone weighs about 1.3 g/ml, as the adult skeleton does."""


def density_of(tissue: str) -> float:
    """Density of a tissue of `TISSUES`, g/cm3."""
    return TISSUES[TISSUE_INDEX[tissue]].density_g_cm3


@cache
def reference_masses(sex: str) -> dict[str, float]:
    """Masses of the organs and bones of the reference adult.

    Parameters
    ----------
    sex : str
        "female" or "male".

    Returns
    -------
    dict of str to float
        Organ or bone to mass, g; organs that a sex does not have are absent.

    Raises
    ------
    SynthDoseError
        If `sex` is neither, or the table is not the one its sidecar describes.

    References
    ----------
    ICRP Publication 89 (2002) and ICRP Publication 110 (2009); see ``Resources/anatomy/reference_masses.json``.

    Examples
    --------
    >>> reference_masses("male")["liver"]
    1800.0
    """
    require_sex(sex)
    content = resource_path("anatomy", "reference_masses.csv").read_bytes().replace(b"\r\n", b"\n")
    sidecar = json.loads(resource_path("anatomy", "reference_masses.json").read_text(encoding="utf-8"))
    if hashlib.sha256(content).hexdigest() != sidecar["sha256"]:
        raise SynthDoseError("Resources/anatomy/reference_masses.csv was changed or damaged. Install SynthDose again.")
    rows = csv.DictReader(io.StringIO(content.decode("utf-8")))
    masses = {row["organ"]: float(row[f"{sex}_g"]) for row in rows}
    return {organ: mass for organ, mass in masses.items() if mass > 0}


def require_sex(sex: str) -> None:
    """Raise `SynthDoseError` unless `sex` is "female" or "male"."""
    if sex not in SEXES:
        raise SynthDoseError(f"'{sex}' is not a sex of the reference adult. Allowed: {' or '.join(SEXES)}.")
