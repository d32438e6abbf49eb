"""Time-activity fits of every voxel, with what failed counted and mapped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import SynthDoseError
from .curves import CurveModel, curve_model
from .fit import LN2, fixed_parameters, integrals, need_points, parameter_bounds
from .least_squares import fit_stack, starts_from_grid
from .time_points import SAME_TIME_H

OUTSIDE, FITTED, AT_PHYSICAL, NOT_CONVERGED, EMPTY, TOO_FEW = range(6)
STATUS = {
    OUTSIDE: "outside the mask or below the threshold",
    FITTED: "fitted",
    AT_PHYSICAL: "fitted, clears as slowly as the nuclide decays (bound)",
    NOT_CONVERGED: "no convergence, or more than can decay: trapezoid with physical tail",
    EMPTY: "no activity at any time: zero",
    TOO_FEW: "fewer positive activities than free parameters: trapezoid with physical tail",
}
"""What the values of `VoxelFit.status` mean."""
CHUNK = 16384  # voxels whose arrays stay in the cache of a core
TOLERANCE = 1e-4  # of the cost: far below what noise does to it
STEP_TOLERANCE = 1e-5
ITERATIONS = 40
MOST = 3.0  # times the highest activity kept until it has decayed: a fit above that is an artefact
MOST_FLOAT32 = 1e30
FLOOR = 0.05  # of a voxel's highest activity: noise of the rest is not smaller than this share's


@dataclass(frozen=True, eq=False)
class VoxelFit:
    """Maps of a voxel-wise fit. The arrays become read-only.

    Attributes
    ----------
    model : str
    tia_h : ndarray of float32, (nk, nj, ni)
        Time integral from administration to infinity, in the unit of the activity times h.
    sigma_h : ndarray of float32, (nk, nj, ni)
        Its standard uncertainty from the scatter about the curve (or the given noise); NaN where it is not known.
    half_life_h : ndarray of float32, (nk, nj, ni)
        Effective, of the slowest phase; NaN where nothing was fitted.
    status : ndarray of uint8, (nk, nj, ni)
        See `STATUS`.
    degrees_of_freedom : int
        Of every voxel's fit: few of them make `sigma_h` itself uncertain.
    """

    model: str
    tia_h: NDArray[np.float32]
    sigma_h: NDArray[np.float32]
    half_life_h: NDArray[np.float32]
    status: NDArray[np.uint8]
    degrees_of_freedom: int

    def __post_init__(self) -> None:
        for name in ("tia_h", "sigma_h", "half_life_h", "status"):
            getattr(self, name).setflags(write=False)

    @property
    def counts(self) -> dict[str, int]:
        """Number of voxels per meaning of `status`; those that do not occur are left out."""
        found = np.bincount(self.status.ravel(), minlength=len(STATUS))
        return {STATUS[n]: int(found[n]) for n in STATUS if found[n]}

    @property
    def notes(self) -> tuple[str, ...]:
        """How many voxels were fitted and how many failed, in words."""
        found = np.bincount(self.status.ravel(), minlength=len(STATUS))
        tried = int(found.sum() - found[OUTSIDE])
        failed = {n: int(found[n]) for n in (NOT_CONVERGED, TOO_FEW, EMPTY) if found[n]}
        text = f"Voxel-wise {self.model} fits: {tried} voxels, {sum(failed.values())} of them failed"
        text += f" ({'; '.join(f'{count} {STATUS[n]}' for n, count in failed.items())})." if failed else "."
        bound = f" {found[AT_PHYSICAL]} clear as slowly as the nuclide decays." if found[AT_PHYSICAL] else ""
        return (text + bound,)


def fit_voxels(
    times_h: Sequence[float],
    activities: Sequence[NDArray[np.float32]],
    *,
    physical_half_life_h: float,
    model: str = "mono",
    mask: NDArray[np.bool_] | None = None,
    threshold: float = 0.0,
    noise: Sequence[NDArray[np.float32]] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> VoxelFit:
    """Fit one model to every voxel of registered images.

    Parameters
    ----------
    times_h : sequence of float, (m,)
        After administration, increasing.
    activities : sequence of m ndarrays, (nk, nj, ni)
        Activity (or concentration) at those times on one grid. Negative values take part in the fit as they are.
    physical_half_life_h : float
    model : str
        "mono", "mono-uptake", "bi" … with no more free parameters than time points.
    mask : ndarray of bool, (nk, nj, ni), optional
        Voxels to fit; all if not given.
    threshold : float
        Voxels whose highest activity is not above it are left at zero.
    noise : sequence of m ndarrays, optional
        One standard deviation per voxel and time. Otherwise the variance is taken in proportion to the activity (at least
        5 % of the voxel's highest), and sigmas come from the scatter.
    fixed : mapping of parameter name to value, optional

    Returns
    -------
    VoxelFit
        Voxels whose fit failed are integrated by the trapezoidal rule (negative activities as 0) and are marked.

    Raises
    ------
    SynthDoseError
        If shapes or times do not fit, values are not finite, or the points are fewer than the free parameters.
    """
    shape = curve_model(model)
    times = np.asarray(times_h, np.float64)
    volumes = _checked(times, activities)
    held = fixed_parameters(shape, fixed or {})
    need_points("Voxel-wise fit", shape, len(times), shape.size - len(held))
    lower, upper = parameter_bounds(shape, times, physical_half_life_h, {}, held)
    if noise is not None and (len(noise) != len(volumes) or any(n.shape != volumes[0].shape for n in noise)):
        raise SynthDoseError("The noise of a voxel-wise fit needs one array for each activity image, of the same shape.")
    size = volumes[0].shape
    highest = volumes[0].copy()
    for volume in volumes[1:]:
        np.maximum(highest, volume, out=highest)
    wanted = np.ones(size, bool) if mask is None else np.asarray(mask, bool)
    if wanted.shape != size:
        raise SynthDoseError(f"The mask has shape {wanted.shape}, the activity images {size}.")
    places = np.flatnonzero(wanted & ((highest > threshold) if threshold > 0 else True))
    tia, sigma = np.zeros(size, np.float32), np.zeros(size, np.float32)
    half_life, status = np.full(size, np.nan, np.float32), np.zeros(size, np.uint8)
    free = np.array([n not in held for n in range(shape.size)])
    for first in range(0, places.size, CHUNK):
        here = places[first : first + CHUNK]
        y = np.array([v.ravel()[here] for v in volumes], np.float64)
        spread = None if noise is None else np.array([n.ravel()[here] for n in noise], np.float64)
        results = _fit_chunk(shape, times, y, spread, lower, upper, held, free, physical_half_life_h)
        tia.ravel()[here], sigma.ravel()[here], half_life.ravel()[here], status.ravel()[here] = results
    return VoxelFit(model, tia, sigma, half_life, status, len(times) - int(free.sum()))


def _checked(times: NDArray[np.float64], activities: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    volumes = [np.asarray(a) for a in activities]
    if len(volumes) != times.size or not volumes or any(v.shape != volumes[0].shape for v in volumes):
        raise SynthDoseError(
            f"A voxel-wise fit needs one image for each time, all of one shape; found {times.size} times and images of "
            f"{sorted({v.shape for v in volumes})}."
        )
    if not np.isfinite(times).all() or times.min() < 0 or (np.diff(times) < SAME_TIME_H).any():
        raise SynthDoseError(f"The times of a voxel-wise fit have to increase from 0 h on; found {times.tolist()}.")
    for time, volume in zip(times, volumes, strict=True):
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        if bad:
            raise SynthDoseError(f"{bad} of {volume.size} voxels at {time:.4g} h are not a number or infinite.")
    return volumes


def _fit_chunk(
    shape: CurveModel,
    times: NDArray[np.float64],
    y: NDArray[np.float64],
    noise: NDArray[np.float64] | None,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    held: dict[int, float],
    free: NDArray[np.bool_],
    physical_half_life_h: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Integral, sigma, half-life and status of the voxels in `y` (m, n)."""
    count = y.shape[1]
    status = np.full(count, FITTED, np.uint8)
    top = y.max(axis=0)
    status[(y > 0).sum(axis=0) < free.sum()] = TOO_FEW
    status[(top <= 0) | (y.sum(axis=0) <= 0)] = EMPTY
    tia, sigma, half_life = np.zeros(count), np.zeros(count), np.full(count, np.nan)
    good = np.flatnonzero(status == FITTED)
    if good.size:
        values = y[:, good]
        variance = np.maximum(values, FLOOR * top[good]) * top[good] if noise is None else noise[:, good] ** 2
        weights = 1.0 / variance
        start = _start(shape, times, values, weights, lower, upper, held)
        fitted = fit_stack(
            shape,
            times,
            values,
            weights,
            start,
            lower,
            upper,
            free,
            tolerance=TOLERANCE,
            step_tolerance=STEP_TOLERANCE,
            iterations=ITERATIONS,
        )
        integral, spread, _ = integrals(shape, fitted, free)
        if noise is None:
            left = len(times) - int(free.sum())
            spread = spread * np.sqrt(fitted.cost / left) if left else np.full(good.size, np.nan)
        slow = fitted.parameters[shape.phases : 2 * shape.phases].min(axis=0)
        known = spread < MOST_FLOAT32
        tia[good], sigma[good], half_life[good] = integral, np.where(known, spread, np.nan), LN2 / np.exp(slow)
        bound = half_life[good] > 0.9999 * physical_half_life_h
        status[good[bound]] = AT_PHYSICAL
        allowed = MOST * top[good] * (times[-1] + physical_half_life_h / LN2)
        status[good[~fitted.converged | ~(np.abs(integral) <= allowed)]] = NOT_CONVERGED
    failed = np.flatnonzero((status == NOT_CONVERGED) | (status == TOO_FEW))
    positive = np.maximum(y[:, failed], 0.0)
    tia[failed] = positive[0] * times[0] + np.trapezoid(positive, times, axis=0) + positive[-1] * physical_half_life_h / LN2
    sigma[failed], half_life[failed] = math.nan, math.nan
    return tia, sigma, half_life, status


def _start(
    shape: CurveModel,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    held: dict[int, float],
) -> NDArray[np.float64]:
    """Start of the fits: of one exponential a straight line through the logarithms, otherwise the best of a grid."""
    if shape.name != "mono" or held:
        return starts_from_grid(shape, times, values, weights, lower, upper, held, starts=1, points=8)[0]
    floor = FLOOR * values.max(axis=0)
    logs = np.log(np.maximum(values, floor))
    trust = weights * np.maximum(values, floor) ** 2
    total = trust.sum(axis=0)
    middle = (trust * times[:, None]).sum(axis=0) / total
    away = times[:, None] - middle
    slope = -(trust * away * logs).sum(axis=0) / (trust * away**2).sum(axis=0)
    rate = np.log(np.clip(slope, np.exp(lower[1]), np.exp(upper[1])))
    height = (trust * logs).sum(axis=0) / total + np.exp(rate) * middle
    return np.array([np.exp(np.minimum(height, 600.0)), rate])
