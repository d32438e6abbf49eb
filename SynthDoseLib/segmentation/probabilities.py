"""Class probabilities on a network's grid: kept compactly, and brought to the image's own grid slice by slice.

Where organs may overlap (a sigmoid per channel), a voxel belongs to every organ whose probability reaches a threshold, and of
those it gets the smallest: a tumour in a liver, a core in a tumour. Sizes are those that the first inference finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..core import VoxelGrid
from .windows import Scratch, Slab

BLOCK_BYTES = 64 << 20  # of probabilities that are interpolated at once


class ProbabilityMap:
    """Class probabilities of every voxel of a grid, the mean of one or more inferences.

    Parameters
    ----------
    grid : VoxelGrid
        Array order is (ni, nj, nk), as networks work.
    channels : int
        With the background.
    space : Scratch
    keep : bool
        Whether the probabilities are kept; otherwise only the most probable class of each voxel.
    threshold : float, optional
        Probability from which on a voxel belongs to an organ, if organs may overlap; then `keep` has to be true.

    Attributes
    ----------
    labels : ndarray of uint16, (ni, nj, nk)
        Class of what was put in; of organs that may overlap from `settle` on.
    order : tuple of int
        Organs that may overlap from the largest to the smallest; empty before `settle`, and if classes exclude each other.
    """

    def __init__(self, grid: VoxelGrid, channels: int, space: Scratch, *, keep: bool, threshold: float | None = None) -> None:
        assert keep or threshold is None
        self.grid = grid
        self.shape = (grid.shape[2], grid.shape[1], grid.shape[0])
        self.channels = channels
        self.threshold = threshold
        self.order: tuple[int, ...] = ()
        self.labels = np.zeros(self.shape, np.uint16)
        # half precision: 0.0005 of a probability decides only ties
        size = (channels, *self.shape)
        self.values = space.zeros(size, np.float16, "The probabilities of all classes") if keep else None

    def put(self, slab: Slab) -> None:
        """Take over the logits of a slab; where organs may overlap, channel 0 is not used, as nothing is what no organ is."""
        import torch

        if self.values is None:
            self.labels[slab.place] = torch.argmax(slab.logits, dim=0).numpy()
            return
        if self.threshold is not None:
            shares = torch.sigmoid(slab.logits[-(self.channels - 1) :])
            self.values[(slice(1, None), *slab.place)] = shares.half().numpy()
            return
        probabilities = torch.softmax(slab.logits, dim=0)
        self.values[(slice(None), *slab.place)] = probabilities.half().numpy()  # numpy rounds slowly
        self.labels[slab.place] = torch.argmax(probabilities, dim=0).numpy()

    def settle(self) -> None:
        """Give voxels in several organs to the smallest of these, when all slabs are in."""
        if self.threshold is None:
            return
        assert self.values is not None
        sizes = np.zeros(self.channels, np.int64)
        for place in _slabs(self.shape, self.channels):
            sizes += (self.values[(slice(None), *place)] >= self.threshold).sum(axis=(1, 2, 3))
        self.order = tuple(int(c) for c in 1 + np.argsort(-sizes[1:], kind="stable"))
        for place in _slabs(self.shape, self.channels):
            self.labels[place] = self._classes(self.values[(slice(None), *place)])

    def _classes(self, probabilities: NDArray[np.floating]) -> NDArray[np.integer]:
        """Class of each voxel from its probabilities (channels, ...)."""
        if self.threshold is None:
            return np.asarray(probabilities.argmax(axis=0))
        result = np.zeros(probabilities.shape[1:], np.uint16)
        for organ in self.order:  # the smaller ones are written over the larger
            result[probabilities[organ] >= self.threshold] = organ
        return result

    def average(self, other: ProbabilityMap, number: int) -> None:
        """Turn the mean of `number` - 1 inferences into that of `number`: `other`, on a grid of its own, joins it."""
        assert self.values is not None
        assert other.values is not None
        for place in _slabs(self.shape, self.channels):
            points = _positions(place, self.grid, other.grid)
            inside = _within(points, other.shape)
            found = _interpolated(other.values, points)
            mean = self.values[(slice(None), *place)].astype(np.float32)
            # where the other one has not looked, the mean stays as it was
            mean += np.where(inside, (found - mean) / number, 0.0)
            self.values[(slice(None), *place)] = mean
            self.labels[place] = self._classes(mean)

    def entropy(self) -> NDArray[np.float32]:
        """Entropy of the class probabilities per voxel (ni, nj, nk), nats: 0 if one class is certain.

        Where organs may overlap, each of them is a question of its own, and their entropies are added up.
        """
        assert self.values is not None
        result = np.zeros(self.shape, np.float32)
        for place in _slabs(self.shape, self.channels):
            p = self.values[(slice(None), *place)].astype(np.float32)
            if self.threshold is not None:
                p = np.concatenate([p[1:], 1 - p[1:]])
            result[place] = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=0)
        return result

    def labels_on(self, target: VoxelGrid) -> NDArray[np.uint16]:
        """Class (nk, nj, ni) at the voxels of `target`, of trilinearly interpolated probabilities; 0 outside.

        Where the eight neighbours agree on a class, the interpolated probabilities give it too, so that only the voxels near
        a boundary are interpolated.
        """
        assert self.values is not None
        result = np.zeros(target.shape, np.uint16)
        for place in _slabs((target.shape[2], target.shape[1], target.shape[0]), max(10, self.channels), axis=2):
            points = _positions(place, target, self.grid)
            inside = _within(points, self.shape)
            found = self._agreed_at(points)
            open_ = inside & (found < 0)
            at = points.reshape(3, -1)
            for part in _parts(np.flatnonzero(open_), self.channels):
                found.reshape(-1)[part] = self._classes(_interpolated(self.values, at[:, part]))
            found[~inside] = 0
            result[place[2]] = found.astype(np.uint16).transpose(2, 1, 0)
        return result

    def _agreed_at(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        """Class that all eight neighbours of voxel coordinates (3, ...) have, -1 where they differ."""
        corner = [np.clip(np.floor(points[a]), 0, max(0, self.shape[a] - 2)).astype(np.int32) for a in range(3)]
        low = [int(c.min()) for c in corner]
        box = tuple(slice(first, int(c.max()) + 2) for first, c in zip(low, corner, strict=True))
        agreed = _agreed(self.labels[box])
        return np.asarray(agreed[tuple(c - first for c, first in zip(corner, low, strict=True))])


def sampled(values: NDArray[np.float32], grid: VoxelGrid, target: VoxelGrid) -> NDArray[np.float32]:
    """Values of a network's grid (ni, nj, nk) at the voxels of `target`, (nk, nj, ni), trilinear; 0 outside."""
    result = np.zeros(target.shape, np.float32)
    for place in _slabs((target.shape[2], target.shape[1], target.shape[0]), 10, axis=2):
        points = _positions(place, target, grid)
        found = np.where(_within(points, values.shape), _interpolated(values[None], points)[0], 0.0)
        result[place[2]] = found.transpose(2, 1, 0)
    return result


