"""Time-integrated activity by the trapezoidal rule, with a tail of physical decay or one that is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core import SynthDoseError
from .curves import Floats
from .fit import LN2
from .time_points import PropagatedIntegral, TimeActivity

STARTS = ("linear", "constant", "decay")
TAILS = ("physical", "fitted")
LARGE_TAIL = 0.2  # of the integral (EANM/MIRD practice asks for the tail to be small)


@dataclass(frozen=True, eq=False)
class TrapezoidIntegral(PropagatedIntegral):
    """Numerical integral of one region.

    Attributes
    ----------
    data : TimeActivity
    start, tail : str
        As given to `integrate_trapezoid`.
    tia_MBq_h, tia_sigma_MBq_h : float
        Time-integrated activity and its standard uncertainty from the noise of the points; NaN if that is not known. How
        far a straight line is from the true course between the points is not in it.
    tail_fraction : float
        Share of the integral after the last point.
    effective_half_life_h, effective_half_life_sigma_h : float
        Of the tail.
    notes : tuple of str
    """

    data: TimeActivity
    start: str
    tail: str
    tia_MBq_h: float
    tia_sigma_MBq_h: float
    tail_fraction: float
    effective_half_life_h: float
    effective_half_life_sigma_h: float
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Name of the method."""
        return f"trapezoid, {self.tail} tail"

    def activity_MBq(self, times_h: ArrayLike) -> Floats:
        """Activity as it was integrated, at times after administration, (m,)."""
        times = np.atleast_1d(np.asarray(times_h, np.float64))
        t, a = self.data.times_h, self.data.activity_MBq
        inside = np.interp(times, t, a)
        rate = LN2 / self.effective_half_life_h
        before = {"linear": a[0] * times / max(t[0], 1e-12), "constant": np.full_like(times, a[0])}
        first = before.get(self.start, a[0] * np.exp(np.minimum(rate * (t[0] - times), 700)))
        return np.where(times < t[0], first, np.where(times > t[-1], a[-1] * np.exp(-rate * (times - t[-1])), inside))

    def band_MBq(self, times_h: ArrayLike) -> Floats:
        """Standard uncertainty of `activity_MBq`, that of the points in between, (m,)."""
        times = np.atleast_1d(np.asarray(times_h, np.float64))
        if self.data.sigma_MBq is None:
            return np.full_like(times, math.nan)
        share = np.interp(times, self.data.times_h, self.data.sigma_MBq / np.maximum(self.data.activity_MBq, 1e-300))
        return share * self.activity_MBq(times)


def integrate_trapezoid(
    data: TimeActivity,
    *,
    physical_half_life_h: float,
    start: str = "constant",
    tail: str = "physical",
    tail_points: int = 2,
) -> TrapezoidIntegral:
    """Integrate straight lines between the points, and what is before the first and after the last.

    Parameters
    ----------
    data : TimeActivity
    physical_half_life_h : float
    start : {"linear", "constant", "decay"}
        Before the first point: a straight line from 0 at administration, the first activity, or the tail's exponential
        carried back.
    tail : {"physical", "fitted"}
        After the last point: physical decay alone (an upper bound where the region clears), or an exponential through the
        last `tail_points`, never slower than physical decay.
    tail_points : int
        2 or more.

    Returns
    -------
    TrapezoidIntegral

    Raises
    ------
    SynthDoseError
        If an argument is wrong, or the last points are too few or zero for a fitted tail.

    Examples
    --------
    >>> from SynthDoseLib.kinetics import time_activity
    >>> data = time_activity("spleen", [0, 10], [100, 50])
    >>> result = integrate_trapezoid(data, physical_half_life_h=10.0)
    >>> print(round(result.tia_MBq_h - 750, 1), round(result.tail_fraction, 3))
    721.3 0.49
    """
    if start not in STARTS or tail not in TAILS:
        raise SynthDoseError(f'start has to be one of {STARTS} and tail one of {TAILS}; found "{start}" and "{tail}".')
    if tail == "fitted" and not 2 <= tail_points <= len(data.times_h):
        raise SynthDoseError(
            f"{data.region}: a tail fitted to {tail_points} points needs 2 or more of them; the data have {len(data.times_h)}. "
            'Use tail = "physical".'
        )
    if not (math.isfinite(physical_half_life_h) and physical_half_life_h > 0):
        raise SynthDoseError(f"The trapezoidal rule needs a physical half-life above 0 h; found {physical_half_life_h}.")
    slowest = LN2 / physical_half_life_h
    points = tail_points if tail == "fitted" else 0
    if points and data.activity_MBq[-points:].min() <= 0:
        raise SynthDoseError(
            f'{data.region}: one of the last {points} activities is 0; a tail cannot be fitted. Use "physical".'
        )

    def both(activity: Floats) -> tuple[float, float, float]:
        rate = max(_tail_rate(data, activity, points), slowest) if points else slowest
        whole, after = _areas(data.times_h, activity, start, rate)
        return whole, after, rate

    whole, after, rate = both(data.activity_MBq)
    sigma, rate_sigma = math.nan, math.nan
    if data.sigma_MBq is not None:
        slopes = []
        for n, step in enumerate(1e-4 * data.sigma_MBq):
            moved = [data.activity_MBq.copy(), data.activity_MBq.copy()]
            moved[0][n] += step
            moved[1][n] -= step
            up, down = both(moved[0]), both(moved[1])
            slopes.append(((up[0] - down[0]) / (2 * step), (up[2] - down[2]) / (2 * step)))
        sigma, rate_sigma = (float(s) for s in np.sqrt(((np.array(slopes) * data.sigma_MBq[:, None]) ** 2).sum(axis=0)))
    notes = list(data.notes)
    if tail == "fitted" and rate <= slowest:
        notes.append(
            f"{data.region}: the last {points} points do not fall faster than the nuclide decays; the tail is that of "
            "physical decay."
        )
    if after > LARGE_TAIL * whole:
        notes.append(
            f"{data.region}: {after / whole:.0%} of the time-integrated activity lies after the last time point and rests "
            f"on the {tail} tail."
        )
    half_life = LN2 / rate
    return TrapezoidIntegral(
        data, start, tail, whole, sigma, after / whole, half_life, rate_sigma * half_life / rate, tuple(notes)
    )


def _tail_rate(data: TimeActivity, activity: Floats, points: int) -> float:
    """Slope of ln activity over the last points, weighted by their relative errors, 1/h."""
    t, logs = data.times_h[-points:], np.log(activity[-points:])
    sigma = np.ones(points) if data.sigma_MBq is None else data.sigma_MBq[-points:] / data.activity_MBq[-points:]
    w = 1 / sigma**2
    middle = (w * t).sum() / w.sum()
    return float(-(w * (t - middle) * logs).sum() / (w * (t - middle) ** 2).sum())


def _areas(times_h: Floats, activity: Floats, start: str, rate: float) -> tuple[float, float]:
    """Whole integral and that after the last point."""
    first, a = float(times_h[0]), float(activity[0])
    before = {"linear": 0.5 * a * first, "constant": a * first, "decay": a * math.expm1(min(rate * first, 700.0)) / rate}[start]
    after = float(activity[-1]) / rate
    return before + float(np.trapezoid(activity, times_h)) + after, after
