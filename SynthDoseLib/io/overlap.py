"""Segments that may overlap, to one organ per voxel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core import Organ, VoxelGrid


def combine(
    masks: Iterable[tuple[int, NDArray[np.bool_]]], organs: Sequence[Organ], grid: VoxelGrid
) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    """Merge masks into one label map; where segments overlap, the smaller one is kept, and a note says so.

    A tumour inside the liver, or an organ inside the body outline, is the smaller one: it must not vanish.

    Parameters
    ----------
    masks : iterable of (index, ndarray of bool (nk, nj, ni))
        One per organ, each looked at once.
    organs : sequence of Organ
    grid : VoxelGrid

    Returns
    -------
    labels : ndarray of uint16, (nk, nj, ni)
    notes : tuple of str
        One per pair of organs that share voxels, the largest first.
    """
    sizes: dict[int, int] = {}
    labels = np.zeros(grid.shape, np.uint16)
    shared: dict[tuple[int, int], int] = {}
    for index, mask in masks:
        size = sizes[index] = int(mask.sum())
        under = labels[mask]
        for other, count in zip(*np.unique(under[under > 0], return_counts=True), strict=True):
            shared[int(other), index] = int(count)
        larger = np.array([0, *(i for i, s in sizes.items() if s >= size)], dtype=np.uint16)
        labels[mask] = np.where(np.isin(under, larger), np.uint16(index), under)
    names = {o.index: o.name for o in organs}
    notes = []
    for (first, second), count in sorted(shared.items(), key=lambda item: -item[1])[:20]:
        kept, cut = (first, second) if sizes[first] < sizes[second] else (second, first)
        notes.append(
            f"'{names[first]}' and '{names[second]}' share {count} voxels ({count * grid.voxel_volume_ml:.3g} ml): they were "
            f"given to '{names[kept]}', the smaller one, and taken from '{names[cut]}'."
        )
    if len(shared) > 20:
        notes.append(f"{len(shared) - 20} more pairs of segments overlap; the smaller one was kept in each.")
    return labels, tuple(notes)
