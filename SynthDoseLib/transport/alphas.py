"""Alpha particles: straight lines, continuous slowing down.

Range straggling (about 1 %) and deflection are left out: an alpha's whole range is 0.05 to 0.1 mm of tissue, so that they
matter only where voxels are that small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core import Material
from ..physics import alpha_stopping_power
from .geometry import deposit, distance_to_face, voxel_index

_POINTS = 400
_LOWEST, _HIGHEST = 1e-3, 10.0


class AlphaTables(NamedTuple):
    """Range against energy.

    Attributes
    ----------
    energy : ndarray of float64, (points,)
        MeV.
    range : ndarray of float64, (materials, points)
        g/cm2, from the lowest energy down to rest included.
    """

    energy: NDArray[np.float64]
    range: NDArray[np.float64]


def build_alpha_tables(materials: Sequence[Material], with_alphas: bool) -> AlphaTables:
    """Tables for `transport_alpha`; all zero if no alphas are emitted."""
    energy = np.geomspace(_LOWEST, _HIGHEST, _POINTS)
    ranges = np.zeros((len(materials), _POINTS))
    if with_alphas:
        for m, material in enumerate(materials):
            slowness = energy / alpha_stopping_power(material, energy)
            steps = 0.5 * (slowness[1:] + slowness[:-1]) * np.diff(np.log(energy))
            ranges[m] = slowness[0] + np.concatenate([[0.0], np.cumsum(steps)])
    return AlphaTables(energy, ranges)


@njit
def transport_alpha(energy, x, y, z, u, v, w, weight, i, j, k, geometry, alphas, tally):
    """Follow an alpha particle to rest; return energy times weight that left the grid, MeV."""
    while True:
        voxel = voxel_index(geometry, i, j, k)
        density = np.float64(geometry.density[voxel])
        to_i = distance_to_face(x, u, i, geometry.dx)
        to_j = distance_to_face(y, v, j, geometry.dy)
        to_k = distance_to_face(z, w, k, geometry.dz)
        length = min(to_i, to_j, to_k)
        if density > 0.0:
            ranges = alphas.range[geometry.material[voxel]]
            left = interpolate(energy, alphas.energy, ranges) - length * density
            if left <= 0.0 or energy <= alphas.energy[0]:
                deposit(tally, voxel, weight * energy)
                return 0.0
            rest = min(energy, interpolate(left, ranges, alphas.energy))
            deposit(tally, voxel, weight * (energy - rest))
            energy = rest
        x += u * length
        y += v * length
        z += w * length
        if to_i <= to_j and to_i <= to_k:
            i += 1 if u > 0.0 else -1
        elif to_j <= to_k:
            j += 1 if v > 0.0 else -1
        else:
            k += 1 if w > 0.0 else -1
        if i < 0 or j < 0 or k < 0 or i >= geometry.ni or j >= geometry.nj or k >= geometry.nk:
            return weight * energy


@njit
def interpolate(value, nodes, values):
    """Linear between nodes, proportional below the first (range and energy both vanish at rest), constant above the last."""
    if value <= nodes[0]:
        return values[0] * value / nodes[0]
    low, high = 0, nodes.size - 1
    if value >= nodes[high]:
        return values[high]
    while high - low > 1:
        middle = (low + high) // 2
        if nodes[middle] > value:
            high = middle
        else:
            low = middle
    return values[low] + (values[high] - values[low]) * (value - nodes[low]) / (nodes[high] - nodes[low])
