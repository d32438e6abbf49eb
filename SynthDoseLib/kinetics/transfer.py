"""Undoing blur between all regions at once: which share of each region's activity is found in which other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from ..core import LabelMap, SynthDoseError
from .noise import FWHM_TO_SIGMA
from .values import require_positive

REACH = 3.5  # standard deviations of the blur that are followed
LEAST_OWN = 0.1  # share of its activity that a region has to keep to be solved for; smaller ones follow their surroundings


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """Shares of activity found per region.

    Attributes
    ----------
    regions : tuple of str
    shares : ndarray, (n, n)
        ``shares[i, j]`` of the activity of region j, uniform in it, is found in region i.
    fwhm_mm : float
    """

    regions: tuple[str, ...]
    shares: NDArray[np.float64]
    fwhm_mm: float

    def solve(self, measured: NDArray[np.float64]) -> NDArray[np.float64]:
        """True activities (n,) that blur to those measured, none below 0; too small regions stay as measured."""
        own = np.diag(self.shares)
        small = own < LEAST_OWN
        result = measured.astype(np.float64).copy()
        kept = np.flatnonzero(~small)
        seen = measured[kept] - self.shares[np.ix_(kept, np.flatnonzero(small))] @ measured[small]
        scale = 1 / np.maximum(seen, max(float(measured.max()), 1e-300) * 1e-3)  # all regions equally well in relative terms
        result[kept] = optimize.nnls(self.shares[np.ix_(kept, kept)] * scale[:, None], np.maximum(seen, 0) * scale)[0]
        return result


def transfer_matrix(labels: LabelMap, regions: Sequence[str], fwhm_mm: float, retained: float = 1.0) -> TransferMatrix:
    """Blur every region by a Gaussian and see where its activity goes.

    Parameters
    ----------
    labels : LabelMap
    regions : sequence of str
        Names of labels with voxels; `rest_of_body` is that label, or the voxels without one if there is none.
    fwhm_mm : float
        Resolution of the activity images, as a recovery curve of form "sphere" has it.
    retained : float
        Share that is blurred so; the rest is spread over all regions by their volumes, as scatter is.

    Raises
    ------
    SynthDoseError
        If a region has no voxels.

    References
    ----------
    Rousset, Ma & Evans, J. Nucl. Med. 39 (1998) 904-911 (geometric transfer matrix).
    """
    require_positive("fwhm_mm", fwhm_mm, "mm")
    index = {organ.name: organ.index for organ in labels.organs}
    values = [index.get(region, 0) for region in regions]
    table = np.full(max(index.values(), default=0) + 1, -1)
    table[values] = np.arange(len(values))
    place = table[labels.labels]
    counts = np.bincount(place[place >= 0], minlength=len(regions))
    if (counts == 0).any():
        raise SynthDoseError(f"No voxels in: {', '.join(r for r, c in zip(regions, counts, strict=True) if c == 0)}.")
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(labels.grid.spacing_mm[::-1])
    shares = np.zeros((len(regions), len(regions)))
    boxes = ndimage.find_objects(place + 1, max_label=len(regions))
    margin = np.ceil(REACH * sigma).astype(int) + 1
    for n, box in enumerate(boxes):
        around = tuple(
            slice(max(0, part.start - m), min(size, part.stop + m))
            for part, m, size in zip(box, margin, place.shape, strict=True)
        )
        here = place[around]
        blurred = ndimage.gaussian_filter((here == n).astype(np.float32), sigma, mode="constant", truncate=REACH)
        inside = here >= 0
        shares[:, n] = np.bincount(here[inside], weights=blurred[inside], minlength=len(regions)) / counts[n]
    spread = (counts / counts.sum())[:, None]
    return TransferMatrix(tuple(regions), retained * shares + (1 - retained) * spread, fwhm_mm)
