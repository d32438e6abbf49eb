"""What kinetics hands to the dose stage: decays per voxel and the table behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, SynthDoseError, VoxelGrid

REST = "rest_of_body"


@dataclass
class Findings:
    """What is found on the way: notes, and those among them that are warnings."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a note."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Add a note that is a warning."""
        self.notes.append(text)
        self.warnings.append(text)


@dataclass(frozen=True)
class ActivityRow:
    """Activity and decays of one organ.

    Attributes
    ----------
    organ : str
    activity_at_scan_MBq : float or None
        At the start of the acquisition; None if the time-integrated activity was given as such.
    effective_half_life_h : float or None
        None if none was used.
    half_life_source : str
        "given", "biological", "rest of body", "physical", "fitted", the name of another method, or "" if none was used.
    tia_MBq_s : float
        Time-integrated activity from administration to infinity.
    residence_time_h : float or None
        `tia_MBq_s` per administered activity; None if that is not known.
    tia_sigma_MBq_s : float or None
        Standard uncertainty of `tia_MBq_s`; None if it is not known.
    model : str
        Of the time course, "" for one time point with a given half-life.
    parts : mapping of str to float
        Relative standard uncertainties of `tia_MBq_s` by origin: "fit", "recovery", "calibration".
    """

    organ: str
    activity_at_scan_MBq: float | None
    effective_half_life_h: float | None
    half_life_source: str
    tia_MBq_s: float
    residence_time_h: float | None
    tia_sigma_MBq_s: float | None = None
    model: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TimeIntegratedActivity:
    """Time-integrated activity from administration to infinity. The array is taken over and becomes read-only.

    Attributes
    ----------
    grid : VoxelGrid
    tia_MBq_s : ndarray of float32, (nk, nj, ni)
        In each voxel (not per ml); 1 MBq s is a million decays.
    organs : tuple of ActivityRow
        One per organ that has voxels.
    notes : tuple of str
        Assumptions and remarkable findings, one sentence each, for the report.
    warnings : tuple of str
        Those of `notes` that a reader has to know before using a number.
    """

    grid: VoxelGrid
    tia_MBq_s: NDArray[np.float32]
    organs: tuple[ActivityRow, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.tia_MBq_s, dtype=np.float32)
        if values.shape != self.grid.shape:
            raise SynthDoseError(f"tia_MBq_s has shape {values.shape}, its grid has {self.grid.shape}.")
        if not np.isfinite(values).all() or values.min() < 0 or not values.any():
            raise SynthDoseError("The time-integrated activity has to be finite, not negative, and not zero everywhere.")
        values = values.view()
        values.setflags(write=False)
        object.__setattr__(self, "tia_MBq_s", values)

    @property
    def total_MBq_s(self) -> float:
        """Sum over the voxels, MBq s."""
        return float(self.tia_MBq_s.sum(dtype=np.float64))

    @property
    def decays(self) -> float:
        """Number of decays from administration to infinity."""
        return self.total_MBq_s * 1e6


def residence_time_h(tia_MBq_s: float, administered_MBq: float | None) -> float | None:
    """Time-integrated activity per administered activity, h."""
    return None if administered_MBq is None else tia_MBq_s / administered_MBq / 3600.0


def some(names: Sequence[str], limit: int = 6) -> str:
    """Organ names for one sentence: all of a few, the first of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def organ_sums(values: NDArray[np.float32], labels: LabelMap) -> dict[str, float]:
    """Sum of `values` per organ that has voxels; unlabelled voxels count as `rest_of_body`."""
    top = max((organ.index for organ in labels.organs), default=0) + 1
    flat = labels.labels.ravel()
    sums = np.bincount(flat, weights=values.ravel(), minlength=top)
    counts = np.bincount(flat, minlength=top)
    result = {organ.name: float(sums[organ.index]) for organ in labels.organs if counts[organ.index]}
    if sums[0] > 0:
        result[REST] = result.get(REST, 0.0) + float(sums[0])
    return result


def require_positive(name: str, value: float, unit: str) -> float:
    """Return `value` as a float; raise `SynthDoseError` unless it is finite and above 0."""
    if not (np.isfinite(value) and value > 0):
        raise SynthDoseError(f"{name} has to be a number above 0 {unit}; found {value}.")
    return float(value)
