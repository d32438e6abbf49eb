"""Dose-volume histograms."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import DoseMap, LabelMap, SynthDoseError, atomic_path


@dataclass(frozen=True, eq=False)
class DoseVolumeHistogram:
    """Cumulative dose-volume histogram of one organ, kept exact: one step per voxel. The array becomes read-only.

    Attributes
    ----------
    organ : str
    volume_ml : float
    sorted_dose_Gy : ndarray of float64, (n,)
        Doses of the organ's voxels, increasing; all voxels have the same volume.
    mean_sigma_Gy : float
        One standard error of the organ's mean dose, for the band of the plot; nan if unknown.

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

    def curve(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return dose, Gy, from 0 to just past the maximum and the volume fraction there, `points` of each."""
        dose = np.linspace(0.0, max(float(self.sorted_dose_Gy[-1]) * 1.005, 1e-300), points)
        return dose, self.volume_fraction_at(dose)


def dose_volume_histogram(
    dose: DoseMap, labels: LabelMap, organ: str, *, sigma_Gy: float = float("nan")
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

    Raises
    ------
    SynthDoseError
        If the grids differ, the organ is unknown or has no voxel.
    """
    if not dose.grid.matches(labels.grid):
        raise SynthDoseError("Dose and label map are on different grids. Resample the labels to the grid of the dose first.")
    values = dose.dose_Gy[labels.mask(organ)]
    return DoseVolumeHistogram(organ, values.size * dose.grid.voxel_volume_ml, values.astype(np.float64), sigma_Gy)


def dose_volume_histograms(
    dose: DoseMap, labels: LabelMap, *, organs: Iterable[str] | None = None, sigma_Gy: dict[str, float] | None = None
) -> tuple[DoseVolumeHistogram, ...]:
    """Return the histograms of `organs`, or of every organ that has voxels, in the order of the label table."""
    counts = labels.voxel_counts()
    names = [name for name, count in counts.items() if count] if organs is None else list(organs)
    known = sigma_Gy or {}
    return tuple(dose_volume_histogram(dose, labels, name, sigma_Gy=known.get(name, float("nan"))) for name in names)


def write_dvh_csv(path: str | os.PathLike[str], histograms: Iterable[DoseVolumeHistogram], *, points: int = 200) -> None:
    """Write cumulative histograms as rows ``organ,dose_Gy,volume_fraction``."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["organ", "dose_Gy", "volume_fraction"])
        for histogram in histograms:
            for dose, fraction in zip(*histogram.curve(points), strict=True):
                writer.writerow([histogram.organ, f"{dose:.6g}", f"{fraction:.6g}"])
