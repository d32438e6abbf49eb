"""Leaving out the vacuum around the body: exact, because nothing happens there and nothing comes back from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom
from .sources import OrganSource, Source, VolumeSource


@dataclass(frozen=True)
class Box:
    """Part of a grid: slices along k, j, i."""

    k: slice
    j: slice
    i: slice

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array (nk, nj, ni)."""
        return self.k, self.j, self.i

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along k, j, i."""
        return self.k.stop - self.k.start, self.j.stop - self.j.start, self.i.stop - self.i.start

    @property
    def size(self) -> int:
        """Number of voxels."""
        nk, nj, ni = self.shape
        return nk * nj * ni

    def wider(self, voxels: int, shape: tuple[int, ...]) -> Box:
        """With so many voxels more on each side, as far as a grid of `shape` goes."""
        spans = zip(self.slices, shape, strict=True)
        return Box(*(slice(max(0, own.start - voxels), min(size, own.stop + voxels)) for own, size in spans))

    def grid_of(self, grid: VoxelGrid) -> VoxelGrid:
        """The sub-grid."""
        return grid.crop((self.k.start, self.j.start, self.i.start), self.shape)


def box_of_matter(density: NDArray[np.float32]) -> Box:
    """Smallest box that holds every voxel above 0.

    Raises
    ------
    SynthDoseError
        If there is none.
    """
    if all(plane.any() for n in (0, -1) for plane in (density[n], density[:, n], density[:, :, n])):
        # nothing to gain: spare the passes over a large phantom
        return Box(*(slice(0, size) for size in density.shape))
    rows = np.zeros(density.shape[1], bool)
    columns = np.zeros(density.shape[2], bool)
    planes = np.zeros(density.shape[0], bool)
    for k, plane in enumerate(density):
        own = plane.any(axis=1)
        rows |= own
        columns |= plane.any(axis=0)
        planes[k] = own.any()
    if not planes.any():
        raise SynthDoseError("The phantom is empty: the density is 0 everywhere.")
    spans = [np.flatnonzero(axis) for axis in (planes, rows, columns)]
    return Box(*(slice(int(span[0]), int(span[-1]) + 1) for span in spans))


def crop_phantom(phantom: VoxelPhantom, box: Box) -> VoxelPhantom:
    """The part of a phantom in a box; the phantom itself if that is all of it."""
    if box.shape == phantom.grid.shape:
        return phantom
    grid = box.grid_of(phantom.grid)
    labels = LabelMap(grid, phantom.labels.labels[box.slices], phantom.labels.organs, phantom.labels.notes)
    return replace(
        phantom,
        grid=grid,
        material_index=phantom.material_index[box.slices],
        density_g_cm3=phantom.density_g_cm3[box.slices],
        labels=labels,
    )


def crop_source(source: Source, phantom: VoxelPhantom, box: Box) -> Source:
    """A source on the grid of the phantom, cropped with it; any other as it is (positions are in RAS).

    The source has to be one that `build_source` takes for the whole phantom: no activity in the vacuum that is cropped.
    """
    if box.shape == phantom.grid.shape:
        return source
    if isinstance(source, OrganSource):
        source = source.as_volume(phantom.labels)
    if isinstance(source, VolumeSource) and source.grid.matches(phantom.grid):
        return VolumeSource(box.grid_of(phantom.grid), source.weights[box.slices])
    return source
