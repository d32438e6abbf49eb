"""Whether the activity of a whole image can be that of one patient: no more than was given, and nothing that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..core import ImageVolume, voxels_inside

MARGIN = 1.05  # calibrations are known to some per cent


def retention_warnings(
    images: Sequence[ImageVolume],
    hours: Sequence[float],
    *,
    physical_half_life_s: float,
    administered_MBq: float | None = None,
) -> tuple[str, ...]:
    """Say when images hold more activity than was administered, or more than an earlier one where both look.

    Corrected for its decay, the activity of a body never grows: what leaves it does not return. It may grow within a field of
    view, from what was outside at first, which is why this is a warning.

    Parameters
    ----------
    images : sequence of ImageVolume
        Bq/ml at the time of the scan, before they are registered.
    hours : sequence of float
        Of each scan, after administration.
    physical_half_life_s : float
    administered_MBq : float, optional

    Returns
    -------
    tuple of str
        Empty where nothing is remarkable.

    Examples
    --------
    >>> from SynthDoseLib.core import VoxelGrid
    >>> grid = VoxelGrid.from_spacing((10, 10, 10), (10, 10, 10))
    >>> scans = [ImageVolume(grid, np.full(grid.shape, value, np.float32), "NM", "Bq/ml") for value in (6e5, 8e5)]
    >>> print(retention_warnings(scans, [1, 24], physical_half_life_s=1e9, administered_MBq=1000)[0].split(".")[0])
    The activity in the images, corrected for decay, rises: 1 h 60%, 24 h 80% of the administered activity
    """
    growth = [2.0 ** (hour * 3600 / physical_half_life_s) * 1e-6 for hour in hours]
    totals = [_total(image) * factor for image, factor in zip(images, growth, strict=True)]
    order = sorted(range(len(images)), key=lambda n: hours[n])
    listed = ", ".join(
        f"{hours[n]:.3g} h {totals[n] / administered_MBq:.0%}" if administered_MBq else f"{hours[n]:.3g} h {totals[n]:.4g} MBq"
        for n in order
    )
    of_what = " of the administered activity" if administered_MBq else ""
    said = []
    rises = [
        (early, late)
        for early, late in pairwise(order)
        if _total(images[late], images[early]) * growth[late] > MARGIN * totals[early]
    ]
    if rises:
        said.append(
            f"The activity in the images, corrected for decay, rises: {listed}{of_what}. A body cannot gain activity, unless "
            "some came into the field of view from outside: check times, calibration, dead time, and whether decay was "
            "corrected twice."
        )
    if administered_MBq and max(totals, default=0.0) > MARGIN * administered_MBq:
        said.append(
            f"The images hold more activity than was administered ({listed}, corrected for decay): check [therapy] "
            "administered_MBq, calibration, times, and whether decay was corrected twice."
        )
    return tuple(said)


def _total(image: ImageVolume, seen_by: ImageVolume | None = None) -> float:
    """Activity, Bq; of the part that another image shows, too, if there is one."""
    values = image.values
    if seen_by is not None and not seen_by.grid.matches(image.grid):
        values = values * voxels_inside(image.grid, seen_by.grid)
    return float(values.sum(dtype=np.float64)) * image.grid.voxel_volume_ml
