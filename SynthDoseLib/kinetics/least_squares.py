"""Weighted least squares of many small curves at once: bounded Levenberg-Marquardt over stacked arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .curves import CurveModel, Floats

ITERATIONS = 200
GRADIENT_TOLERANCE = 1e-10  # what one more step would gain, relative to the cost
STEP_TOLERANCE = 1e-9  # relative to the parameters
MOST_DAMPING = 1e12
LONGEST_STEP = 1.5  # of ln rate: a phase too fast to be seen would jump from bound to bound
SINGULAR = 1e-15  # pivot of a matrix with a unit diagonal that rounding can leave of nothing


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of `fit_stack` for n curves.

    Attributes
    ----------
    parameters : ndarray, (P, n)
    normal_matrix : ndarray, (P, P, n)
        Jᵀ W J at the solution, over all P parameters.
    cost : ndarray, (n,)
        Sum of weighted squared residuals.
    converged, at_bound : ndarray of bool, (n,) and (P, n)
    """

    parameters: Floats
    normal_matrix: Floats
    cost: Floats
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]


def fit_stack(
    model: CurveModel,
    times_h: Floats,
    values: Floats,
    weights: Floats,
    start: Floats,
    lower: Floats,
    upper: Floats,
    free: NDArray[np.bool_],
    *,
    tolerance: float = GRADIENT_TOLERANCE,
    step_tolerance: float = STEP_TOLERANCE,
    iterations: int = ITERATIONS,
) -> Fitted:
    """Minimise Σ w (y - A(t))² for every curve by itself, within bounds.

    Parameters
    ----------
    model : CurveModel
    times_h : ndarray, (m,)
    values, weights : ndarray, (m, n)
        Activities and 1/σ² (n curves of m points).
    start : ndarray, (P, n)
    lower, upper : ndarray, (P,)
    free : ndarray of bool, (P,)
        Parameters that are fitted; the others keep their start.
    tolerance : float
        Stop when another step would lower the cost by less than this fraction of it …
    step_tolerance : float
        … or when no parameter changes by more than this fraction of itself.
    iterations : int

    Returns
    -------
    Fitted

    References
    ----------
    Levenberg, Q. Appl. Math. 2 (1944) 164; Marquardt, J. SIAM 11 (1963) 431. A parameter on a bound whose gradient points
    outwards is held there for the step (gradient projection).
    """
    parameters = np.clip(np.array(start, dtype=np.float64), lower[:, None], upper[:, None])
    count = parameters.shape[1]
    damping = np.full(count, 1e-3)
    cost = (weights * (values - model.values(parameters, times_h)) ** 2).sum(axis=0)
    negligible = step_tolerance**2 * (weights * values**2).sum(axis=0)
    done = np.zeros(count, bool)
    open_ = np.arange(count)
    for _ in range(iterations):
        if not open_.size:
            break
        whole = open_.size == count
        p, y, w = (a if whole else a[:, open_] for a in (parameters, values, weights))
        gradient, normal = _normal_equations(model, times_h, p, y, w)
        held = _held(p, gradient, lower, upper, free)
        step = solve_spd(_damped(normal, damping[open_], held), np.where(held, 0.0, gradient))
        step[model.phases :] = np.clip(step[model.phases :], -LONGEST_STEP, LONGEST_STEP)
        trial = np.clip(p + step, lower[:, None], upper[:, None])
        trial = _with_best_amplitudes(model, times_h, y, w, trial, lower, upper, free)
        new_cost = (w * (y - model.values(trial, times_h)) ** 2).sum(axis=0)
        better = new_cost <= cost[open_]
        gain = (gradient * step).sum(axis=0) * (1 + damping[open_])  # of a step without damping
        small = (np.abs(trial - p) <= step_tolerance * (np.abs(p) + STEP_TOLERANCE)).all(axis=0)
        finished = (gain <= tolerance * cost[open_] + negligible[open_]) | small
        stuck = ~better & (damping[open_] > MOST_DAMPING)
        parameters[:, open_] = np.where(better, trial, p)
        cost[open_] = np.where(better, new_cost, cost[open_])
        damping[open_] *= np.where(better, 0.2, 4.0)
        done[open_[finished]] = True
        open_ = open_[~(finished | stuck)]
    _, normal = _normal_equations(model, times_h, parameters, values, weights)
    edge = 1e-9 * (np.abs(parameters) + 1e-9)
    at_bound = ((parameters <= lower[:, None] + edge) | (parameters >= upper[:, None] - edge)) & free[:, None]
    return Fitted(parameters, normal, cost, done & np.isfinite(cost), at_bound)


