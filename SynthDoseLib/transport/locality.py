"""Where the electrons that photons set free are local, so that photons may score along their tracks.

The track-length estimator gives a voxel the energy that photons transfer to electrons in it. That is its dose where electrons
carry away as much as they bring in. Two things break the balance, and limit the mean range of the electrons (weighted by their
energy) as a share of the smallest voxel edge:

- thin neighbours: the range is taken in the thinnest of the voxel and its 26 neighbours; vacuum and the border of the grid
  count as thin, so that nothing is local there;
- a source that changes from voxel to voxel: with all activity in one voxel of water the self-dose exceeded that of analog
  runs by 0.75 times the share. SHARE_AT_SOURCE keeps that below 1 %; where the activity is even, SHARE applies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import VoxelPhantom, resample_mean
from .crop import box_of_matter
from .particle_lists import ParticleListSource
from .sources import BeamSource, OrganSource, PointSource, Source, SphereSource, VolumeSource
from .tables import range_classes

SHARE = 0.1
SHARE_AT_SOURCE = 0.012


def local_range_classes(phantom: VoxelPhantom, source: Source) -> NDArray[np.uint8]:
    """Longest range, as a class of `range_classes`, of electrons that are local; (voxels,)."""
    edge_cm = min(phantom.grid.spacing_mm) / 10
    thinnest = ndimage.minimum_filter(phantom.density_g_cm3, size=3, mode="constant", cval=0.0)
    share = SHARE_AT_SOURCE / np.maximum(_contrast(phantom, source), SHARE_AT_SOURCE / SHARE)
    result = np.empty(phantom.grid.shape, np.uint8)
    for k, plane in enumerate(thinnest):
        result[k] = range_classes(share[k] * edge_cm * plane, up=False)
    return result.ravel()


def _contrast(phantom: VoxelPhantom, source: Source) -> NDArray[np.float32]:
    """How uneven the activity is around each voxel: 1 less the mean over the largest of 27 voxels; 0 is even or none."""
    activity = _activity(phantom, source)
    contrast = np.zeros(activity.shape, np.float32)
    if activity.any():
        # sources are mostly small beside the body
        place = box_of_matter(activity).wider(2, activity.shape).slices
        largest = ndimage.maximum_filter(activity[place], size=3, mode="nearest")
        mean = ndimage.uniform_filter(activity[place], size=3, mode="nearest")
        contrast[place] = 1.0 - np.divide(mean, largest, out=np.ones_like(mean), where=largest > 0)
    return contrast


def _activity(phantom: VoxelPhantom, source: Source) -> NDArray[np.float32]:
    """Relative activity on the grid of the phantom; for the other sources, where they are."""
    grid = phantom.grid
    if isinstance(source, OrganSource):
        source = source.as_volume(phantom.labels)
    if isinstance(source, VolumeSource):
        if source.grid.matches(grid):
            return source.weights
        return resample_mean(source.weights, source.grid, grid)
    activity = np.zeros(grid.shape, np.float32)
    if isinstance(source, BeamSource | ParticleListSource):
        return activity
    centre = source.position_mm_ras if isinstance(source, PointSource) else source.centre_mm_ras
    radius = source.radius_mm if isinstance(source, SphereSource) else 0.0
    reach = radius + 0.5 * float(np.linalg.norm(grid.spacing_mm))
    middle = grid.to_ijk(centre)
    spacing = np.asarray(grid.spacing_mm)
    low = np.maximum(np.floor(middle - reach / spacing).astype(int), 0)
    high = np.minimum(np.ceil(middle + reach / spacing).astype(int) + 1, grid.shape[::-1])
    axes = [np.arange(first, last) for first, last in zip(low, high, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    inside = np.linalg.norm((np.stack([i, j, k], axis=-1) - middle) * spacing, axis=-1) <= reach
    activity[k[inside], j[inside], i[inside]] = 1.0
    return activity
