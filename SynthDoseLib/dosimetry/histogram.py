"""Dose-volume histograms."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from ..core import DoseMap, LabelMap, SynthDoseError, atomic_path


@dataclass(frozen=True, eq=False)
class DoseVolumeHistogram:
    """Cumulative dose-volume histogram of one organ, kept exact: one step per voxel. The array becomes read-only.

    Attributes
    ----------
    organ : str
    volume_ml : float
        Without gas, where that was left out.
    sorted_dose_Gy : ndarray of float64, (n,)
        Doses of the organ's voxels, increasing; all voxels have the same volume.
    mean_sigma_Gy : float
        One Monte Carlo standard error of the organ's mean dose; nan if unknown.
    total_relative_sigma : float
        Of the mean dose by all components of its budget; nan if unknown.

    Examples
    --------
    >>> dvh = DoseVolumeHistogram("liver", 4.0, np.array([1.0, 2.0, 3.0, 4.0]))
    >>> float(dvh.volume_fraction_at(2.5)), float(dvh.dose_at(0.5))
    (0.5, 2.5)
    """

    organ: str
    volume_ml: float
    sorted_dose_Gy: NDArray[np.float64]
    mean_sigma_Gy: float = float("nan")
    total_relative_sigma: float = float("nan")

    def __post_init__(self) -> None:
        dose = np.sort(np.asarray(self.sorted_dose_Gy, dtype=np.float64).ravel())
        if dose.size == 0 or not np.isfinite(dose).all():
            raise SynthDoseError(
                f"A dose-volume histogram of '{self.organ}' needs voxels with finite doses; found {dose.size}."
            )
        dose.setflags(write=False)
        object.__setattr__(self, "sorted_dose_Gy", dose)

    def volume_fraction_at(self, dose_Gy: ArrayLike) -> NDArray[np.float64]:
        """Fraction of the volume (V_D) that receives at least `dose_Gy`, interpolated between voxels."""
        levels = np.asarray(dose_Gy, dtype=np.float64)
        # a voxel's dose belongs to the middle of its share of the volume (Hazen's plotting position)
        share = (np.arange(self.sorted_dose_Gy.size) + 0.5) / self.sorted_dose_Gy.size
        fraction = np.interp(-levels, -self.sorted_dose_Gy[::-1], share, left=0.0)
        return np.where(levels <= self.sorted_dose_Gy[0], 1.0, fraction)

    def dose_at(self, volume_fraction: ArrayLike) -> NDArray[np.float64]:
        """Dose (D_x) that the hottest `volume_fraction` of the organ receives at least, Gy, interpolated between voxels."""
        fraction = np.asarray(volume_fraction, dtype=np.float64)
        if fraction.size and not (fraction.min() >= 0 and fraction.max() <= 1):
            raise SynthDoseError(f"A volume fraction lies between 0 and 1; found {fraction.tolist()}.")
        return np.asarray(np.quantile(self.sorted_dose_Gy, 1.0 - fraction, method="hazen"))

    @property
    def mean_Gy(self) -> float:
        """Mean over the volume (not the mass)."""
        return float(self.sorted_dose_Gy.mean())

    @property
    def min_Gy(self) -> float:
        """Lowest dose of a voxel or sample."""
        return float(self.sorted_dose_Gy[0])

    @property
    def max_Gy(self) -> float:
        """Highest dose of a voxel or sample."""
        return float(self.sorted_dose_Gy[-1])

    @property
    def band_relative_sigma(self) -> float:
        """Relative standard uncertainty that moves all doses together: the total, else that of the Monte Carlo, else nan."""
        if math.isfinite(self.total_relative_sigma):
            return self.total_relative_sigma
        return self.mean_sigma_Gy / self.mean_Gy if self.mean_Gy > 0 else math.nan

    def band_at(self, dose_Gy: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Volume fractions when all doses are one `band_relative_sigma` lower and higher; nan if that is not known.

        Examples
        --------
        >>> dvh = DoseVolumeHistogram("liver", 4.0, np.array([1.0, 2.0, 3.0, 4.0]), total_relative_sigma=0.25)
        >>> low, high = dvh.band_at([3.0])
        >>> low.tolist(), high.tolist()
        ([0.125], [0.525])
        """
        levels, sigma = np.asarray(dose_Gy, dtype=np.float64), self.band_relative_sigma
        if not math.isfinite(sigma):
            return np.full(levels.shape, np.nan), np.full(levels.shape, np.nan)
        return self.volume_fraction_at(levels / max(1 - sigma, 1e-9)), self.volume_fraction_at(levels / (1 + sigma))

    def dose_at_volume(self, volume_ml: float) -> float:
        """Dose (D_cc) that the hottest `volume_ml` receive at least, Gy.

        Raises
        ------
        SynthDoseError
            If the organ is smaller.
        """
        if not 0 <= volume_ml <= self.volume_ml * (1 + 1e-9):
            raise SynthDoseError(
                f"'{self.organ}' has {self.volume_ml:.3g} ml; there is no dose to its hottest {volume_ml:g} ml."
            )
        return float(self.dose_at(min(1.0, volume_ml / self.volume_ml)))

    def volume_at(self, dose_Gy: float) -> float:
        """Volume that receives at least `dose_Gy`, ml."""
        return float(self.volume_fraction_at(dose_Gy)) * self.volume_ml

    def generalised_eud(self, exponent: float) -> float:
        """Generalised equivalent uniform dose, Gy: the power mean of the doses.

        Parameters
        ----------
        exponent : float
            `a`: 1 is the mean, large values go to the maximum (organs in series), negative ones to the minimum (tumours).

        References
        ----------
        A. Niemierko, Med. Phys. 26 (1999) 1100.

        Examples
        --------
        >>> DoseVolumeHistogram("liver", 2.0, np.array([1.0, 3.0])).generalised_eud(2)
        2.23606797749979
        """
        if exponent == 0 or not math.isfinite(exponent):
            raise SynthDoseError(f"The exponent of the generalised EUD has to be finite and not 0; found {exponent}.")
        dose = self.sorted_dose_Gy
        if exponent < 0 and dose[0] <= 0:
            return 0.0
        largest = dose[-1] if exponent > 0 else dose[0]
        if largest <= 0:
            return 0.0
        return float(largest * np.mean((dose / largest) ** exponent) ** (1 / exponent))

    def survival_eud(self, alpha_per_Gy: float) -> float:
        """Uniform dose that leaves as many cells as these doses do, Gy, for survival exp(-alpha D).

        Give biologically effective doses for the linear-quadratic model.

        References
        ----------
        A. Niemierko, Med. Phys. 24 (1997) 103.
        """
        if not (math.isfinite(alpha_per_Gy) and alpha_per_Gy > 0):
            raise SynthDoseError(f"alpha has to be above 0; found {alpha_per_Gy} 1/Gy.")
        lowest = self.sorted_dose_Gy[0]
        return float(lowest - np.log(np.mean(np.exp(-alpha_per_Gy * (self.sorted_dose_Gy - lowest)))) / alpha_per_Gy)

    def uncertainty(
        self, dose_Gy: ArrayLike, *, voxel_sigma_Gy: ArrayLike | None = None, relative_sigma: float = 0.0
    ) -> NDArray[np.float64]:
        """One standard uncertainty of the volume fraction at `dose_Gy`.

        What moves all doses together (the error of the mean dose, and `relative_sigma` of calibration, recovery and the like)
        shifts the curve; statistical noise of single voxels makes each of them fall to either side by chance.

        Parameters
        ----------
        dose_Gy : array_like, (n,)
        voxel_sigma_Gy : array_like, (m,), optional
            Standard errors of the voxels, in the order of `sorted_dose_Gy`, independent of each other.
        relative_sigma : float
            Of all doses together.

        Returns
        -------
        ndarray of float64, (n,)
        """
        levels = np.atleast_1d(np.asarray(dose_Gy, dtype=np.float64))
        mean_sigma = self.mean_sigma_Gy if math.isfinite(self.mean_sigma_Gy) else 0.0
        shift = np.hypot(relative_sigma * levels, mean_sigma * levels / max(self.mean_Gy, 1e-300))
        half = (self.volume_fraction_at(levels - shift) - self.volume_fraction_at(levels + shift)) / 2
        variance = half**2
        if voxel_sigma_Gy is not None:
            sigma = np.maximum(np.asarray(voxel_sigma_Gy, dtype=np.float64), 1e-300)
            if sigma.shape != self.sorted_dose_Gy.shape:
                raise SynthDoseError(f"{sigma.size} standard errors were given for {self.sorted_dose_Gy.size} doses.")
            for n, level in enumerate(levels):
                above = ndtr((self.sorted_dose_Gy - level) / sigma)
                variance[n] += float((above * (1 - above)).sum()) / sigma.size**2
        return np.sqrt(variance)

    def curve(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return dose, Gy, from 0 to just past the maximum and the volume fraction there, `points` of each."""
        dose = np.linspace(0.0, max(float(self.sorted_dose_Gy[-1]) * 1.005, 1e-300), points)
        return dose, self.volume_fraction_at(dose)


def write_dvh_metrics_csv(
    path: str | os.PathLike[str],
    histograms: Iterable[DoseVolumeHistogram],
    *,
    volumes_at_Gy: Iterable[float] = (),
    eud_exponents: Mapping[str, float] | None = None,
) -> None:
    """Write indices per organ: mean, extremes, D98 to D2, dose to the hottest 1 and 0.1 ml, generalised EUD, volumes at doses.

    Parameters
    ----------
    path : path-like
    histograms : iterable of DoseVolumeHistogram
    volumes_at_Gy : iterable of float
        Doses for whose volume fractions there are columns ``v<dose>Gy_fraction``.
    eud_exponents : mapping of organ to exponent, optional
        For `DoseVolumeHistogram.generalised_eud`; left empty for the others.
    """
    levels, exponents = list(volumes_at_Gy), eud_exponents or {}
    header = ["organ", "volume_ml", "mean_Gy", "min_Gy", "max_Gy", "d98_Gy", "d95_Gy", "d50_Gy", "d5_Gy", "d2_Gy", "d1cc_Gy"]
    header += ["d0.1cc_Gy", "geud_exponent", "geud_Gy", *(f"v{level:g}Gy_fraction" for level in levels)]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for h in histograms:
            at_volume = [h.dose_at_volume(v) if v <= h.volume_ml else math.nan for v in (1.0, 0.1)]
            exponent = exponents.get(h.organ, math.nan)
            eud = h.generalised_eud(exponent) if not math.isnan(exponent) else math.nan
            numbers = [h.volume_ml, h.mean_Gy, h.min_Gy, h.max_Gy, *h.dose_at([0.98, 0.95, 0.5, 0.05, 0.02]).tolist()]
            numbers += [*at_volume, exponent, eud, *(float(h.volume_fraction_at(level)) for level in levels)]
            writer.writerow([h.organ, *("" if math.isnan(x) else f"{x:.6g}" for x in numbers)])


def dose_volume_histogram(
    dose: DoseMap, labels: LabelMap, organ: str, *, sigma_Gy: float = float("nan"), gas: NDArray[np.bool_] | None = None
) -> DoseVolumeHistogram:
    """Return the cumulative dose-volume histogram of one organ.

    Parameters
    ----------
    dose : DoseMap
    labels : LabelMap
        On the grid of `dose`.
    organ : str
    sigma_Gy : float
        One standard error of the organ's mean dose, if known.
    gas : ndarray of bool, (nk, nj, ni), optional
        Voxels to leave out, unless the organ is nothing else: their dose is none to tissue.

    Raises
    ------
    SynthDoseError
        If the grids differ, the organ is unknown or has no voxel.
    """
    if not dose.grid.matches(labels.grid):
        raise SynthDoseError("Dose and label map are on different grids. Resample the labels to the grid of the dose first.")
    mask = labels.mask(organ)
    solid = mask if gas is None else mask & ~gas
    values = dose.dose_Gy[solid if solid.any() else mask]
    return DoseVolumeHistogram(organ, values.size * dose.grid.voxel_volume_ml, values.astype(np.float64), sigma_Gy)


def dose_volume_histograms(
    dose: DoseMap,
    labels: LabelMap,
    *,
    organs: Iterable[str] | None = None,
    sigma_Gy: dict[str, float] | None = None,
    gas: NDArray[np.bool_] | None = None,
) -> tuple[DoseVolumeHistogram, ...]:
    """Return the histograms of `organs`, or of every organ that has voxels, in the order of the label table."""
    counts = labels.voxel_counts()
    names = [name for name, count in counts.items() if count] if organs is None else list(organs)
    known = sigma_Gy or {}
    return tuple(dose_volume_histogram(dose, labels, name, sigma_Gy=known.get(name, float("nan")), gas=gas) for name in names)


def write_dvh_csv(path: str | os.PathLike[str], histograms: Iterable[DoseVolumeHistogram], *, points: int = 200) -> None:
    """Write cumulative histograms as rows ``organ,dose_Gy,volume_fraction,volume_fraction_low,volume_fraction_high``.

    The last two are `DoseVolumeHistogram.band_at`, empty if no uncertainty is known.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["organ", "dose_Gy", "volume_fraction", "volume_fraction_low", "volume_fraction_high"])
        for histogram in histograms:
            dose, fraction = histogram.curve(points)
            for numbers in zip(dose, fraction, *histogram.band_at(dose), strict=True):
                writer.writerow([histogram.organ, *("" if math.isnan(x) else f"{x:.6g}" for x in numbers)])
