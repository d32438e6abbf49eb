"""From the tallies of one batch to sums over batches.

A thread has one tally per component of the dose (see `components_of`), in fixed point. When its batch is done it moves what
was scored into a list of voxels, which costs one pass over the tallies and needs no other thread; the list is added to the
sums when it is the batch's turn. What does not fit into the list (large phantoms where most voxels are hit) waits in the tally.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .geometry import TALLY_PER_MEV

SMALL = 1 << 22
"""Up to so many voxels the list holds all of them; above, a sixteenth."""


def list_length(voxels: int) -> int:
    """How many voxels the list of a batch holds."""
    return max(voxels // 16, min(voxels, SMALL))


def total_first(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the sum over components (first axis) in front of them; a single component is the sum."""
    return values if len(values) == 1 else np.concatenate([values.sum(axis=0, keepdims=True), values])


@njit(nogil=True, cache=True)
def compact(tallies, labels, organ_sums, voxels, amounts):
    """Move what was scored into a list, and clear it from the tallies.

    Parameters
    ----------
    tallies : ndarray of int64, (components, all voxels)
    labels : ndarray of uint16, (all voxels,)
    organ_sums : ndarray of float64, (components, labels)
        Energies, MeV, are added to the label of each voxel that is listed.
    voxels : ndarray of int32, (n,)
    amounts : ndarray of int64, (n, components)
        In units of 1 / TALLY_PER_MEV.

    Returns
    -------
    int, int
        Number of voxels in the list; voxel that the tallies still hold the energy from.
    """
    components = tallies.shape[0]
    count = 0
    for voxel in range(labels.size):
        scored = tallies[0, voxel] != 0
        for c in range(1, components):
            scored = scored or tallies[c, voxel] != 0
        if not scored:
            continue
        if count == voxels.size:
            return count, voxel
        voxels[count] = voxel
        for c in range(components):
            amounts[count, c] = tallies[c, voxel]
            organ_sums[c, labels[voxel]] += tallies[c, voxel] / TALLY_PER_MEV
            tallies[c, voxel] = 0
        count += 1
    return count, labels.size


@njit(nogil=True, cache=True)
def add_list(voxels, amounts, energy, squares):
    """Add the energies of a list and their squares to sums (parts, all voxels); see `add_rest`."""
    components = amounts.shape[1]
    for n in range(voxels.size):
        voxel = voxels[n]
        total = np.int64(0)
        for c in range(components):
            total += amounts[n, c]
        add_amount(total, 0, voxel, energy, squares)
        if components > 1:
            for c in range(components):
                add_amount(amounts[n, c], c + 1, voxel, energy, squares)


@njit(nogil=True, cache=True)
def add_rest(first, tallies, labels, organ_sums, energy, squares):
    """Add what the tallies hold from voxel `first` on, and clear it.

    The sums (parts, all voxels) have the total first, then, if there are several, the components. The total is summed in fixed
    point, so that it does not depend on how the dose is split.
    """
    components = tallies.shape[0]
    for voxel in range(first, labels.size):
        total = np.int64(0)
        for c in range(components):
            amount = tallies[c, voxel]
            if amount == 0:
                continue
            total += amount
            organ_sums[c, labels[voxel]] += amount / TALLY_PER_MEV
            tallies[c, voxel] = 0
            if components > 1:
                add_amount(amount, c + 1, voxel, energy, squares)
        if total != 0:
            add_amount(total, 0, voxel, energy, squares)


@njit(inline="always")
def add_amount(amount, part, voxel, energy, squares):
    """Add one fixed-point energy of a batch to the sums."""
    own = amount / TALLY_PER_MEV
    energy[part, voxel] += own
    squares[part, voxel] += own * own


@njit(nogil=True, cache=True)
def organ_energies(first, last, tallies, labels, organ_sums):
    """Add the energies, MeV, of a range of voxels to their labels, (components, labels), and clear them."""
    for c in range(tallies.shape[0]):
        for voxel in range(first, last):
            if tallies[c, voxel] != 0:
                organ_sums[c, labels[voxel]] += tallies[c, voxel] / TALLY_PER_MEV
                tallies[c, voxel] = 0


@njit(nogil=True, cache=True)
def range_of_labels(labels, wanted):
    """First and last (excluded) voxel with one of the labels that `wanted` (labels,) says true for."""
    first, last = labels.size, 0
    for voxel in range(labels.size):
        if wanted[labels[voxel]]:
            last = voxel + 1
            if first == labels.size:
                first = voxel
    return first, last
