"""Standard colours, codes and sides of organs by their names, for segments that come without."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache

from ..core import Organ, resource_path

_SIDES = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}
_PARTS = ("_wall", "_contents")
_LIKE = {"hand_bones": "bone", "foot_bones": "bone", "cervical_spine": "vertebrae", "thoracic_spine": "vertebrae"}
_LIKE |= {"lumbar_spine": "vertebrae", "costal_cartilage": "costal_cartilages"}
"""Beginnings of names that are in no table, and what they look like."""

COVERING = frozenset({"skin", "subcutaneous_fat", "torso_fat", "fat", "skeletal_muscle", "soft_tissue", "body", "rest_of_body"})
"""What lies over organs: nearly transparent in 3D views."""


@dataclass(frozen=True)
class Anatomy:
    """A row of the table of organs.

    Attributes
    ----------
    code, meaning : str
        SNOMED CT, "" without; the same for both sides of a pair.
    side : str
        "left", "right" or "".
    colour : tuple of 3 float
        0 to 1.
    """

    code: str
    meaning: str
    side: str
    colour: tuple[float, float, float]


@cache
def _table() -> dict[str, Anatomy]:
    with open(resource_path("terminologies", "organs.csv"), newline="", encoding="utf-8") as stream:
        return {
            row["name"]: Anatomy(
                row["snomed_code"],
                row["snomed_meaning"],
                row["side"],
                (float(row["red"]), float(row["green"]), float(row["blue"])),
            )
            for row in csv.DictReader(stream)
        }


def standardised(organ: Organ) -> Organ:
    """Return an organ with the colour and the code of its name where it has none; walls and contents look like their organ.

    Examples
    --------
    >>> standardised(Organ(1, "liver")).snomed_code
    '10200004'
    """
    base = organ.name
    for part in _PARTS:
        base = base.removesuffix(part)
    known = _table().get(base) or _table().get(next((like for start, like in _LIKE.items() if base.startswith(start)), ""))
    if known is None:
        return organ
    colour = known.colour if organ.colour == Organ(1, "").colour else organ.colour
    code = organ.snomed_code or (known.code if organ.name in _table() else "")
    return replace(organ, colour=colour, snomed_code=code)


def codedType(organ: Organ) -> tuple[str, str]:
    """Return type and modifier of an organ with a code, in Slicer's text form ``scheme^code^meaning``.

    Examples
    --------
    >>> codedType(Organ(1, "kidney_left", "64033007"))
    ('SCT^64033007^Kidney', 'SCT^7771000^Left')
    """
    known = _table().get(organ.name)
    if known is not None and known.code == organ.snomed_code:
        return f"SCT^{known.code}^{known.meaning}", _SIDES.get(known.side, "^^")
    meaning = "".join(" " if letter in "_~^|" else letter for letter in organ.name).capitalize()
    return f"SCT^{organ.snomed_code}^{meaning}", "^^"
