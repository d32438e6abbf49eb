"""What users type into panels, as values, and values as short texts."""

from __future__ import annotations

import math

from ..core import SynthDoseError


def namesFromText(text: str) -> list[str]:
    """Return the names in a text that separates them by commas.

    Examples
    --------
    >>> namesFromText("kidneys, liver ,")
    ['kidneys', 'liver']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def halfLivesFromText(text: str, *, allowEmpty: bool = False) -> dict[str, float]:
    """Return effective half-lives, h, by organ from lines ``organ = hours``.

    Parameters
    ----------
    text : str
    allowEmpty : bool
        Take a line without hours as NaN instead of refusing it.

    Raises
    ------
    SynthDoseError
        If a line has another form, or hours are not positive.

    Examples
    --------
    >>> halfLivesFromText("kidneys = 50")
    {'kidneys': 50.0}
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, separator, hours = (part.strip() for part in line.partition("="))
        if allowEmpty and separator and name and not hours:
            found[name] = math.nan
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


def durationText(seconds: float) -> str:
    """Return a time for people.

    Examples
    --------
    >>> durationText(42.4), durationText(600)
    ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
