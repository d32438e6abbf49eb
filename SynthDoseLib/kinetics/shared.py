"""Curves of several regions fitted together, with half-lives in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, special

from ..core import SynthDoseError
from .curves import Floats, curve_model
from .fit import (
    LN2,
    SURPRISING,
    CurveFit,
    corrected_akaike,
    fit_curve,
    fixed_parameters,
    parameter_bounds,
    parameter_index,
    stack_parameters,
    unstack_parameters,
)
from .time_points import TimeActivity


def fit_shared(
    curves: Sequence[TimeActivity],
    model: str = "mono",
    *,
    shared: Sequence[str],
    physical_half_life_h: float,
    fixed: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[CurveFit, ...]:
    """Fit one model to several regions that have some parameters in common.

    Parameters
    ----------
    curves : sequence of TimeActivity
        Either all with noise or all without; each may have its own times.
    model : str
    shared : sequence of str
        Parameters with one value for all regions, for example ``["uptake_half_life_h"]``.
    physical_half_life_h, fixed, bounds
        As for `fit_curve`.

    Returns
    -------
    tuple of CurveFit
        In the order of `curves`; covariance, degrees of freedom and AICc are those of the joint fit.

    Raises
    ------
    SynthDoseError
        If there are fewer points than parameters altogether, or an argument is wrong.
    """
    shape = curve_model(model)
    common = {parameter_index(shape, name) for name in shared}
    held = fixed_parameters(shape, fixed or {})
    if not curves or not common or common & set(held):
        raise SynthDoseError("A shared fit needs curves, and parameters to share that are not fixed.")
    known = curves[0].sigma_MBq is not None
    if any((curve.sigma_MBq is not None) != known for curve in curves):
        raise SynthDoseError("A shared fit needs standard deviations for all of its regions, or for none.")
    places, size = _places(shape.size, len(curves), common, set(held))
    count = sum(len(curve.times_h) for curve in curves)
    if count < size:
        raise SynthDoseError(
            f"The shared fit of {len(curves)} regions has {size} free parameters, the data have {count} points. Share "
            "or fix more."
        )
    start = [_start(curve, model, physical_half_life_h, fixed or {}, held) for curve in curves]
    lower, upper, first = np.full(size, -np.inf), np.full(size, np.inf), np.zeros(size)
    for place, curve, values in zip(places, curves, start, strict=True):
        low, high = parameter_bounds(shape, curve.times_h, physical_half_life_h, bounds or {}, held)
        for n, at in enumerate(place):
            if at >= 0:
                lower[at], upper[at] = max(lower[at], low[n]), min(upper[at], high[n])
                first[at] += values[n] / (len(curves) if n in common else 1)
    sigmas = [np.ones(len(curve.times_h)) if curve.sigma_MBq is None else curve.sigma_MBq for curve in curves]

    def parameters(x: Floats, index: int) -> Floats:
        place = places[index]
        return np.array([x[at] if at >= 0 else held[n] for n, at in enumerate(place)])[:, None]

    def residuals(x: Floats) -> Floats:
        parts = [
            (shape.values(parameters(x, c), curve.times_h)[:, 0] - curve.activity_MBq) / sigmas[c]
            for c, curve in enumerate(curves)
        ]
        return np.concatenate(parts)

    def jacobian(x: Floats) -> Floats:
        result, row = np.zeros((count, size)), 0
        for c, curve in enumerate(curves):
            _, slopes = shape.values_and_jacobian(parameters(x, c), curve.times_h)
            rows = slice(row, row + len(curve.times_h))
            for n, at in enumerate(places[c]):
                if at >= 0:
                    result[rows, at] = slopes[n, :, 0] / sigmas[c]
            row += len(curve.times_h)
        return result

    inside = np.clip(first, lower + 1e-9 * (1 + np.abs(lower)), upper - 1e-9)
    passes = 1 if known else 4
    for _ in range(passes):
        if not known:  # equally sure in relative terms, as far as the curve of the last pass tells
            sigmas = [_relative(shape.values(parameters(inside, c), v.times_h)[:, 0], v) for c, v in enumerate(curves)]
        found = optimize.least_squares(
            residuals, inside, jacobian, bounds=(lower, upper), x_scale="jac", ftol=1e-14, xtol=1e-14, gtol=1e-14
        )
        inside = np.clip(found.x, lower + 1e-12 * (1 + np.abs(lower)), upper)
    return _results(curves, model, found, places, held, known, count, jacobian(found.x), lower, upper)


def _places(size: int, curves: int, common: set[int], held: set[int]) -> tuple[list[list[int]], int]:
    """Place of every curve's parameters in the joint vector (-1: fixed), and its length."""
    shared_at = {n: place for place, n in enumerate(sorted(common))}
    places, free = [], len(shared_at)
    for _ in range(curves):
        own = []
        for n in range(size):
            if n in held:
                own.append(-1)
            elif n in shared_at:
                own.append(shared_at[n])
            else:
                own.append(free)
                free += 1
        places.append(own)
    return places, free