def fit_best_start(
    model: CurveModel,
    times_h: Floats,
    values: Floats,
    weights: Floats,
    starts: Sequence[Floats],
    lower: Floats,
    upper: Floats,
    free: NDArray[np.bool_],
) -> Fitted:
    """`fit_stack` from every start; of each curve the result with the lowest cost."""
    best = fit_stack(model, times_h, values, weights, starts[0], lower, upper, free)
    for start in starts[1:]:
        other = fit_stack(model, times_h, values, weights, start, lower, upper, free)
        better = (other.cost < best.cost * (1 - 1e-9)) & (other.converged | ~best.converged)
        best = Fitted(*(np.where(better, getattr(other, f.name), getattr(best, f.name)) for f in fields(Fitted)))
    return best


def _normal_equations(model: CurveModel, times_h: Floats, p: Floats, y: Floats, w: Floats) -> tuple[Floats, Floats]:
    fitted, jacobian = model.values_and_jacobian(p, times_h)
    weighted = jacobian * w
    gradient = (weighted * (y - fitted)).sum(axis=1)
    normal = np.empty((model.size, model.size, p.shape[1]))
    for a in range(model.size):
        for b in range(a + 1):
            normal[a, b] = normal[b, a] = (weighted[a] * jacobian[b]).sum(axis=0)
    return gradient, normal


