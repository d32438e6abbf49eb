"""Absorbed dose per organ."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, OrganDose, SynthDoseError, VoxelPhantom, atomic_path
from .histogram import DoseVolumeHistogram

NAMED = 6  # organs in one sentence
NOISE_REMARKABLE = 0.5  # voxel noise above half of the spread of doses widens the histogram by more than a tenth


@dataclass(frozen=True)
class OrganDoseRow:
    """One row of ``organ_doses.csv``; the names of the fields are its header.

    Attributes
    ----------
    organ : str
    volume_ml, mass_g : float
    mean_dose_Gy : float
        Energy imparted over mass; nan for an organ without voxels or mass.
    sigma_Gy : float
        One Monte Carlo standard error of the mean; nan if not known.
    min_Gy, max_Gy : float
        Over the voxels that are not gas, whose dose is none to tissue.
    d95_Gy, d50_Gy, d5_Gy : float
        Dose that the hottest 95, 50, 5 % of their volume receive at least.
    total_sigma_Gy : float
        One standard uncertainty of the mean by all components of the budget, see `with_total_sigma`; nan if not known.
    """

    organ: str
    volume_ml: float
    mass_g: float
    mean_dose_Gy: float
    sigma_Gy: float
    min_Gy: float
    max_Gy: float
    d95_Gy: float
    d50_Gy: float
    d5_Gy: float
    total_sigma_Gy: float = math.nan

    @property
    def known_sigma_Gy(self) -> float:
        """The total sigma where it is known, else that of the Monte Carlo."""
        return self.total_sigma_Gy if math.isfinite(self.total_sigma_Gy) else self.sigma_Gy


def organ_dose_table(
    dose: DoseMap,
    phantom: VoxelPhantom,
    organ_sigma: Mapping[str, float] | Iterable[OrganDose] | None = None,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> tuple[OrganDoseRow, ...]:
    """Return mean dose with its standard error, and dose statistics, for every organ and group.

    Parameters
    ----------
    dose : DoseMap
        On the grid of the phantom, absolute or per decay.
    phantom : VoxelPhantom
    organ_sigma : mapping of organ to Gy, or iterable of OrganDose, optional
        Standard errors of organ means from the engine, in the unit of `dose`. They are never derived from voxel errors,
        because voxels that one track crosses are correlated. Of `OrganDose` only the error is used.
    groups : mapping of group name to organ names, optional
        Adds a row for each group with voxels. Unless the engine scored the group itself, its standard error is that of
        fully correlated members, an upper bound.

    Returns
    -------
    tuple of OrganDoseRow
        In the order of the label table, groups last. An organ without voxels has volume 0 and nan for doses.

    Raises
    ------
    SynthDoseError
        If the grids differ or the dose is not finite.
    """
    if not dose.grid.matches(phantom.grid):
        raise SynthDoseError("The dose is on another grid than the phantom.")
    bad = int(np.count_nonzero(~np.isfinite(dose.dose_Gy)))
    if bad:
        raise SynthDoseError(f"{bad} voxels of the dose are not finite numbers.")
    sigma = _sigmas(organ_sigma)
    flat = phantom.labels.labels.ravel()
    order = np.argsort(flat, kind="stable")  # one sort instead of one pass over the volume per organ
    bounds = np.searchsorted(flat[order], np.arange(max((o.index for o in phantom.labels.organs), default=0) + 2))
    voxels = {o.name: order[bounds[o.index] : bounds[o.index + 1]] for o in phantom.labels.organs}
    gas = phantom.gas().ravel()
    rows = [_row(name, where, dose, phantom, gas, sigma.get(name, math.nan)) for name, where in voxels.items()]
    by_name = {row.organ: row for row in rows}
    for group, members in (groups or {}).items():
        present = [by_name[m] for m in members if m in by_name and by_name[m].mass_g > 0]
        if group in by_name or not present:
            continue
        mass = sum(row.mass_g for row in present)
        bound = sum(row.mass_g * row.sigma_Gy for row in present) / mass
        where = np.concatenate([voxels[row.organ] for row in present])
        rows.append(_row(group, where, dose, phantom, gas, sigma.get(group, bound)))
    return tuple(rows)


def with_total_sigma(rows: Iterable[OrganDoseRow], relative_sigma: Mapping[str, float]) -> tuple[OrganDoseRow, ...]:
    """Rows with the total sigma of those organs whose relative one is known (see `OrganBudget.relative_sigma`)."""
    return tuple(replace(r, total_sigma_Gy=relative_sigma.get(r.organ, math.nan) * r.mean_dose_Gy) for r in rows)


def noise_notes(dose: DoseMap, phantom: VoxelPhantom) -> tuple[str, ...]:
    """Say for which organs the statistical noise of the voxels widens the histogram (D95 too low, D5 and maximum too high)."""
    flat = np.where(phantom.gas(), np.uint16(0), phantom.labels.labels).ravel()
    dose_Gy, sigma_Gy = dose.dose_Gy.ravel().astype(np.float64), dose.sigma_Gy.ravel().astype(np.float64)
    counts = np.bincount(flat, minlength=max((o.index for o in phantom.labels.organs), default=0) + 1)
    sums, squares, variances = (np.bincount(flat, weights=w, minlength=counts.size) for w in (dose_Gy, dose_Gy**2, sigma_Gy**2))
    wide = []
    for organ in phantom.labels.organs:
        voxels = counts[organ.index]
        if voxels < 2:
            continue
        mean = sums[organ.index] / voxels
        spread = math.sqrt(max(0.0, squares[organ.index] / voxels - mean**2))
        noise = math.sqrt(variances[organ.index] / voxels)
        if mean > 0 and noise > NOISE_REMARKABLE * spread and noise > 0.02 * mean:
            wide.append(f"{organ.name} ({noise / mean:.0%} per voxel)")
    if not wide:
        return ()
    named = ", ".join(wide[:NAMED]) + (f" and {len(wide) - NAMED} more" if len(wide) > NAMED else "")
    return (
        "Statistical noise of single voxels widens the dose-volume histogram (D95 too low, D5 and maximum too high) of: "
        f"{named}. Mean doses are not affected; more histories narrow it.",
    )


def write_organ_doses_csv(path: str | os.PathLike[str], rows: Iterable[OrganDoseRow]) -> None:
    """Write the organ table; what is not known is left empty."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(OrganDoseRow)])
        for row in rows:
            organ, *numbers = astuple(row)
            writer.writerow([organ, *("" if math.isnan(x) else f"{x:.6g}" for x in numbers)])


def _sigmas(given: Mapping[str, float] | Iterable[OrganDose] | None) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    return {organ.organ: organ.sigma_Gy for organ in given}


def _row(
    name: str, where: NDArray[np.intp], dose: DoseMap, phantom: VoxelPhantom, gas: NDArray[np.bool_], sigma_Gy: float
) -> OrganDoseRow:
    volume_ml = where.size * dose.grid.voxel_volume_ml
    if where.size == 0:
        return OrganDoseRow(name, 0.0, 0.0, *(math.nan,) * 7)
    values = dose.dose_Gy.ravel()[where].astype(np.float64)
    density = phantom.density_g_cm3.ravel()[where].astype(np.float64)
    total = float(density.sum())
    mean = float(values @ density) / total if total > 0 else math.nan
    counted = values if gas[where].all() else values[~gas[where]]
    histogram = DoseVolumeHistogram(name, volume_ml, counted)
    d95, d50, d5 = (float(x) for x in histogram.dose_at([0.95, 0.5, 0.05]))
    mass_g = total * dose.grid.voxel_volume_ml
    return OrganDoseRow(name, volume_ml, mass_g, mean, sigma_Gy, histogram.min_Gy, histogram.max_Gy, d95, d50, d5)
