"""Coded concepts of segments: SNOMED CT and side, whatever the file's scheme was called."""

from __future__ import annotations

import re

from .text import clean_text

TISSUE = ("85756007", "SCT", "Tissue")
"""Category of segments, and the type of one whose organ has no code."""

SIDES = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}
"""Modifiers of a type whose code names the organ of either side."""

_GENERIC = {"85756007", "123037004", "113343008", "49755003"}  # tissue, structure, organ, abnormal structure: name no organ


def _snomed(value: object, scheme: object) -> str:
    """SNOMED CT code of a concept, "" if it is of another scheme; "SRT" identifiers are translated with pydicom's table."""
    code, designator = clean_text(value, 20), clean_text(scheme, 16).upper()
    if designator in ("SRT", "SNM3", "99SDM"):
        from pydicom.sr._snomed_dict import mapping

        code, designator = mapping["SRT"].get(code, ""), "SCT"
    return code if designator == "SCT" and code.isdigit() else ""


def snomed_of(value: object, scheme: object) -> str:
    """Return the SNOMED CT code of a coded concept that names an organ, "" otherwise.

    Examples
    --------
    >>> snomed_of("T-62000", "SRT"), snomed_of("10200004", "SCT"), snomed_of("85756007", "SCT")
    ('10200004', '10200004', '')
    """
    code = _snomed(value, scheme)
    return "" if code in _GENERIC else code


def named_with_side(name: str, value: object, scheme: object) -> str:
    """Add the side that a modifier states to a name that does not say it.

    Examples
    --------
    >>> named_with_side("Kidney", "7771000", "SCT"), named_with_side("Left Kidney", "7771000", "SCT")
    ('Kidney left', 'Left Kidney')
    """
    code = _snomed(value, scheme)
    side = next((side for side, concept in SIDES.items() if concept[0] == code), "")
    return f"{name} {side}" if side and not side_of(name) else name


def side_of(name: str) -> str:
    """Side that a name states, "left", "right" or "".

    Examples
    --------
    >>> side_of("kidney_left"), side_of("R Lung"), side_of("liver")
    ('left', 'right', '')
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((side for side in SIDES if side in words or side[0] in words or f"{side[0]}t" in words), "")


def organ_concept(name: str, snomed_code: str) -> tuple[tuple[str, str, str], tuple[str, str, str] | None]:
    """Return type and modifier (value, scheme, meaning) of an organ for a segmentation.

    Examples
    --------
    >>> organ_concept("kidney_left", "64033007")
    (('64033007', 'SCT', 'kidney'), ('7771000', 'SCT', 'Left'))
    >>> organ_concept("tumour", "")
    (('85756007', 'SCT', 'Tissue'), None)
    """
    if not snomed_code:
        return TISSUE, None
    side = side_of(name)
    words = [word for word in re.split(r"[\s_~^|]+", clean_text(name)) if word and word.lower() != side]
    return (snomed_code, "SCT", " ".join(words) or name), SIDES.get(side)
