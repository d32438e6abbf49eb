"""How sure the activity of a region is, as far as the noise of its image tells."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import ImageVolume, SynthDoseError
from .values import require_positive

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
FEWEST = 30  # voxels inside the border that a standard deviation is taken from


def region_noise_MBq(image: ImageVolume, mask: NDArray[np.bool_], *, noise_fwhm_mm: float) -> float:
    """Standard deviation of the activity in a region, from the scatter of its voxels.

    The noise of a reconstruction is blobs rather than voxels: with a Gaussian grain of standard deviation s, V/(4π s²)^(3/2)
    of them are independent in a volume V. The scatter is taken inside the border, where blur does not reach, about a plane;
    what is really uneven in the region counts as noise, so this is an upper bound.

    Parameters
    ----------
    image : ImageVolume
        Bq/ml.
    mask : ndarray of bool, (nk, nj, ni) of `image`
    noise_fwhm_mm : float
        Full width at half maximum of the grain: that of the filter after reconstruction, or about two voxels.

    Raises
    ------
    SynthDoseError
        If the region has no voxels or a number makes no sense.
    """
    require_positive("noise_fwhm_mm", noise_fwhm_mm, "mm")
    if mask.shape != image.grid.shape or not mask.any():
        raise SynthDoseError("The region that noise is measured in has to have voxels, on the grid of the image.")
    inner = ndimage.binary_erosion(mask)
    if np.count_nonzero(inner) < FEWEST:
        inner = mask
    values = image.values[inner].astype(np.float64)
    if values.size < 2:
        return math.nan
    scatter = math.sqrt(_about_plane(values, np.argwhere(inner).astype(np.float64)))
    grain_ml = (4 * math.pi * (noise_fwhm_mm * FWHM_TO_SIGMA) ** 2) ** 1.5 / 1000.0
    volume_ml = int(np.count_nonzero(mask)) * image.grid.voxel_volume_ml
    independent = max(1.0, volume_ml / max(grain_ml, image.grid.voxel_volume_ml))
    return scatter * volume_ml * 1e-6 / math.sqrt(independent)


def _about_plane(values: NDArray[np.float64], places: NDArray[np.float64]) -> float:
    """Variance of values about the plane through them; about their mean if they are few."""
    if values.size <= FEWEST:
        return float(values.var(ddof=1))
    design = np.column_stack([np.ones(values.size), places - places.mean(axis=0)])
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(left @ left) / (values.size - 4)
