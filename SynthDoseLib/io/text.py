"""Text from files is not trusted: it is shown and compared, never used as a path."""

from __future__ import annotations

import unicodedata


def clean_text(value: object, limit: int = 64) -> str:
    """Return one line without control characters or surrounding blanks, at most `limit` characters long.

    Examples
    --------
    >>> clean_text("Liver\\x00\\r\\n left  lobe ")
    'Liver left lobe'
    """
    if value is None:
        return ""
    characters = (" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value)[: 16 * limit])
    return " ".join("".join(characters).split())[:limit].strip()


def unique_names(names: list[str]) -> list[str]:
    """Suffix repeated names with _2, _3 … in the order given.

    Examples
    --------
    >>> unique_names(["GTV", "GTV", "liver"])
    ['GTV', 'GTV_2', 'liver']
    """
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken or (candidate != name and candidate in names):
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result
