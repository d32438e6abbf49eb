"""Organ doses against the limits of a table."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..core import SynthDoseError
from .histogram import DoseVolumeHistogram
from .organs import OrganDoseRow
from .tables import dosimetry_rows, number

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
_AT_VOLUME = re.compile(r"D(\d+(?:\.\d+)?)(%|cc)")


@dataclass(frozen=True)
class Constraint:
    """A limit for one organ.

    Attributes
    ----------
    organ : str
        Organ or group, as in the organ table.
    quantity : str
        "mean", "max", "bed", "eqd2", "D<n>%" or "D<n>cc" (dose to the hottest n % or n ml).
    limit_Gy : float
    condition : str
        When it holds.
    reference : str
    """

    organ: str
    quantity: str
    limit_Gy: float
    condition: str = ""
    reference: str = ""


@dataclass(frozen=True)
class ConstraintResult:
    """What became of a constraint.

    Attributes
    ----------
    constraint : Constraint
    value_Gy, sigma_Gy : float
        With its Monte Carlo standard error; nan if not known.
    status : str
        "pass" (value at or below the limit), "fail" or "unknown".
    remark : str
        Why it is unknown, or that limit and value differ by less than one or two standard uncertainties.
    total_sigma_Gy : float
        By all components of the organ's budget; nan if not known.
    """

    constraint: Constraint
    value_Gy: float
    sigma_Gy: float
    status: str
    remark: str = ""
    total_sigma_Gy: float = math.nan

    @property
    def known_sigma_Gy(self) -> float:
        """The total sigma where it is known, else that of the Monte Carlo."""
        return self.total_sigma_Gy if math.isfinite(self.total_sigma_Gy) else self.sigma_Gy


def constraint_table(path: str | os.PathLike[str] | None = None) -> tuple[Constraint, ...]:
    """Constraints of the table that ships, or of a user's with columns organ,quantity,limit_Gy,condition,reference.

    Examples
    --------
    >>> [c.limit_Gy for c in constraint_table() if c.organ == "kidneys"]
    [23.0, 28.0, 40.0]
    """
    rows = dosimetry_rows("constraints", ("organ", "quantity", "limit_Gy", "condition", "reference"), path)
    result = []
    for row in rows:
        limit = number(row, "limit_Gy", "constraints")
        if row["quantity"] not in ("mean", "max", "bed", "eqd2") and not _AT_VOLUME.fullmatch(row["quantity"]):
            raise SynthDoseError(
                f"Constraint of '{row['organ']}': the quantity '{row['quantity']}' is not known. "
                "Allowed: mean, max, bed, eqd2, D<n>%, D<n>cc (D2%, D0.1cc)."
            )
        if not (math.isfinite(limit) and limit > 0):
            raise SynthDoseError(f"Constraint of '{row['organ']}': the limit has to be above 0; found {limit} Gy.")
        result.append(Constraint(row["organ"], row["quantity"], limit, row["condition"], row["reference"]))
    return tuple(result)


def check_constraints(
    constraints: Iterable[Constraint],
    rows: Sequence[OrganDoseRow],
    *,
    histograms: Iterable[DoseVolumeHistogram] = (),
    bed_Gy: Mapping[str, tuple[float, float, float]] | None = None,
    eqd2_Gy: Mapping[str, tuple[float, float, float]] | None = None,
) -> tuple[ConstraintResult, ...]:
    """Compare organ doses with limits; an organ that was not segmented is unknown, not passed.

    Parameters
    ----------
    constraints : iterable of Constraint
    rows : sequence of OrganDoseRow
        Organs and groups, with their Monte Carlo errors and, where known, total sigmas.
    histograms : iterable of DoseVolumeHistogram
        For ``D<n>cc`` and volumes other than 95, 50 and 5 %.
    bed_Gy, eqd2_Gy : mapping of organ to (value, Monte Carlo standard error, total sigma), Gy

    Returns
    -------
    tuple of ConstraintResult
        In the order of `constraints`.
    """
    by_name = {row.organ: row for row in rows if row.mass_g > 0}
    curves = {h.organ: h for h in histograms}
    results = []
    for constraint in constraints:
        if constraint.quantity in ("bed", "eqd2"):
            table = (bed_Gy if constraint.quantity == "bed" else eqd2_Gy) or {}
            value, sigma, total = table.get(constraint.organ, (math.nan,) * 3)
            missing = f"no {constraint.quantity.upper()} was calculated"
        else:
            row = by_name.get(constraint.organ)
            value, sigma = _value(constraint, row, curves.get(constraint.organ))
            total = row.total_sigma_Gy / row.mean_dose_Gy * value if row is not None and row.mean_dose_Gy > 0 else math.nan
            missing = "the organ was not segmented" if row is None else "no dose-volume histogram was given"
        if math.isnan(value):
            results.append(ConstraintResult(constraint, value, sigma, UNKNOWN, missing, total))
            continue
        found = ConstraintResult(constraint, value, sigma, PASS if value <= constraint.limit_Gy else FAIL, "", total)
        results.append(replace(found, remark=_nearness(value - constraint.limit_Gy, found.known_sigma_Gy)))
    return tuple(results)


def _nearness(difference_Gy: float, sigma_Gy: float) -> str:
    """What to say of a value within two standard uncertainties of its limit."""
    for count, words in ((1, "one standard uncertainty"), (2, "two standard uncertainties")):
        if sigma_Gy > 0 and abs(difference_Gy) < count * sigma_Gy:
            return f"limit and value differ by less than {words}"
    return ""


def _value(constraint: Constraint, row: OrganDoseRow | None, histogram: DoseVolumeHistogram | None) -> tuple[float, float]:
    if row is None:
        return math.nan, math.nan
    relative = row.sigma_Gy / row.mean_dose_Gy if row.mean_dose_Gy > 0 else math.nan
    if constraint.quantity == "mean":
        return row.mean_dose_Gy, row.sigma_Gy
    if constraint.quantity == "max":
        return row.max_Gy, relative * row.max_Gy
    found = _AT_VOLUME.fullmatch(constraint.quantity)
    assert found is not None
    amount, unit = float(found[1]), found[2]
    if unit == "cc":
        if histogram is None or amount > histogram.volume_ml:
            return math.nan, math.nan
        value = histogram.dose_at_volume(amount)
    elif histogram is not None:
        value = float(histogram.dose_at(min(1.0, amount / 100)))
    else:
        value = {95.0: row.d95_Gy, 50.0: row.d50_Gy, 5.0: row.d5_Gy}.get(amount, math.nan)
    return value, relative * value
