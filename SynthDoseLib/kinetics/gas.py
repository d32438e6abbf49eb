"""Activity that the blur of a scanner shows in gas, brought back to the tissue that it comes from.

No activity is dissolved in the gas of stomach, bowel and windpipe, but the point spread of SPECT and PET shows it there, and
a voxel of gas, a thousandth of the mass of tissue, then gets a hundred times the dose of its surroundings. What is seen at g
comes from tissue at t with the probability K(g, t) x(t) / Σ K(g, t') x(t'), with the activity x seen in tissue and the point
spread K: one step of the expectation maximisation of emission tomography, for activity outside gas. The sum is conserved.
Putting activity into the nearest voxel would pile it up at the surface: to thrice too much around a gas bubble of 5 cm.

References
----------
Shepp & Vardi, IEEE Trans. Med. Imaging 1 (1982) 113-122 (expectation maximisation).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import LabelMap, Organ, VoxelPhantom
from .noise import FWHM_TO_SIGMA
from .values import REST

FWHM_MM = 15.0  # of K where nothing is known of it: SPECT has 10 to 18 mm; too wide spreads a little, too narrow piles up
FAT_G_CM3 = 0.9  # the lightest tissue outside lungs; a voxel at the surface of gas that is lighter is partly gas
LEAST_TISSUE = 0.5  # of an organ's volume; one with less of it (a windpipe) is not where the activity in its gas comes from
REACH = 4.0  # standard deviations of K that are followed
FAINT = 1e-6  # of the largest activity of a voxel: less within reach, and a wider K is tried
ALL_GAS = "gas, without activity"

Floats = NDArray[np.float32]


def tissue_share(phantom: VoxelPhantom) -> Floats:
    """Share of every voxel that is tissue, (nk, nj, ni): 0 in gas, 1 in tissue, and in between at the surface of gas.

    Gas is what `VoxelPhantom.gas` says. A voxel that touches it, is lighter than fat and does not belong to a lung has the
    share of its density in that of fat.
    """
    gas = phantom.gas()
    share = np.where(gas, np.float32(0), np.float32(1))
    if gas.any():
        density = phantom.density_g_cm3
        surface = (density > 0) & (density < FAT_G_CM3) & ~gas & ~phantom.lungs()
        surface &= ndimage.binary_dilation(gas, np.ones((3, 3, 3), bool))
        share[surface] = density[surface] / np.float32(FAT_G_CM3)
    return share


def out_of_gas(values: Floats, labels: LabelMap, tissue: Floats, *, fwhm_mm: float = FWHM_MM) -> tuple[Floats, float]:
    """Move activity from gas to the tissue around.

    Gas inside an organ gives to that organ alone, whose sum stays; gas of the rest of the body, without a label, or of an
    organ that is mostly gas gives to all tissue around.

    Parameters
    ----------
    values : ndarray of float32, (nk, nj, ni)
        Activity, its concentration or its time integral, 0 or more.
    labels : LabelMap
        On the same grid.
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
    result = seen.copy()
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(labels.grid.spacing_mm[::-1])
    of_tissue = _tissue_sums(labels, tissue)
    counts = np.bincount(labels.labels.ravel(), minlength=of_tissue.size)
    boxes = ndimage.find_objects(labels.labels)
    shared = [o.index for o in labels.organs if o.name == REST or of_tissue[o.index] < LEAST_TISSUE * counts[o.index]]
    for organ in labels.organs:
        box = boxes[organ.index - 1] if organ.index <= len(boxes) else None
        if box is None or organ.index in shared:
            continue
        own = labels.labels[box] == organ.index
        given = np.where(own, excess[box], np.float32(0))
        if not given.any():
            continue
        taking = np.where(own, seen[box], np.float32(0))
        if taking.any():
            result[box] += _attributed(given, taking, sigma)
        else:
            shared.append(organ.index)
    rest = np.where(np.isin(labels.labels, [0, *shared]), excess, np.float32(0))
    if rest.any():
        result += _attributed(rest, seen, sigma)
    return result, moved / float(values.sum(dtype=np.float64))


def evenly_in_tissue(labels: LabelMap, tissue: Floats | None) -> Floats:
    """Weights of voxels within their organ, (nk, nj, ni), for an even concentration in its tissue; 1 where it is all gas."""
    if tissue is None:
        return np.ones(labels.labels.shape, np.float32)
    empty = _tissue_sums(labels, tissue) <= 0
    return np.where(empty[labels.labels], np.float32(1), tissue)


def without_gas(labels: LabelMap, tissue: Floats | None) -> LabelMap:
    """Labels with the gas of all organs as one more, so that a model of even organs does not put activity there."""
    if tissue is None or tissue.all():
        return labels
    used = {organ.index for organ in labels.organs}
    index = min(set(range(1, len(used) + 2)) - used)
    values = np.where(tissue > 0, labels.labels, np.uint16(index))
    return LabelMap(labels.grid, values, (*labels.organs, Organ(index, ALL_GAS)))


def _tissue_sums(labels: LabelMap, tissue: Floats) -> NDArray[np.float64]:
    """Voxels of tissue per label."""
    size = max((o.index for o in labels.organs), default=0) + 1
    return np.asarray(np.bincount(labels.labels.ravel(), weights=tissue.ravel(), minlength=size), np.float64)


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
