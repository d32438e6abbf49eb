"""Alpha particles and recoil nuclei: straight lines, continuous slowing down.

An alpha's range is 0.04 to 0.09 mm of tissue, and still a voxel of edge a that holds all activity loses about 0.9 R / a of its
energy to its neighbours: 0.5 % is reached in voxels of 8 mm (in lung 30 mm), not before. Alphas are therefore followed from
voxel to voxel; those that cannot reach a face, nearly all, are deposited where they start. Range straggling (1 %) and
deflection are left out: what crosses a face is proportional to the mean range as long as that is short of the voxel, whatever
its spread. Recoils are given as alphas of their energy (0.1 MeV), which reach 1 µm: local in any voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core import Material
from ..physics import alpha_stopping_power
from .electrons import cross_voxel, is_outside, nearest_face
from .geometry import deposit, voxel_index

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
        ranges = alphas.range[geometry.material[voxel]]
        reach = interpolate(energy, alphas.energy, ranges) if density > 0.0 else 0.0
        if density > 0.0 and reach < density * nearest_face(geometry, x, y, z, i, j, k):
            deposit(tally, voxel, weight * energy)
            return 0.0
        old_x, old_y, old_z = x, y, z
        x, y, z, i, j, k = cross_voxel(geometry, x, y, z, u, v, w, i, j, k)
        if density > 0.0:
            left = reach - density * ((x - old_x) * u + (y - old_y) * v + (z - old_z) * w)
            if left <= 0.0 or energy <= alphas.energy[0]:
                deposit(tally, voxel, weight * energy)
                return 0.0
            rest = min(energy, interpolate(left, ranges, alphas.energy))
            deposit(tally, voxel, weight * (energy - rest))
            energy = rest
        if is_outside(geometry, i, j, k):
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
