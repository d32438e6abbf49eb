"""Time-integrated activity from one time point, with the error that not knowing the half-life makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core import SynthDoseError
from .curves import Floats
from .fit import LN2
from .time_points import PropagatedIntegral, TimeActivity
from .values import require_positive

HANSCHEID_RANGE = (0.75, 2.5)  # time in effective half-lives within which the method is meant to be used
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(64)


@dataclass(frozen=True, eq=False)
class SingleTimeIntegral(PropagatedIntegral):
    """Estimate of one region.

    Attributes
    ----------
    data : TimeActivity
        With one point.
    method : str
    tia_MBq_h : float
    tia_sigma_MBq_h : float
        Of noise and method together; of one alone if the other is not known.
    method_error : float
        Relative root mean square error of the method itself (its bias included); NaN if the spread of half-lives is not given.
    method_bias : float
        Relative mean error of the method for the assumed spread of half-lives; NaN likewise.
    effective_half_life_h, effective_half_life_sigma_h : float
        As assumed; NaN for a method that assumes none.
    notes : tuple of str
    """

    data: TimeActivity
    method: str
    tia_MBq_h: float
    tia_sigma_MBq_h: float
    method_error: float
    method_bias: float
    effective_half_life_h: float
    effective_half_life_sigma_h: float
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Name of the method."""
        return self.method

    def activity_MBq(self, times_h: ArrayLike) -> Floats:
        """Exponential through the point with this integral, at times after administration, (m,); NaN where none is assumed."""
        times = np.atleast_1d(np.asarray(times_h, np.float64))
        return self.data.activity_MBq[0] * np.exp2((self.data.times_h[0] - times) / self.effective_half_life_h)

    def band_MBq(self, times_h: ArrayLike) -> Floats:
        """Standard uncertainty of `activity_MBq` from noise and half-life, (m,)."""
        times = np.atleast_1d(np.asarray(times_h, np.float64))
        relative = 0.0 if self.data.sigma_MBq is None else self.data.sigma_MBq[0] / self.data.activity_MBq[0]
        spread = self.effective_half_life_sigma_h / self.effective_half_life_h
        away = (times - self.data.times_h[0]) * LN2 / self.effective_half_life_h * spread
        return np.asarray(self.activity_MBq(times) * np.hypot(relative, away))


def hanscheid(
    data: TimeActivity, *, half_life_h: float | None = None, half_life_sigma_h: float | None = None
) -> SingleTimeIntegral:
    """Estimate by 2 t A(t)/ln 2, without a half-life.

    For an exponential of half-life T the estimate is 2 (t/T) 2^(-t/T) of the truth: exact at t = T and t = 2 T, +6.1 % at
    t = T/ln 2, and from 0.75 T to 2.5 T never off by more than 11.6 %.

    Parameters
    ----------
    data : TimeActivity
        One point.
    half_life_h, half_life_sigma_h : float, optional
        What is known of the half-life: then the error is propagated from it; otherwise it is the root mean square over
        times from 0.75 to 2.5 half-lives, 5.7 %.

    References
    ----------
    Hänscheid et al., J. Nucl. Med. 59 (2018) 75-81.

    Examples
    --------
    >>> from SynthDoseLib.kinetics import time_activity
    >>> print(round(hanscheid(time_activity("kidneys", [96.0], [10.0])).tia_MBq_h, 1))
    2770.0
    """
    time, activity = _one_point(data)
    estimate = 2 * time * activity / LN2

    def ratio(half_life: Floats) -> Floats:
        return 2 * time / half_life * np.exp2(-time / half_life)

    notes = [*data.notes]
    if half_life_h is None:
        x = np.linspace(*HANSCHEID_RANGE, 2001)
        off = 2 * x * np.exp2(-x) - 1
        error, bias, half_life, spread = float(np.sqrt((off**2).mean())), float(off.mean()), math.nan, math.nan
        notes.append(
            f"{data.region}: the single-time-point estimate 2 t A/ln 2 is right to {error:.1%} (root mean square; -11.6 % "
            f"to +6.1 %) if the effective half-life is between {time / HANSCHEID_RANGE[1]:.3g} and "
            f"{time / HANSCHEID_RANGE[0]:.3g} h; outside it is too low."
        )
    else:
        half_life, spread = _half_life(half_life_h, half_life_sigma_h)
        error, bias = _lognormal_error(ratio, half_life, spread)
        inside = HANSCHEID_RANGE[0] <= time / half_life <= HANSCHEID_RANGE[1]
        notes.append(_said(data, "2 t A/ln 2", half_life, spread, error, bias))
        if not inside:
            notes.append(
                f"{data.region}: the scan was {time / half_life:.2g} half-lives after administration; the method is meant for "
                "0.75 to 2.5."
            )
    return _estimate(data, "single time, Hänscheid", estimate, error, bias, half_life, spread, notes)


