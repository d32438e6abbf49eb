"""What users type into panels, as values, and values as short texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..core import SynthDoseError


def namesFromText(text: str) -> list[str]:
    """Return the names in a text that separates them by commas.

    Examples
    --------
    >>> namesFromText("kidneys, liver ,")
    ['kidneys', 'liver']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def halfLivesFromText(text: str) -> dict[str, float]:
    """Return effective half-lives, h, by organ from lines ``organ = hours``; a line without hours is left out.

    Raises
    ------
    SynthDoseError
        If a line has another form, or hours are not positive.

    Examples
    --------
    >>> halfLivesFromText("kidneys = 50\\nliver =")
    {'kidneys': 50.0}
    """
    found: dict[str, float] = {}
    for line in filter(str.strip, text.splitlines()):
        name, separator, hours = (part.strip() for part in line.partition("="))
        if separator and name and not hours:
            continue
        try:
            value = float(hours)
        except ValueError:
            value = 0.0
        if not (separator and name and math.isfinite(value) and value > 0):
            raise SynthDoseError(
                f"Effective half-life: found '{line.strip()}'. Write one organ per line with its hours, as in 'kidneys = 50'."
            )
        found[name] = value
    return found


def withOrganLines(text: str, organs: Iterable[str], hours: float = 0.0) -> str:
    """Return `text` with a line ``organ = hours`` for every organ that it does not name yet; hours are left open if 0.

    Examples
    --------
    >>> withOrganLines("liver = 70", ["liver", "spleen"], 60.0)
    'liver = 70\\nspleen = 60'
    """
    lines = list(filter(str.strip, text.splitlines()))
    named = {line.partition("=")[0].strip() for line in lines}
    value = f"{hours:g}" if hours > 0 else ""
    return "\n".join([*lines, *(f"{organ} = {value}" for organ in organs if organ not in named)])


def durationText(seconds: float) -> str:
    """Return a time for people.

    Examples
    --------
    >>> durationText(42.4), durationText(600)
    ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