def _agreed(labels: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Class that all eight corners of a cell (i to i + 1, …) have, -1 where they differ."""
    result = labels.astype(np.int32)
    for axis in range(3):
        if result.shape[axis] < 2:
            continue
        low, high = (tuple(cut if a == axis else slice(None) for a in range(3)) for cut in (slice(-1), slice(1, None)))
        result = np.where(result[low] == result[high], result[low], np.int32(-1))
    return result


def _slabs(shape: tuple[int, ...], channels: int, axis: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a volume (i, j, k) along an axis into slabs whose values of all channels are not much."""
    others = math.prod(n for a, n in enumerate(shape) if a != axis)
    step = max(1, BLOCK_BYTES // (4 * channels * others))
    for first in range(0, shape[axis], step):
        place = [slice(0, n) for n in shape]
        place[axis] = slice(first, min(shape[axis], first + step))
        yield place[0], place[1], place[2]


def _parts(indices: NDArray[np.intp], channels: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, BLOCK_BYTES // (4 * channels))
    for first in range(0, len(indices), step):
        yield indices[first : first + step]


def _positions(place: tuple[slice, ...], grid: VoxelGrid, source: VoxelGrid) -> NDArray[np.float32]:
    """Voxel coordinates in `source`, (3, i, j, k), of the voxels `place` (i, j, k) of `grid`."""
    matrix = np.linalg.inv(source.ijk_to_ras) @ grid.ijk_to_ras
    axes = [np.arange(part.start, part.stop, dtype=np.float64) for part in place]
    result = np.empty((3, *(len(axis) for axis in axes)), np.float32)
    for row in range(3):
        i, j, k = (matrix[row, n] * axis for n, axis in enumerate(axes))
        result[row] = i[:, None, None] + j[None, :, None] + k[None, None, :] + matrix[row, 3]
    return result


def _within(points: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether voxel coordinates (3, ...) lie in a volume (i, j, k), up to the outer faces of its voxels."""
    inside = np.ones(points.shape[1:], bool)
    for axis, size in enumerate(shape):
        inside &= (points[axis] >= -0.5 - 1e-4) & (points[axis] <= size - 0.5 + 1e-4)
    return inside


def _interpolated(values: NDArray[np.floating], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Trilinear interpolation of (channels, ni, nj, nk) at voxel coordinates (3, ...): (channels, ...); borders go on."""
    import torch
    import torch.nn.functional as functional

    size = values.shape[1:]
    low = [int(np.clip(np.floor(points[a].min()), 0, size[a] - 1)) for a in range(3)]
    high = [int(np.clip(np.ceil(points[a].max()), 0, size[a] - 1)) + 1 for a in range(3)]
    box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    block = torch.from_numpy(np.ascontiguousarray(values[(slice(None), *box)], dtype=np.float32))[None]
    # torch wants -1 to 1 between the outer faces, last axis first
    scaled = [(points[a].ravel() - low[a] + 0.5) * (2 / block.shape[2 + a]) - 1 for a in (2, 1, 0)]
    normal = torch.from_numpy(np.stack(scaled, axis=-1).astype(np.float32))[None, None, None]
    found = functional.grid_sample(block, normal, mode="bilinear", padding_mode="border", align_corners=False)
    return np.asarray(found[0, :, 0, 0].numpy().reshape((values.shape[0], *points.shape[1:])))
