"""Interpolation as the Image Biomarker Standardisation Initiative defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def interpolate_as_ibsi(
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    spacing_mm: NDArray[np.float64],
    wanted_mm: NDArray[np.float64],
    region: tuple[slice, ...],
    whole: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Trilinear interpolation on a grid whose centre is that of the image.

    Parameters
    ----------
    values : ndarray, (nk, nj, ni)
        The whole image.
    mask : ndarray of bool, (nk, nj, ni)
    spacing_mm, wanted_mm : ndarray, (3,)
        Voxel sizes along k, j, i before and after.
    region : tuple of slice
        Voxels of the image to cover.
    whole : bool
        Round values to whole numbers, as IBSI asks for a CT.

    Returns
    -------
    values : ndarray of float32
    mask : ndarray of bool
        Where the interpolated mask is at least one half.

    References
    ----------
    IBSI reference manual (arXiv:1612.07003), sections 2.4 (interpolation) and 2.5 (re-segmentation).
    """
    places = []
    for n, old, new, part in zip(values.shape, spacing_mm, wanted_mm, region, strict=True):
        count = int(np.ceil(n * old / new - 1e-9))
        along = (n - 1) / 2 + (np.arange(count) - (count - 1) / 2) * new / old
        places.append(along[(along >= part.start - 0.5) & (along <= part.stop - 0.5)])
    points = np.meshgrid(*places, indexing="ij")
    found = ndimage.map_coordinates(values.astype(np.float64), points, order=1, mode="nearest")
    inside = ndimage.map_coordinates(mask.astype(np.float64), points, order=1, mode="nearest") >= 0.5
    return (np.rint(found) if whole else found).astype(np.float32), inside