def population_half_life(data: TimeActivity, half_life_h: float, half_life_sigma_h: float | None = None) -> SingleTimeIntegral:
    """Estimate by an exponential with the half-life of a population, A(t) 2^(t/T) T/ln 2.

    Parameters
    ----------
    data : TimeActivity
        One point.
    half_life_h, half_life_sigma_h : float
        Median of the effective half-lives and the standard deviation from patient to patient (lognormal).
    """
    time, activity = _one_point(data)
    half_life, spread = _half_life(half_life_h, half_life_sigma_h)

    def integral(value: Floats) -> Floats:
        return np.exp2(time / value) * value

    error, bias = _lognormal_error(lambda value: integral(np.array(half_life)) / integral(value), half_life, spread)
    notes = [*data.notes, _said(data, "a population's half-life", half_life, spread, error, bias)]
    estimate = activity * float(integral(np.array(half_life))) / LN2
    return _estimate(data, "single time, population half-life", estimate, error, bias, half_life, spread, notes)


def madsen(data: TimeActivity, rate_per_h: float, rate_sigma_per_h: float | None = None) -> SingleTimeIntegral:
    """Estimate by an exponential with the mean effective clearance rate k of a population, A(t) exp(k t)/k.

    The estimate is (k'/k) exp((k - k') t) of the truth for a patient whose rate is k'; to first order it does not depend on
    k' at t = 1/k, the best time for the scan.

    Parameters
    ----------
    data : TimeActivity
        One point.
    rate_per_h, rate_sigma_per_h : float
        Mean of the rates and their standard deviation from patient to patient (lognormal).

    References
    ----------
    Madsen, Menda, O'Dorisio & O'Dorisio, Med. Phys. 45 (2018) 2318-2324.
    """
    time, activity = _one_point(data)
    rate = require_positive("rate_per_h", rate_per_h, "1/h")
    spread = 0.0 if rate_sigma_per_h is None else require_positive("rate_sigma_per_h", rate_sigma_per_h, "1/h")
    # a lognormal distribution of this mean and standard deviation
    width = math.sqrt(math.log1p((spread / rate) ** 2))
    median = rate * math.exp(-(width**2) / 2)
    rates = median * np.exp(width * _NODES)
    off = rates / rate * np.exp((rate - rates) * time) - 1
    bias, error = _moments(off)
    half_life = LN2 / rate
    notes = [
        *data.notes,
        _said(data, "a population's clearance rate", half_life, half_life * spread / rate, error, bias),
        f"{data.region}: the scan was {time * rate:.2g} mean lives after administration; the error is smallest at 1.",
    ]
    return _estimate(
        data,
        "single time, Madsen",
        activity * math.exp(rate * time) / rate,
        error,
        bias,
        half_life,
        half_life * spread / rate,
        notes,
    )


def _one_point(data: TimeActivity) -> tuple[float, float]:
    if len(data.times_h) != 1 or data.times_h[0] <= 0:
        raise SynthDoseError(
            f"{data.region}: a method for a single time point needs one point after administration; found {len(data.times_h)} "
            f"at {', '.join(f'{t:.4g}' for t in data.times_h)} h."
        )
    return float(data.times_h[0]), float(data.activity_MBq[0])


def _half_life(half_life_h: float, sigma_h: float | None) -> tuple[float, float]:
    spread = 0.0 if sigma_h is None else require_positive("half_life_sigma_h", sigma_h, "h")
    return require_positive("half_life_h", half_life_h, "h"), spread


def _lognormal_error(ratio: Callable[[Floats], Floats], half_life: float, spread: float) -> tuple[float, float]:
    """Root mean square and mean of estimate/truth - 1 over lognormal half-lives of this median and standard deviation."""
    width = math.sqrt(math.log(0.5 * (1 + math.sqrt(1 + 4 * (spread / half_life) ** 2))))
    bias, error = _moments(ratio(half_life * np.exp(width * _NODES)) - 1)
    return error, bias


def _moments(off: Floats) -> tuple[float, float]:
    weights = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
    return float(weights @ off), float(math.sqrt(weights @ off**2))


def _said(data: TimeActivity, what: str, half_life: float, spread: float, error: float, bias: float) -> str:
    if spread == 0:
        return (
            f"{data.region}: one time point and {what} ({half_life:.4g} h) without its spread: the error of the method is not "
            "known."
        )
    return (
        f"{data.region}: one time point and {what} ({half_life:.4g} ± {spread:.3g} h from patient to patient): error of the "
        f"method {error:.1%} (root mean square), mean {bias:+.1%}."
    )


def _estimate(
    data: TimeActivity,
    method: str,
    estimate: float,
    error: float,
    bias: float,
    half_life: float,
    spread: float,
    notes: list[str],
) -> SingleTimeIntegral:
    if spread == 0:
        error = bias = math.nan
    known = [error] if math.isfinite(error) else []
    if data.sigma_MBq is not None:
        known.append(float(data.sigma_MBq[0] / data.activity_MBq[0]))
    sigma = estimate * math.hypot(*known) if known else math.nan
    return SingleTimeIntegral(data, method, estimate, sigma, error, bias, half_life, spread, tuple(notes))
