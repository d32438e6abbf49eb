"""Multiple scattering of one step: Goudsmit and Saunderson's series, made ready to sample.

The transport coefficients of order 1 and 2 come from the tables; those of higher order from the screened Rutherford cross
section that has the same ratio of the two, dsigma/dmu proportional to 1 / (mu + A)^2 with mu = (1 - cos theta) / 2. The series

    f(mu) = sum over l of (2 l + 1) exp(-K_l) P_l(1 - 2 mu)

is integrated and inverted at mu(t), where the probability of a larger mu is exp(-t): for the Gaussian core mu is proportional
to t, so that few points and a straight line between them serve.

Goudsmit and Saunderson, Phys. Rev. 57 (1940) 24; Lewis, Phys. Rev. 78 (1950) 526.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SHAPE_POINTS = 56
SHAPE_STEP = 0.25
"""Points of mu(t) and their distance in t: a deflection rarer than exp(-13.75) is taken for the largest tabulated."""

_ORDERS = 250
_LOG_SCREENING = np.linspace(np.log(1e-12), np.log(3.0), 160)


def sampling_shapes(k1: NDArray[np.float64], k2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tabulate mu(t) over its mean.

    Parameters
    ----------
    k1, k2 : ndarray of float64, (n,)
        First and second transport coefficient times the length of the step.

    Returns
    -------
    ndarray of float64, (n, SHAPE_POINTS)
        mu(t) divided by its mean; t = 0, SHAPE_STEP, 2 SHAPE_STEP, ... Linear interpolation has mean 1.
    """
    coefficients = _rutherford_coefficients()
    ratios = coefficients[:, 2] / coefficients[:, 1]
    wanted = np.interp(-k2 / k1, -ratios, _LOG_SCREENING)
    grid = np.concatenate(([0.0], np.geomspace(1e-7, 1.0, 600)))
    below = _legendre_integrals(grid)
    t = SHAPE_STEP * np.arange(SHAPE_POINTS)
    shapes = np.empty((k1.size, SHAPE_POINTS))
    for n, (strength, screening) in enumerate(zip(k1, wanted, strict=True)):
        place = np.interp(screening, _LOG_SCREENING, np.arange(_LOG_SCREENING.size))
        low = min(int(place), _LOG_SCREENING.size - 2)
        orders = coefficients[low] + (place - low) * (coefficients[low + 1] - coefficients[low])
        damping = np.exp(-strength * orders / orders[1])
        above = 1.0 - np.maximum.accumulate(np.clip(grid + damping[1:] @ below, 0.0, 1.0))
        # Where the series has lost all its digits the distribution ends.
        rising = np.concatenate(([True], np.diff(above) < -1e-13))
        shape = np.interp(t, -np.log(np.maximum(above[rising], 1e-9)), grid[rising])
        shapes[n] = shape / _mean(shape)
    return shapes


def _mean(shape: NDArray[np.float64]) -> float:
    """Mean of a function of t that is linear between the points and constant beyond, t distributed as exp(-t)."""
    t = SHAPE_STEP * np.arange(SHAPE_POINTS)
    slopes = np.diff(shape) / SHAPE_STEP
    return float(shape[0] + (slopes * (np.exp(-t[:-1]) - np.exp(-t[1:]))).sum())


@lru_cache(maxsize=1)
def _rutherford_coefficients() -> NDArray[np.float64]:
    """Transport coefficients of screened Rutherford scattering over the total, (screenings, orders)."""
    nodes, weights = np.polynomial.legendre.leggauss(800)
    screening = np.exp(_LOG_SCREENING)[:, None]
    # With s = ln(mu + A) the integrand exp(-s) (1 - P_l) is smooth.
    half = 0.5 * np.log1p(1 / screening)
    mu = screening * np.expm1(half * (1 + nodes))
    density = weights * half / (mu + screening) * screening * (1 + screening)
    result = np.zeros((screening.size, _ORDERS + 1))
    # The recursion runs for 1 - P_l, which keeps its digits at small angles.
    before, current = np.zeros_like(mu), 2 * mu
    for order in range(1, _ORDERS + 1):
        result[:, order] = (density * current).sum(axis=1)
        cosine = 1 - 2 * mu
        following = ((2 * order + 1) * (2 * mu + cosine * current) - order * before) / (order + 1)
        before, current = current, following
    return result


def _legendre_integrals(mu: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral from 0 to mu of (2 l + 1) P_l(1 - 2 mu'), l = 1 to the highest order; (orders, points)."""
    cosine = 1 - 2 * mu
    values = np.empty((_ORDERS + 2, mu.size))
    values[0], values[1] = 1.0, cosine
    for order in range(1, _ORDERS + 1):
        values[order + 1] = ((2 * order + 1) * cosine * values[order] - order * values[order - 1]) / (order + 1)
    return 0.5 * (values[:-2] - values[2:])
