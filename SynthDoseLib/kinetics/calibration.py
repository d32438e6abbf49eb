"""From scans of a phantom with known activity to the calibration factor of a camera and reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..core import ImageVolume, SynthDoseError
from .convert import decay_during
from .fit import SURPRISING
from .values import require_positive


@dataclass(frozen=True)
class CalibrationScan:
    """One scan of a phantom with known activity.

    Attributes
    ----------
    counts : float
        In the reconstruction, over the whole phantom (or a region that holds all that its activity gives).
    duration_s : float
        Of the acquisition.
    activity_MBq : float
        At the start of the acquisition.
    counts_sigma : float or None
        The square root of the counts if None: right for projections, too small for most reconstructions.
    activity_sigma_MBq : float
        What scatters from filling to filling (residues, weighing); not that of the dose calibrator itself.
    """

    counts: float
    duration_s: float
    activity_MBq: float
    counts_sigma: float | None = None
    activity_sigma_MBq: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Calibration factor of a camera and reconstruction.

    Attributes
    ----------
    sensitivity_cps_per_MBq, sigma_cps_per_MBq : float
        Counts per second and MBq, and the standard uncertainty with all its parts.
    chi_squared : float
    degrees_of_freedom : int
    notes : tuple of str
    """

    sensitivity_cps_per_MBq: float
    sigma_cps_per_MBq: float
    chi_squared: float
    degrees_of_freedom: int
    notes: tuple[str, ...] = ()

    @property
    def relative_sigma(self) -> float:
        """Standard uncertainty over the factor."""
        return self.sigma_cps_per_MBq / self.sensitivity_cps_per_MBq


def phantom_scan(
    image: ImageVolume,
    region: NDArray[np.bool_] | None,
    *,
    activity_MBq: float,
    hours_since_assay: float,
    physical_half_life_s: float,
    duration_s: float,
    activity_sigma_MBq: float = 0.0,
    background: NDArray[np.bool_] | None = None,
) -> CalibrationScan:
    """Collect a calibration scan from an image in counts.

    Parameters
    ----------
    image : ImageVolume
        Counts per voxel.
    region : ndarray of bool, (nk, nj, ni), or None
        Around the phantom, wide enough for its blur; the whole image if None.
    activity_MBq, activity_sigma_MBq : float
        As assayed.
    hours_since_assay : float
        From the assay to the start of the acquisition; negative if the assay came later.
    physical_half_life_s, duration_s : float
    background : ndarray of bool, optional
        Voxels without activity, whose mean is taken off.

    Returns
    -------
    CalibrationScan
        Counts are corrected for decay during the acquisition unless the header says so; their sigma is Poisson's.

    Raises
    ------
    SynthDoseError
        If the image is not in counts or a number makes no sense.
    """
    if image.unit != "counts":
        raise SynthDoseError(
            f"A calibration scan has to be in counts; this image is in '{image.unit or 'unknown units'}'. Export it without "
            "quantification."
        )
    inside = np.ones(image.grid.shape, bool) if region is None else region
    if inside.shape != image.grid.shape or not inside.any():
        raise SynthDoseError("The region of a calibration scan has to have voxels, on the grid of the image.")
    total = float(image.values[inside].sum(dtype=np.float64))
    variance = max(total, 0.0)
    if background is not None:
        count = int(np.count_nonzero(background))
        if not count:
            raise SynthDoseError("The background of a calibration scan has no voxels.")
        level = float(image.values[background].sum(dtype=np.float64))
        share = np.count_nonzero(inside) / count
        total, variance = total - level * share, variance + max(level, 0.0) * share**2
    if "DECY" not in str(image.metadata.get("corrections", "")).split():
        decay = decay_during(duration_s, physical_half_life_s)
        total, variance = total * decay, variance * decay**2
    left = math.exp2(-hours_since_assay * 3600 / require_positive("physical_half_life_s", physical_half_life_s, "s"))
    return CalibrationScan(total, duration_s, activity_MBq * left, math.sqrt(variance), activity_sigma_MBq * left)


def fit_calibration(scans: Sequence[CalibrationScan], *, assay_relative_sigma: float = 0.0) -> Calibration:
    """Fit one calibration factor to one or more phantom scans: count rate = sensitivity x activity.

    Parameters
    ----------
    scans : sequence of CalibrationScan
    assay_relative_sigma : float
        Standard uncertainty of the dose calibrator, common to all scans; it does not average out.

    Raises
    ------
    SynthDoseError
        If there is no scan, or a number makes no sense.

    References
    ----------
    Gear et al., Eur. J. Nucl. Med. Mol. Imaging 45 (2018) 2456-2474 (calibration factor as a part of the uncertainty of
    activity).

    Examples
    --------
    >>> scan = CalibrationScan(counts=600_000, duration_s=600, activity_MBq=100, counts_sigma=6000)
    >>> result = fit_calibration([scan], assay_relative_sigma=0.02)
    >>> print(result.sensitivity_cps_per_MBq, round(result.relative_sigma, 4))
    10.0 0.0224
    """
    if not scans:
        raise SynthDoseError("A calibration needs at least one scan of a phantom.")
    rates, sigmas = np.empty(len(scans)), np.empty(len(scans))
    activities = np.array([require_positive("activity_MBq", scan.activity_MBq, "MBq") for scan in scans])
    for n, scan in enumerate(scans):
        require_positive("counts", scan.counts, "")
        require_positive("duration_s", scan.duration_s, "s")
        counts_sigma = math.sqrt(scan.counts) if scan.counts_sigma is None else scan.counts_sigma
        rates[n] = scan.counts / scan.duration_s
        sigmas[n] = rates[n] * math.hypot(counts_sigma / scan.counts, scan.activity_sigma_MBq / scan.activity_MBq)
    if not (np.isfinite(sigmas).all() and sigmas.min() > 0):
        raise SynthDoseError("The standard deviation of the counts of a calibration scan has to be above 0.")
    weights = 1 / sigmas**2
    normal = float((weights * activities**2).sum())
    sensitivity = float((weights * activities * rates).sum() / normal)
    chi_squared = float((weights * (rates - sensitivity * activities) ** 2).sum())
    left = len(scans) - 1
    scatter, notes = 1.0, []
    if left and (chance := float(special.chdtrc(left, chi_squared))) < SURPRISING:
        scatter = chi_squared / left
        notes.append(
            f"The calibration scans differ by more than their noise (chi-squared {chi_squared:.1f} for {left} degrees of "
            f"freedom, probability {chance:.1g}): the sigma was enlarged by {scatter**0.5:.2f}. Check dead time and the assays."
        )
    if left == 0:
        notes.append("The calibration rests on one scan: how well it repeats is not known.")
    relative = math.hypot(math.sqrt(scatter / normal) / sensitivity, assay_relative_sigma)
    return Calibration(sensitivity, sensitivity * relative, chi_squared, left, tuple(notes))
