"""Straight flights of photons through voxels, and the turns between them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .geometry import voxel_index
from .random import next_uniform
from .tables import ROWS, TOTAL, TOTAL_SLOPE

_LAST_ROW = ROWS - 2
STEPS_PER_CM = float(2**36)
"""Flights through voxels are measured in whole steps of 1.5e-11 cm."""
_FARTHEST = float(2**49)
"""Steps, 82 m: faces further along the flight are taken for that far, so that whole numbers hold the way through any grid."""


@njit(inline="always")
def energy_row(energy, photons):
    """Row of the tables below E, and the share of the way to the next."""
    place = (math.log(energy) - photons.log_first) * photons.rows_per_log
    row = min(max(int(place), 0), _LAST_ROW)
    return row, place - row


@njit(inline="always")
def voxel_indices(geometry, voxel):
    """Indices (i, j, k) of a place in the flattened arrays."""
    row = voxel // geometry.ni
    k = row // geometry.nj
    return voxel - row * geometry.ni, row - k * geometry.nj, k


@njit(inline="always")
def faces_ahead(position, direction, index, size, voxels):
    """Along one axis: path between faces, to the first face and to the grid's exit, all in fixed point, and the index's turn.

    A flight along the faces meets none: its direction is taken for one by 1e-6, which puts them out of reach.
    """
    slope = STEPS_PER_CM / (direction if abs(direction) > 1e-6 else 1e-6)
    pace = np.int64(min(size * abs(slope), _FARTHEST))
    if slope > 0.0:
        face = np.int64(min(max(0.0, ((index + 1) * size - position) * slope), _FARTHEST))
        return pace, face, face + (voxels - 1 - index) * pace, 1
    face = np.int64(min(max(0.0, (index * size - position) * slope), _FARTHEST))
    return pace, face, face + index * pace, -1


@njit(inline="always")
def fly(x, y, z, u, v, w, i, j, k, paths, row, fraction, geometry, photons):
    """Fly `paths` mean free paths; return whether the flight ended inside, and where.

    Voxels are counted, not searched (Amanatides and Woo, Eurographics '87, 3), by paths in fixed point: which face comes first
    cannot be foreseen, and whole numbers choose without a branch.
    """
    pace_i, next_i, exit_i, turn_i = faces_ahead(x, u, i, geometry.dx, geometry.ni)
    pace_j, next_j, exit_j, turn_j = faces_ahead(y, v, j, geometry.dy, geometry.nj)
    pace_k, next_k, exit_k, turn_k = faces_ahead(z, w, k, geometry.dz, geometry.nk)
    row_stride = geometry.ni * turn_j
    slice_stride = geometry.ni * geometry.nj * turn_k
    leaves = min(exit_i, exit_j, exit_k)
    voxel = voxel_index(geometry, i, j, k)
    last = -1  # material of the coefficients at hand
    attenuation = 0.0
    travelled = np.int64(0)
    mu = 0.0
    while True:
        reached = min(next_i, next_j, next_k)
        density = np.float64(geometry.density[voxel])
        m = np.int64(geometry.material[voxel])
        if m != last:
            last = m
            attenuation = photons.steps[row, m, TOTAL] + fraction * photons.steps[row, m, TOTAL_SLOPE]
            attenuation /= STEPS_PER_CM
        length = np.float64(reached - travelled)
        mu = density * attenuation
        depth = mu * length
        if depth >= paths:
            break
        if reached >= leaves:
            return False, x, y, z, i, j, k
        paths -= depth
        travelled = reached
        is_i = -np.int64(next_i <= reached)
        is_j = -np.int64(next_j <= reached) & ~is_i
        is_k = ~(is_i | is_j)
        voxel += (turn_i & is_i) + (row_stride & is_j) + (slice_stride & is_k)
        next_i += pace_i & is_i
        next_j += pace_j & is_j
        next_k += pace_k & is_k
    length = paths / mu
    length = (travelled + length) / STEPS_PER_CM
    i, j, k = voxel_indices(geometry, voxel)
    return True, x + u * length, y + v * length, z + w * length, i, j, k


@njit(inline="always")
def random_azimuth(state):
    """Cosine and sine of a random angle, from a point of the unit disc."""
    while True:
        a = 2.0 * next_uniform(state) - 1.0
        b = 2.0 * next_uniform(state) - 1.0
        square = a * a + b * b
        if 0.0 < square < 1.0:
            scale = 1.0 / math.sqrt(square)
            return a * scale, b * scale


@njit(inline="always")
def turn(u, v, w, cosine, a, b):
    """Turn a unit vector by a polar angle and an azimuth (its cosine a and sine b); return the new unit vector.

    The axes across it: Duff et al., J. Comput. Graph. Tech. 6 (2017) 1.
    """
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    a *= sine
    b *= sine
    sign = math.copysign(1.0, w)
    p = -1.0 / (sign + w)
    q = u * v * p
    return (
        u * cosine + (1.0 + sign * u * u * p) * a + q * b,
        v * cosine + sign * q * a + (sign + v * v * p) * b,
        w * cosine - sign * u * a - v * b,
    )
