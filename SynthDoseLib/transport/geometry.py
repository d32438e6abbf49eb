"""The phantom as the kernels see it, and the particles that wait for their turn.

Kernels work in the frame of the grid: x, y, z run along i, j, k from the outer corner of voxel (0, 0, 0), in cm; voxel
``(k * nj + j) * ni + i`` of the flattened arrays. Directions are unit vectors of that frame.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core import VoxelPhantom

PHOTON, ELECTRON, POSITRON, COPIED = 0, 1, 2, 4
"""Kinds of particles; the last is a collision at several places: see `tracks`."""

KIND, ENERGY, X, Y, Z, U, V, W, WEIGHT, VOXEL_I, VOXEL_J, VOXEL_K = range(12)
"""Columns of a particle on the stack; energies in MeV, positions in cm, voxel indices as whole floats."""

STACK_SIZE = 64  # 20 MeV electrons in titanium need 20; a GPU keeps one for each of its threads

STACKED, PLACED, OPEN, COPIES = range(4)
COUNTS = 6
"""What a thread counts: particles on the stack; places that wait for tracks; the particle COPIED that is given places now, -1
for none; copies of the electron that is followed, 0 for one that flies itself; see also `tracks`."""

TALLY_PER_MEV = float(2**36)
"""Tallies are int64 in fixed point, so that their sums do not depend on the order: 15 µeV steps, 1.3e8 MeV at most."""


class Geometry(NamedTuple):
    """Voxels for the kernels.

    Attributes
    ----------
    ni, nj, nk : int
    dx, dy, dz : float
        Voxel size along i, j, k, cm.
    material : ndarray of uint8, (nk * nj * ni,)
    density : ndarray of float32, (nk * nj * ni,)
        g/cm3; 0 is vacuum.
    per_edge : float
        1 / (smallest voxel edge), 1/cm.
    """

    ni: int
    nj: int
    nk: int
    dx: float
    dy: float
    dz: float
    material: NDArray[np.uint8]
    density: NDArray[np.float32]
    per_edge: float


def build_geometry(phantom: VoxelPhantom) -> Geometry:
    """Flatten a phantom for the kernels."""
    nk, nj, ni = phantom.grid.shape
    dx, dy, dz = (s / 10.0 for s in phantom.grid.spacing_mm)
    material, density = np.ravel(phantom.material_index), np.ravel(phantom.density_g_cm3).astype(np.float32, copy=False)
    return Geometry(ni, nj, nk, dx, dy, dz, material, density, 1.0 / min(dx, dy, dz))


@njit(inline="always")
def voxel_index(geometry, i, j, k):
    """Place of voxel (i, j, k) in the flattened arrays."""
    return (k * geometry.nj + j) * geometry.ni + i


@njit(inline="always")
def distance_to_face(position, direction, index, size):
    """Distance, cm, along one axis to the face of voxel `index` that the particle flies towards."""
    if direction > 0.0:
        return max(0.0, ((index + 1) * size - position) / direction)
    if direction < 0.0:
        return max(0.0, (index * size - position) / direction)
    return 1e30


@njit(inline="always")
def rotate(u, v, w, cosine, azimuth):
    """Turn a unit vector by a polar angle (its cosine) and an azimuth; return the new unit vector."""
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    cos_azimuth = math.cos(azimuth)
    sin_azimuth = math.sin(azimuth)
    across = math.sqrt(max(0.0, 1.0 - w * w))
    if across > 1e-6:
        new_u = u * cosine + sine * (u * w * cos_azimuth - v * sin_azimuth) / across
        new_v = v * cosine + sine * (v * w * cos_azimuth + u * sin_azimuth) / across
        new_w = w * cosine - sine * cos_azimuth * across
    else:
        sign = 1.0 if w > 0.0 else -1.0
        new_u, new_v, new_w = sine * cos_azimuth, sine * sin_azimuth, sign * cosine
    norm = 1.0 / math.sqrt(new_u * new_u + new_v * new_v + new_w * new_w)
    return new_u * norm, new_v * norm, new_w * norm


@njit
def push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k):
    """Put a particle on the stack (STACK_SIZE, 12); `count` begins with their number. Return False when it is full."""
    n = count[0]
    if n >= stack.shape[0]:
        return False
    stack[n, KIND] = kind
    stack[n, ENERGY] = energy
    stack[n, X] = x
    stack[n, Y] = y
    stack[n, Z] = z
    stack[n, U] = u
    stack[n, V] = v
    stack[n, W] = w
    stack[n, WEIGHT] = weight
    stack[n, VOXEL_I] = i
    stack[n, VOXEL_J] = j
    stack[n, VOXEL_K] = k
    count[0] = n + 1
    return True


@njit(inline="always")
def add_whole(array, place, number):
    """Add a whole number to an element of an int64 array: the only function that has another body on a GPU (`cuda_kernels`)."""
    array[place] += number


@njit(inline="always")
def deposit(tally, voxel, energy):
    """Add an energy (already times the weight), MeV, to a voxel of an int64 tally in units of 1 / TALLY_PER_MEV."""
    add_whole(tally, voxel, np.int64(energy * TALLY_PER_MEV + 0.5))