def _held(p: Floats, gradient: Floats, lower: Floats, upper: Floats, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    outwards = ((p <= lower[:, None]) & (gradient < 0)) | ((p >= upper[:, None]) & (gradient > 0))
    return outwards | ~free[:, None]


def _damped(normal: Floats, damping: Floats, held: NDArray[np.bool_]) -> Floats:
    """Normal matrix with Marquardt's damping; held parameters become rows of the unit matrix."""
    result = np.where(held[:, None] | held[None, :], 0.0, normal)
    for a in range(len(held)):
        diagonal = np.maximum(result[a, a], np.finfo(np.float64).tiny * 1e8)
        result[a, a] = np.where(held[a], 1.0, diagonal * (1 + damping))
    return result


def solve_spd(matrix: Floats, right: Floats) -> Floats:
    """Solve n systems with symmetric positive matrices (P, P, n) and right sides (P, n) by Cholesky's decomposition.

    Rows are scaled by the diagonal first; a pivot that vanishes is replaced by a tiny one.
    """
    size = len(right)
    scale = 1 / np.sqrt(np.maximum(np.array([matrix[a, a] for a in range(size)]), np.finfo(np.float64).tiny * 1e8))
    factor = np.zeros_like(matrix)
    for a in range(size):
        for b in range(a + 1):
            rest = matrix[a, b] * scale[a] * scale[b] - (factor[a, :b] * factor[b, :b]).sum(axis=0)
            factor[a, b] = np.sqrt(np.maximum(rest, SINGULAR)) if a == b else rest / factor[b, b]
    solution = np.empty_like(right)
    for a in range(size):
        solution[a] = (right[a] * scale[a] - (factor[a, :a] * solution[:a]).sum(axis=0)) / factor[a, a]
    for a in reversed(range(size)):
        solution[a] = (solution[a] - (factor[a + 1 :, a] * solution[a + 1 :]).sum(axis=0)) / factor[a, a]
    return solution * scale


def invert_spd(matrix: Floats, held: NDArray[np.bool_]) -> Floats:
    """Covariance (P, P, n) of n normal matrices; parameters that are `held` (P, n) have none."""
    size, count = len(matrix), matrix.shape[-1]
    kept = _damped(matrix, np.zeros(count), held)
    inverse = np.empty_like(kept)
    for a in range(size):
        unit = np.zeros((size, count))
        unit[a] = 1.0
        inverse[:, a] = solve_spd(kept, unit)
    return np.where(held[:, None] | held[None, :], 0.0, inverse)


def starts_from_grid(
    model: CurveModel,
    times_h: Floats,
    values: Floats,
    weights: Floats,
    lower: Floats,
    upper: Floats,
    fixed: dict[int, float],
    *,
    starts: int = 4,
    points: int = 14,
) -> list[Floats]:
    """Best points of a grid of rates, with the amplitudes solved for at each, unlike in their fastest phase: each (P, n).

    References
    ----------
    Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413-432 (variable projection).
    """
    count = values.shape[1]
    free = np.array([n not in fixed for n in range(model.size)])
    amplitudes = [fixed.get(n, 0.0) for n in range(model.phases)]
    best: dict[float, tuple[Floats, Floats]] = {}
    for rates in _rate_sets(model, times_h, lower, upper, fixed, points):
        parameters = np.repeat(np.array([*amplitudes, *rates])[:, None], count, axis=1)
        parameters = _with_best_amplitudes(model, times_h, values, weights, parameters, lower, upper, free)
        cost = (weights * (values - model.values(parameters, times_h)) ** 2).sum(axis=0)
        lowest, start = best.setdefault(rates[0], (np.full(count, np.inf), parameters.copy()))
        better = cost < lowest
        lowest[better] = cost[better]
        start[:, better] = parameters[:, better]
    costs = np.array([lowest for lowest, _ in best.values()])
    every = np.array([start for _, start in best.values()])
    ranked = np.argsort(costs, axis=0, kind="stable")[:starts]
    return [np.take_along_axis(every, place[None, None, :], axis=0)[0] for place in ranked]


def _rate_sets(
    model: CurveModel, times_h: Floats, lower: Floats, upper: Floats, fixed: dict[int, float], points: int
) -> list[tuple[float, ...]]:
    """Sets of ln rate, clearing phases from fast to slow and the uptake faster than all of them."""
    slowest, fastest = lower[model.phases :].min(), upper[model.phases :].max()
    # rates that the times can tell apart: a few per e-fold between the last time and the first
    span = (np.log(0.15 / times_h.max()), np.log(6.0 / max(times_h[times_h > 0].min(), 1e-3)))
    low, high = max(slowest, span[0]), min(fastest, span[1])
    grid = np.linspace(low, max(high, low + 1e-3), points)
    sets: list[tuple[float, ...]] = [()]
    for index in range(model.phases, model.size):
        choices = [fixed[index]] if index in fixed else grid.tolist()
        sets = [(*rates, choice) for rates in sets for choice in choices]
    keep = []
    for rates in sets:
        clearing = rates[: model.phases]
        free = [r for n, r in enumerate(clearing) if n + model.phases not in fixed]
        ordered = all(a > b for a, b in pairwise(free)) and len(set(clearing)) == len(clearing)
        if ordered and (not model.uptake or rates[-1] > max(clearing)):
            keep.append(rates)
    return keep


def _with_best_amplitudes(
    model: CurveModel,
    times_h: Floats,
    values: Floats,
    weights: Floats,
    parameters: Floats,
    lower: Floats,
    upper: Floats,
    free: NDArray[np.bool_],
) -> Floats:
    """Replace the free amplitudes by those that fit best with the given rates (variable projection), within bounds."""
    open_ = np.flatnonzero(free[: model.phases])
    if not open_.size:
        return parameters
    decays, rise = model.basis(parameters, times_h)
    basis = decays if rise is None else decays - rise
    known = np.where(free[: model.phases, None], 0.0, parameters[: model.phases])
    rest = values - (known[:, None] * basis).sum(axis=0)
    normal = np.array([[(weights * basis[a] * basis[b]).sum(axis=0) for b in open_] for a in open_])
    right = np.array([(weights * rest * basis[a]).sum(axis=0) for a in open_])
    result = parameters.copy()
    result[open_] = np.clip(solve_spd(normal, right), lower[open_, None], upper[open_, None])
    return result
