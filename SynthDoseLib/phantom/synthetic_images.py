"""What a CT scanner and a gamma camera show of a stylised person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import VoxelGrid

from .people_tissues import PersonTissue

Floats = NDArray[np.float32]

FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
TEXTURE_MM, NOISE_MM = 2.4, 1.5  # how far neighbours resemble each other (sigma)


def ct_image(
    tissues: NDArray[np.uint8],
    tissue_table: Sequence[PersonTissue],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    noise_hu: float = 15.0,
    blur_fwhm_mm: float = 3.2,
    keep_mean: Sequence[NDArray[np.bool_]] = (),
) -> Floats:
    """Make a CT of labelled tissues: texture, partial volume and noise with the grain of a reconstruction.

    Parameters
    ----------
    tissues : ndarray of uint8, (nk, nj, ni)
        Place in `tissue_table`.
    tissue_table : sequence of PersonTissue
    spacing_mm : tuple of 3 float
        Along i, j, k, mm.
    rng : numpy.random.Generator
    noise_hu : float
        Standard deviation of the noise in a uniform region, HU.
    blur_fwhm_mm : float
        Resolution: full width at half maximum of a Gaussian, mm. It mixes the tissues that share a voxel.
    keep_mean : sequence of ndarray of bool, (nk, nj, ni)
        Organs of much surface: their edges borrow from dense neighbours, their mean must not.

    Returns
    -------
    ndarray of float32, (nk, nj, ni)
        CT numbers, HU, whole, from -1024 up.
    """
    hu = np.array([tissue.hu for tissue in tissue_table], np.float32)
    texture = np.array([tissue.texture_hu for tissue in tissue_table], np.float32)
    spacing = np.asarray(spacing_mm[::-1])
    image = hu[tissues]
    image += texture[tissues] * grain(tissues.shape, rng, TEXTURE_MM / spacing)
    ndimage.gaussian_filter(image, blur_fwhm_mm * FWHM_TO_SIGMA / spacing, output=image, mode="nearest", truncate=3.0)
    for organ in keep_mean:
        if organ.any():
            image[organ] += hu[tissues[organ]].mean(dtype=np.float64) - image[organ].mean(dtype=np.float64)
    image += np.float32(noise_hu) * grain(tissues.shape, rng, NOISE_MM / spacing)
    np.rint(image, out=image)
    return np.maximum(image, np.float32(-1024), out=image)


def grain(shape: tuple[int, ...], rng: np.random.Generator, sigma: NDArray[np.float64]) -> Floats:
    """Gaussian noise of standard deviation 1 whose neighbours resemble each other over `sigma` voxels."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    ndimage.gaussian_filter(noise, sigma, output=noise, mode="wrap", truncate=3.0)
    return noise / np.float32(noise.std())


def average_on_grid(values: Floats, source: VoxelGrid, target: VoxelGrid) -> Floats:
    """Average `values` over the voxels of a grid of the same axes, exactly, by the volumes they share.

    Nothing is lost where `target` covers `source`; outside `source` the values are 0.
    """
    first = np.rint(source.directions).astype(int)
    offset = target.ijk_to_ras[:3, 3] - source.ijk_to_ras[:3, 3]
    result = values
    for axis in range(3):  # i, j, k are the array axes 2, 1, 0
        along = float(offset @ first[:, axis])
        weights = _shared_lengths(
            source.shape[2 - axis], source.spacing_mm[axis], target.shape[2 - axis], target.spacing_mm[axis], along
        )
        result = np.moveaxis(np.tensordot(result, weights, axes=(2 - axis, 1)), -1, 2 - axis)
    return np.ascontiguousarray(result, np.float32)


def _shared_lengths(n_source: int, size_source: float, n_target: int, size_target: float, offset: float) -> Floats:
    """Share of each target interval (rows) that each source interval (columns) covers."""
    source = (np.arange(n_source + 1) - 0.5) * size_source
    target = offset + (np.arange(n_target + 1) - 0.5) * size_target
    low = np.maximum(source[None, :-1], target[:-1, None])
    high = np.minimum(source[None, 1:], target[1:, None])
    return (np.clip(high - low, 0, None) / size_target).astype(np.float32)


def spect_image(
    activity_Bq_ml: Floats,
    grid: VoxelGrid,
    target: VoxelGrid,
    rng: np.random.Generator,
    *,
    fwhm_mm: float = 9.0,
    counts_per_MBq: float = 10_000.0,
) -> Floats:
    """Make a SPECT of an activity distribution: averaged, blurred, counted.

    Parameters
    ----------
    activity_Bq_ml : ndarray of float32, (nk, nj, ni)
        On `grid`.
    grid, target : VoxelGrid
        Same axes; the image is on `target`.
    rng : numpy.random.Generator
    fwhm_mm : float
        Resolution, mm.
    counts_per_MBq : float
        Counts that 1 MBq gives during the acquisition; their Poisson noise is that of the image.

    Returns
    -------
    ndarray of float32, shape of `target`
        Bq/ml.
    """
    blurred = average_on_grid(activity_Bq_ml, grid, target)
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(target.spacing_mm[::-1])
    ndimage.gaussian_filter(blurred, sigma, output=blurred, mode="constant", truncate=4.0)
    counts_per_Bq_ml = target.voxel_volume_ml * 1e-6 * counts_per_MBq
    counts = rng.poisson(blurred.astype(np.float64) * counts_per_Bq_ml)
    return (counts / counts_per_Bq_ml).astype(np.float32)


def add_couch(
    tissues: NDArray[np.uint8], grid: VoxelGrid, hu: Floats, *, gap_mm: float = 8.0, half_width_mm: float = 205.0
) -> None:
    """Put a scanner couch (a thin curved shell of carbon fibre with a foam core) under the person, into `hu`."""
    body = tissues > 0
    columns = np.flatnonzero(body.any(axis=(0, 2)))
    y = grid.to_ras(np.stack([np.zeros(grid.shape[1]), np.arange(grid.shape[1]), np.zeros(grid.shape[1])], axis=-1))[:, 1]
    back = y[columns].min() - gap_mm
    x = grid.to_ras(np.stack([np.arange(grid.shape[2]), np.zeros(grid.shape[2]), np.zeros(grid.shape[2])], axis=-1))[:, 0]
    x = x - x.mean()
    depth = back + 14 * (x / half_width_mm) ** 2 - y[:, None]
    inside = np.abs(x)[None, :] < half_width_mm
    shell = inside & (depth > 0) & (depth < max(3.0, grid.spacing_mm[1]))
    foam = inside & ~shell & (depth > 0) & (depth < 18.0)
    empty = ~body
    hu[:, shell] += empty[:, shell] * np.float32(820)
    hu[:, foam] += empty[:, foam] * np.float32(75)
