"""A measured quantity beside what it should be, and tables of such comparisons.

A row passes when it differs by no more than max(tolerance, three standard errors of the difference) and the engine's own
standard error is at most a third of the tolerance: a test that the engine passes by being noisy would be none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

OWN_SHARE = 1 / 3
ROUNDING = 1.02  # a sigma that was aimed at is met within its own error


@dataclass(frozen=True)
class Comparison:
    """One quantity beside its reference.

    Attributes
    ----------
    case, quantity : str
    deviation : float
        Ours over the reference, less one; where `relative` is False, ours less the reference.
    sigma, own_sigma : float
        Standard error of the deviation, and the part of it that is ours.
    tolerance : float
        What two good codes may differ by.
    judged : bool
        False for what is only shown: the reference calls itself too noisy, or is for orientation.
    relative : bool
    own_limit : float
        Largest own standard error, as a share of the tolerance.
    second : str
        What a second reference says, for the table.
    """

    case: str
    quantity: str
    deviation: float
    sigma: float
    own_sigma: float
    tolerance: float
    judged: bool = True
    relative: bool = True
    own_limit: float = OWN_SHARE
    second: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return 1 + self.deviation

    @property
    def agrees(self) -> bool:
        """Within the tolerance, or within three standard errors."""
        return abs(self.deviation) <= max(self.tolerance, 3 * self.sigma)

    @property
    def precise(self) -> bool:
        """Own standard error small enough for the tolerance to mean something."""
        return self.own_sigma <= ROUNDING * self.own_limit * self.tolerance

    @property
    def passes(self) -> bool:
        """Both."""
        return self.agrees and self.precise

    @property
    def verdict(self) -> str:
        """One word or two for the table."""
        if not self.judged:
            return "shown"
        return "ok" if self.passes else "differs" if not self.agrees else "too noisy"


def compare(
    case: str,
    quantity: str,
    own: tuple[float, float],
    reference: tuple[float, float],
    tolerance: float,
    *,
    judged: bool = True,
    share: float = 1.0,
    second: tuple[float, float] | None = None,
) -> Comparison:
    """Compare two values with their standard errors; `share` of the histories allows for the noise that comes with it."""
    relative = own[1] / own[0] if own[0] > 0 else np.inf
    error = reference[1] / reference[0]
    other = (
        ""
        if second is None
        else f"{100 * (own[0] / second[0] - 1):+.2f}({100 * np.hypot(relative, second[1] / second[0]):.2f}) %"
    )
    return Comparison(
        case, quantity, own[0] / reference[0] - 1, float(np.hypot(relative, error)), relative, tolerance, judged,
        own_limit=OWN_SHARE / np.sqrt(min(share, 1.0)), second=other,
    )  # fmt: skip


def absolute(case: str, quantity: str, deviation: float, sigma: float, tolerance: float, *, judged: bool = True) -> Comparison:
    """A difference that should be zero, with its standard error; no part of it belongs to a reference."""
    return Comparison(case, quantity, deviation, sigma, 0.0, tolerance, judged, relative=False)


def table(rows: Sequence[Comparison]) -> str:
    """Markdown table of one group of rows."""
    seconds = any(row.second for row in rows)
    head = "| case | quantity | deviation | standard error | own | tolerance |" + (" from EGSnrc |" if seconds else "") + " |"
    lines = [head, "|---|---|---:|---:|---:|---:|" + ("---:|" if seconds else "") + "---|"]
    for row in rows:
        form = _percent if row.relative else _plain
        cells = [row.case, row.quantity, form(row.deviation, "+"), form(row.sigma), form(row.own_sigma), form(row.tolerance)]
        cells += [row.second] if seconds else []
        lines.append("| " + " | ".join([*cells, row.verdict]) + " |")
    return "\n".join(lines) + "\n"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f} %"


def _plain(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2g}"


def summary(rows: Iterable[Comparison]) -> tuple[int, int, str]:
    """Number of judged rows, of those that pass, and a sentence about the deviations."""
    judged = [row for row in rows if row.judged]
    passed = sum(row.passes for row in judged)
    relative = [row for row in judged if row.relative and np.isfinite(row.deviation)]
    if not relative:
        return len(judged), passed, ""
    pulls = [row.deviation / row.sigma for row in relative if row.sigma > 0]
    worst = max(relative, key=lambda row: abs(row.deviation) / max(row.tolerance, 3 * row.sigma))
    text = f"worst {100 * worst.deviation:+.2f} % ({worst.case}, {worst.quantity})"
    if pulls:
        text += f"; mean pull {np.mean(pulls):+.2f}, rms {np.sqrt(np.mean(np.square(pulls))):.2f}"
    return len(judged), passed, text
