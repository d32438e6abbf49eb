"""Text from files is not trusted: it is shown and compared, never used as a path."""

from __future__ import annotations

import unicodedata

from pydicom.multival import MultiValue

_FORMULA = "=+-@"


def clean_text(value: object, limit: int = 64) -> str:
    """Return one line without control characters or surrounding blanks, at most `limit` characters long.

    Examples
    --------
    >>> clean_text("Liver\\x00\\r\\n left  lobe ")
    'Liver left lobe'
    """
    if value is None:
        return ""
    if isinstance(value, MultiValue):  # a backslash in a text makes several of it
        value = "/".join(str(part) for part in value)
    characters = (" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value)[: 16 * limit])
    return " ".join("".join(characters).split())[:limit].strip()


def clean_name(value: object) -> str:
    """The name of an organ as `clean_text` has it, without a beginning that a spreadsheet would take for a formula.

    Examples
    --------
    >>> clean_name("=GTV"), clean_name("- 5 mm rim"), clean_name("PTV+3")
    ('GTV', '5 mm rim', 'PTV+3')
    """
    return clean_text(value).lstrip(_FORMULA + " ")


def harmless_cell(text: str) -> str:
    """Text for a table: what a spreadsheet would run as a formula gets an apostrophe before it; numbers stay.

    Examples
    --------
    >>> harmless_cell("=1+1"), harmless_cell("-1.5"), harmless_cell("-1 0 0.5"), harmless_cell("liver")
    ("'=1+1", '-1.5', '-1 0 0.5', 'liver')
    """
    if not text.startswith((*_FORMULA, "\t", "\r")):
        return text
    try:
        return text if [float(part) for part in text.split()] else f"'{text}"
    except ValueError:
        return f"'{text}"


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


def same_name_notes(names: list[str], unique: list[str], what: str) -> tuple[str, ...]:
    """Notes on names that `unique_names` had to change.

    Examples
    --------
    >>> same_name_notes(["GTV", "GTV", "liver"], ["GTV", "GTV_2", "liver"], "structures")
    ("2 structures are named 'GTV': they are called GTV, GTV_2. 'GTV' alone means the first of them.",)
    """
    notes = []
    for name in dict.fromkeys(names):
        called = [new for old, new in zip(names, unique, strict=True) if old == name]
        if len(called) > 1:
            notes.append(
                f"{len(called)} {what} are named '{name}': they are called {', '.join(called)}. "
                f"'{name}' alone means the first of them."
            )
    return tuple(notes)
