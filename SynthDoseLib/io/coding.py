"""Coded concepts of segments: SNOMED CT, whatever the file's scheme was called."""

from __future__ import annotations

from .text import clean_text

TISSUE = ("85756007", "SCT", "Tissue")
"""Category of segments, and the type of one whose organ has no code."""

ANATOMICAL_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")

_GENERIC = {"85756007", "123037004", "113343008", "49755003"}  # tissue, structure, organ, abnormal structure: name no organ


def snomed_of(value: object, scheme: object, meaning: object = "") -> str:
    """Return the SNOMED CT code of a coded concept that names an organ, "" otherwise.

    The older "SRT" identifiers (T-62000) are translated with pydicom's table.

    Examples
    --------
    >>> snomed_of("T-62000", "SRT"), snomed_of("10200004", "SCT"), snomed_of("85756007", "SCT", "Tissue")
    ('10200004', '10200004', '')
    """
    code, designator = clean_text(value, 20), clean_text(scheme, 16).upper()
    if designator in ("SRT", "SNM3", "99SDM"):
        from pydicom.sr._snomed_dict import mapping

        code, designator = mapping["SRT"].get(code, ""), "SCT"
    if designator != "SCT" or not code.isdigit() or code in _GENERIC:
        return ""
    return code
