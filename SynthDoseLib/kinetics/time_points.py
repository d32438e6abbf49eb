"""Measured activity of one region over time, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import SynthDoseError
from .convert import hours_between

SAME_TIME_H = 1e-3  # 3.6 s: no two scans of one patient are closer


class PropagatedIntegral:
    """What integrals have in common that use every point as it is: sigma is propagated, no scatter is left to judge by."""

    tia_MBq_h: float
    tia_sigma_MBq_h: float

    @property
    def degrees_of_freedom(self) -> int:
        """None are left."""
        return 0

    @property
    def coverage_factor(self) -> float:
        """Standard deviations to 68.3 %: the noise is known or there is no interval."""
        return 1.0

    @property
    def interval_68_MBq_h(self) -> tuple[float, float]:
        """Interval of one standard deviation about the integral."""
        return self.tia_MBq_h - self.tia_sigma_MBq_h, self.tia_MBq_h + self.tia_sigma_MBq_h


@dataclass(frozen=True, eq=False)
class TimeActivity:
    """Activity of an organ, a lesion or a sample at several times. The arrays are taken over and become read-only.

    Attributes
    ----------
    region : str
    times_h : ndarray, (m,)
        After administration, increasing.
    activity_MBq : ndarray, (m,)
        At those times (not decay-corrected to administration).
    sigma_MBq : ndarray, (m,), or None
        One standard deviation of each activity; None if not known, then all are taken to be equally sure in relative terms
        and the scatter about the curve tells how sure.
    notes : tuple of str
    """

    region: str
    times_h: NDArray[np.float64]
    activity_MBq: NDArray[np.float64]
    sigma_MBq: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays = {"times_h": self.times_h, "activity_MBq": self.activity_MBq}
        if self.sigma_MBq is not None:
            arrays["sigma_MBq"] = self.sigma_MBq
        count = np.size(self.times_h)
        for name, given in arrays.items():
            values = np.array(given, dtype=np.float64).ravel()
            if values.size != count or not count:
                raise SynthDoseError(
                    f"{self.region}: {values.size} values of {name} for {count} times; give one for each time."
                )
            if not np.isfinite(values).all():
                raise SynthDoseError(f"{self.region}: {name} holds values that are not numbers: {values.tolist()}.")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.times_h.min() < 0:
            raise SynthDoseError(
                f"{self.region}: a scan is {-self.times_h.min():.4g} h before the administration. Check administered_at and "
                "the acquisition times."
            )
        gaps = np.diff(self.times_h)
        if (np.abs(gaps) < SAME_TIME_H).any():
            at = self.times_h[1:][np.abs(gaps) < SAME_TIME_H][0]
            raise SynthDoseError(
                f"{self.region}: two time points are equal ({at:.4g} h after administration). Every scan needs its own "
                "acquisition time; if one scan was given twice, remove it."
            )
        if (gaps < 0).any():
            raise SynthDoseError(f"{self.region}: the times do not increase. `time_activity` sorts them.")
        if self.activity_MBq.min() < 0 or not self.activity_MBq.any():
            raise SynthDoseError(
                f"{self.region}: activities have to be 0 or more, and not all 0; found "
                f"{', '.join(f'{a:.4g}' for a in self.activity_MBq)} MBq."
            )
        if self.sigma_MBq is not None and self.sigma_MBq.min() <= 0:
            raise SynthDoseError(
                f"{self.region}: standard deviations have to be above 0; found {self.sigma_MBq.min():.4g} MBq."
            )

    @property
    def rises_at_end(self) -> bool:
        """Whether the last activity is above the one before."""
        return len(self.times_h) > 1 and bool(self.activity_MBq[-1] > self.activity_MBq[-2])


def time_activity(
    region: str,
    times: ArrayLike | Sequence[datetime],
    activity_MBq: ArrayLike,
    sigma_MBq: ArrayLike | None = None,
    *,
    administered_at: datetime | None = None,
    relative_sigma: float | None = None,
    decay_corrected: bool = False,
    physical_half_life_h: float | None = None,
) -> TimeActivity:
    """Collect and check what was measured; see `TimeActivity`.

    Parameters
    ----------
    region : str
    times : array_like of hours after administration, or sequence of datetime
        In any order. Times of different zones are compared as instants; mixing times with and without a zone is refused.
    activity_MBq : array_like, (m,)
    sigma_MBq : array_like, (m,), optional
        Noise of the images.
    administered_at : datetime, optional
        Needed with times of day.
    relative_sigma : float, optional
        Added in quadrature to `sigma_MBq`: what calibration and drawing scatter from scan to scan.
    decay_corrected : bool
        The activities are corrected to the time of administration; the correction is taken back with
        `physical_half_life_h`.

    Raises
    ------
    SynthDoseError
        If times are equal, missing, before administration, or not comparable; if numbers do not match or make no sense.

    Examples
    --------
    >>> kidneys = time_activity("kidneys", [96, 24, 4], [50, 150, 200], relative_sigma=0.05)
    >>> kidneys.times_h.tolist(), kidneys.notes
    ([4.0, 24.0, 96.0], ('The time points of kidneys were not in order of time and were sorted.',))
    """
    hours = _hours(region, times, administered_at)
    activity = np.array(activity_MBq, dtype=np.float64).ravel()
    notes: list[str] = []
    sigma = None if sigma_MBq is None else np.array(sigma_MBq, dtype=np.float64).ravel()
    if hours.shape != activity.shape or (sigma is not None and sigma.shape != activity.shape):
        raise SynthDoseError(f"{region}: {hours.size} times, {activity.size} activities; give one activity for each time.")
    if decay_corrected:
        if physical_half_life_h is None:
            raise SynthDoseError(f"{region}: taking back a decay correction needs the physical half-life of the nuclide.")
        left = np.exp2(-hours / physical_half_life_h)
        activity = activity * left
        sigma = None if sigma is None else sigma * left
        notes.append(
            f"The activities of {region} were decay-corrected to administration; the correction was taken back with a "
            f"half-life of {physical_half_life_h:.5g} h."
        )
    if relative_sigma is not None:
        if not (math.isfinite(relative_sigma) and relative_sigma > 0):
            raise SynthDoseError(f"{region}: relative_sigma has to be above 0; found {relative_sigma}.")
        # an activity of zero is no surer than the smallest other one
        scale = np.where(activity > 0, activity, np.min(activity[activity > 0], initial=np.inf))
        sigma = np.hypot(relative_sigma * scale, 0.0 if sigma is None else sigma)
    order = np.argsort(hours, kind="stable")
    if (order != np.arange(order.size)).any():
        notes.append(f"The time points of {region} were not in order of time and were sorted.")
    data = TimeActivity(region, hours[order], activity[order], None if sigma is None else sigma[order])
    if data.rises_at_end:
        notes.append(
            f"The activity of {region} rises at its last time point ({data.activity_MBq[-2]:.4g} to "
            f"{data.activity_MBq[-1]:.4g} MBq): how it clears afterwards was not seen. No curve here clears more slowly than "
            "the nuclide decays, so its tail is bounded by physical decay; a later scan would tell."
        )
    return replace(data, notes=tuple(notes))


def _hours(region: str, times: ArrayLike | Sequence[datetime], administered_at: datetime | None) -> NDArray[np.float64]:
    listed = list(times) if not np.isscalar(times) else [times]  # type: ignore[arg-type]
    if any(t is None for t in listed):
        raise SynthDoseError(
            f"{region}: {sum(t is None for t in listed)} of {len(listed)} time points have no acquisition date. Give "
            "acquired_at or hours_after_administration for each."
        )
    if not any(isinstance(t, datetime) for t in listed):
        return np.array(listed, dtype=np.float64).ravel()
    if not all(isinstance(t, datetime) for t in listed):
        raise SynthDoseError(f"{region}: some times are hours and some are dates. Give all in one way.")
    if administered_at is None:
        raise SynthDoseError(f"{region}: times of day need the time of administration (administered_at).")
    return np.array([hours_between(administered_at, t) for t in listed if isinstance(t, datetime)])
