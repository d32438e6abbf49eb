"""Activity that the blur of a scanner shows in gas, brought back to the tissue that it comes from.

No activity is dissolved in the gas of stomach, bowel and windpipe, but the point spread of SPECT and PET shows it there, and
a voxel of gas, a thousandth of the mass of tissue, then gets a hundred times the dose of its surroundings. What is seen at g
comes from tissue at t with the probability K(g, t) x(t) / Σ K(g, t') x(t'), with the activity x seen in tissue and the point
spread K: one step of the expectation maximisation of emission tomography, for activity outside gas. The sum is conserved.
Putting activity into the nearest voxel would pile it up at the surface: to thrice too much around a gas bubble of 5 cm; and
leaving it to the organ that the gas lies in would burden the thin wall of a bowel with what is seen of its neighbours.

References
----------
Shepp & Vardi, IEEE Trans. Med. Imaging 1 (1982) 113-122 (expectation maximisation).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import LabelMap, Organ, VoxelGrid, VoxelPhantom
from .noise import FWHM_TO_SIGMA

FWHM_MM = 15.0  # of K where nothing is known of it: SPECT has 10 to 18 mm; too wide spreads a little, too narrow piles up
FAT_G_CM3 = 0.9  # the lightest tissue outside lungs
LIGHT_G_CM3 = 0.8  # below what noise of a CT makes of fat
REACH = 4.0  # standard deviations of K that are followed
FAINT = 1e-6  # of the largest activity of a voxel: less within reach, and a wider K is tried
ALL_GAS = "gas, without activity"

Floats = NDArray[np.float32]


def tissue_share(phantom: VoxelPhantom) -> Floats:
    """Share of every voxel that is tissue, (nk, nj, ni): 0 in gas, 1 in tissue, and in between at the surface of both.

    Gas is what `VoxelPhantom.gas` says. A light voxel outside lungs is partly gas, or air at the skin, and has the share of its
    density in that of fat, if light voxels lie no more than two thick there; more of them are a lung without a label, or foam.
    """
    density = phantom.density_g_cm3
    gas = phantom.gas()
    light = (density > 0) & (density < LIGHT_G_CM3) & ~gas & ~phantom.lungs()
    light &= ~ndimage.binary_opening(light, np.ones((3, 3, 3), bool))
    share = np.where(gas, np.float32(0), np.float32(1))
    share[light] = density[light] / np.float32(FAT_G_CM3)
    return share


def out_of_gas(values: Floats, grid: VoxelGrid, tissue: Floats, *, fwhm_mm: float = FWHM_MM) -> tuple[Floats, float]:
    """Move activity from gas to the tissue around, of whatever organ: blur does not know of organs.

    Parameters
    ----------
    values : ndarray of float32, (nk, nj, ni)
        Activity, its concentration or its time integral, 0 or more.
    grid : VoxelGrid
    tissue : ndarray of float32, (nk, nj, ni)
        See `tissue_share`.
    fwhm_mm : float
        Resolution of the image that `values` come from.

    Returns
    -------
    ndarray of float32, (nk, nj, ni)
        With the sum of `values`, and 0 where `tissue` is 0; `values` itself if it has nothing in gas.
    float
        Share of the sum that was moved.
    """
    seen = np.asarray(values * tissue, np.float32)
    excess = np.asarray(values - seen, np.float32)
    moved = float(excess.sum(dtype=np.float64))
    if moved <= 0 or not seen.any():
        return values, 0.0
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(grid.spacing_mm[::-1])
    return seen + _attributed(excess, seen, sigma), moved / float(values.sum(dtype=np.float64))


def evenly_in_tissue(labels: LabelMap, tissue: Floats | None) -> Floats:
    """Weights of voxels within their organ, (nk, nj, ni), for an even concentration in its tissue; 1 where it is all gas."""
    if tissue is None:
        return np.ones(labels.labels.shape, np.float32)
    empty = np.bincount(labels.labels.ravel(), weights=tissue.ravel()) <= 0
    return np.where(empty[labels.labels], np.float32(1), tissue)


def without_gas(labels: LabelMap, tissue: Floats | None) -> LabelMap:
    """Labels with the gas of all organs as one more, so that a model of even organs does not put activity there."""
    if tissue is None or tissue.all():
        return labels
    used = {organ.index for organ in labels.organs}
    index = min(set(range(1, len(used) + 2)) - used)
    values = np.where(tissue > 0, labels.labels, np.uint16(index))
    return LabelMap(labels.grid, values, (*labels.organs, Organ(index, ALL_GAS)))


def _attributed(given: Floats, taking: Floats, sigma: NDArray[np.float64]) -> Floats:
    """What is `given` in gas, shared among the voxels of tissue in proportion to K and what is seen in them."""
    result = np.zeros_like(taking)
    left, width = given, sigma
    faint = FAINT * float(taking.max())
    whole = float(np.linalg.norm(given.shape / sigma))
    while (box := _around(left, REACH * width)) is not None:
        if float(np.min(width / sigma)) > max(1.0, whole / REACH):  # farther away than anything: place does not matter
            result += taking * np.float32(left.sum(dtype=np.float64) / taking.sum(dtype=np.float64))
            break
        here, weights = left[box], taking[box]
        reached = ndimage.gaussian_filter(weights, width, mode="constant", truncate=REACH)
        near = (here > 0) & (reached > faint)
        per_weight = np.divide(here, reached, out=np.zeros_like(here), where=near)
        result[box] += weights * ndimage.gaussian_filter(per_weight, width, mode="constant", truncate=REACH)
        left = left.copy()
        left[box] = np.where(near, np.float32(0), here)
        width = 2 * width
    return result


def _around(values: Floats, margin: NDArray[np.float64]) -> tuple[slice, ...] | None:
    """Box of what is not 0, with a margin; None if all is 0."""
    parts = []
    for axis, size in enumerate(values.shape):
        there = np.flatnonzero(values.any(axis=tuple(a for a in range(3) if a != axis)))
        if not there.size:
            return None
        more = math.ceil(margin[axis])
        parts.append(slice(max(0, int(there[0]) - more), min(size, int(there[-1]) + 1 + more)))
    return tuple(parts)