def _start(
    curve: TimeActivity, model: str, physical_half_life_h: float, fixed: Mapping[str, float], held: Mapping[int, float]
) -> Floats:
    """Stacked start values: of the curve's own fit, or if its points are too few, of a mono-exponential one."""
    shape = curve_model(model)
    if shape.size - len(held) <= len(curve.times_h):
        own = fit_curve(curve, model, physical_half_life_h=physical_half_life_h, fixed=fixed)
        return stack_parameters(shape, own.parameters)
    values = np.full(shape.size, math.log(LN2 / min(physical_half_life_h, 2 * float(curve.times_h.max()) + 1)))
    values[: shape.phases] = curve.activity_MBq.max() / shape.phases
    values[shape.phases :] += np.arange(shape.size - shape.phases)  # e times faster from phase to phase
    return values


def _relative(fitted: Floats, curve: TimeActivity) -> Floats:
    return np.maximum(fitted, 0.01 * curve.activity_MBq.max())


def _results(
    curves: Sequence[TimeActivity],
    model: str,
    found: optimize.OptimizeResult,
    places: list[list[int]],
    held: Mapping[int, float],
    known: bool,
    count: int,
    jacobian: Floats,
    lower: Floats,
    upper: Floats,
) -> tuple[CurveFit, ...]:
    shape = curve_model(model)
    size = found.x.size
    edge = 1e-7 * (np.abs(found.x) + 1e-7)
    kept = np.flatnonzero((found.x > lower + edge) & (found.x < upper - edge))
    covariance = np.zeros((size, size))
    covariance[np.ix_(kept, kept)] = np.linalg.pinv(jacobian[:, kept].T @ jacobian[:, kept], hermitian=True)
    chi_squared, dof = float(2 * found.cost), count - size
    notes: list[str] = []
    scale = 1.0
    if not known:
        scale = chi_squared / dof if dof else math.nan
    elif dof and float(special.chdtrc(dof, chi_squared)) < SURPRISING:
        scale = chi_squared / dof
        notes.append(
            f"The shared {model} fit scatters more than the noise explains (chi-squared {chi_squared:.1f} for {dof} degrees of "
            f"freedom); sigmas were enlarged by {scale**0.5:.2f}."
        )
    covariance = covariance * scale
    results = []
    for place, curve in zip(places, curves, strict=True):
        stacked = np.array([found.x[at] if at >= 0 else held[n] for n, at in enumerate(place)])
        own = np.zeros((shape.size, shape.size))
        here = [n for n, at in enumerate(place) if at >= 0]
        own[np.ix_(here, here)] = covariance[np.ix_([place[n] for n in here], [place[n] for n in here])]
        gradient = shape.integral_gradient(stacked[:, None])[:, 0]
        named = unstack_parameters(shape, stacked)
        spread = np.sqrt(np.maximum(np.diag(own), 0.0))
        sigmas = {
            name: float(s if n < shape.phases else s * named[name])
            for n, (name, s) in enumerate(zip(named, spread, strict=True))
        }
        slowest = shape.phases + int(np.argmin(stacked[shape.phases : 2 * shape.phases]))
        half_life = LN2 / math.exp(stacked[slowest])
        results.append(
            CurveFit(
                curve,
                model,
                named,
                sigmas,
                own,
                chi_squared,
                dof,
                known,
                corrected_akaike(chi_squared, count, size, known),
                float(shape.integral(stacked[:, None])[0]),
                math.sqrt(max(float(gradient @ own @ gradient), 0.0)) if scale == scale else math.nan,
                half_life,
                float(spread[slowest] * half_life),
                bool(found.success),
                (*curve.notes, *notes),
            )
        )
    return tuple(results)
