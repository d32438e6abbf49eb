"""A synthetic patient imaged several times: organ kinetics, position, blur and scatter, with the truth beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table

from .synthetic import SyntheticPatient, spect_grid
from .synthetic_images import FWHM_TO_SIGMA, average_on_grid

SCATTER_FWHM_MM = 120.0
UPTAKE_H = {"tumour": (4.0, 8.0), "kidney": (0.5, 2.0), "urinary": (0.5, 1.5)}
"""Half-lives of the rise from 0, h, drawn between these; other organs and the rest follow the blood and have none."""


@dataclass(frozen=True)
class RegionCourse:
    """True time course of one region, A(t) = A₀ (2^(-t/T) - u 2^(-t/Tᵤ)).

    Attributes
    ----------
    amplitude_MBq : float
        A₀.
    effective_half_life_h : float
        T.
    uptake_half_life_h : float or None
        Tᵤ; None for a region without a rise (u = 0).
    time_integrated_activity_MBq_h : float
    volume_ml : float
        Without gas.
    """

    amplitude_MBq: float
    effective_half_life_h: float
    uptake_half_life_h: float | None
    time_integrated_activity_MBq_h: float
    volume_ml: float

    def activity_MBq(self, hours: float) -> float:
        """Activity at a time after administration."""
        rise = 0.0 if self.uptake_half_life_h is None else 2 ** (-hours / self.uptake_half_life_h)
        return float(self.amplitude_MBq * (2 ** (-hours / self.effective_half_life_h) - rise))


@dataclass(frozen=True)
class Camera:
    """What a SPECT does to the activity: blur that grows from the middle of the field to its edge, scatter, counting.

    Attributes
    ----------
    centre_fwhm_mm, edge_fwhm_mm : float
        Resolution on the axis and at `edge_mm` from it.
    edge_mm : float
    scatter_fraction : float
        Share of the activity that a scatter correction left spread over 12 cm.
    counts_per_MBq : float
    """

    centre_fwhm_mm: float = 9.0
    edge_fwhm_mm: float = 9.0
    edge_mm: float = 180.0
    scatter_fraction: float = 0.0
    counts_per_MBq: float = 10_000.0

    def image(
        self, activity_Bq_ml: NDArray[np.float32], grid: VoxelGrid, target: VoxelGrid, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """SPECT, Bq/ml on `target`, of an activity on `grid` (same axes)."""
        sharp = average_on_grid(activity_Bq_ml, grid, target)
        spacing = np.asarray(target.spacing_mm[::-1])
        centre = _blurred(sharp, self.centre_fwhm_mm, spacing)
        if self.edge_fwhm_mm != self.centre_fwhm_mm:
            edge = _blurred(sharp, self.edge_fwhm_mm, spacing)
            _, nj, ni = target.shape
            y, x = np.meshgrid(np.arange(nj) - (nj - 1) / 2, np.arange(ni) - (ni - 1) / 2, indexing="ij")
            share = np.minimum(np.hypot(y * spacing[1], x * spacing[2]) / self.edge_mm, 1.0).astype(np.float32)
            centre = centre * (1 - share) + edge * share
        if self.scatter_fraction:
            centre = centre * np.float32(1 - self.scatter_fraction)
            centre += np.float32(self.scatter_fraction) * _blurred(sharp, SCATTER_FWHM_MM, spacing)
        counts_per_Bq_ml = target.voxel_volume_ml * 1e-6 * self.counts_per_MBq
        counts = rng.poisson(np.maximum(centre, 0).astype(np.float64) * counts_per_Bq_ml)
        return np.asarray(counts / counts_per_Bq_ml, np.float32)


@dataclass(frozen=True, eq=False)
class SyntheticTimePoints:
    """Scans of one synthetic patient.

    Attributes
    ----------
    patient : SyntheticPatient
    spects : tuple of ImageVolume
        Bq/ml, one per time.
    hours : tuple of float
    displacements_ras : tuple of ndarray, (4, 4)
        Where the patient of the CT lay at each scan: RAS of the CT to RAS of the scan.
    courses : dict of str to RegionCourse
    labels : LabelMap
        Truth on the CT's grid, with `rest_of_body`.
    """

    patient: SyntheticPatient
    spects: tuple[ImageVolume, ...]
    hours: tuple[float, ...]
    displacements_ras: tuple[NDArray[np.float64], ...]
    courses: dict[str, RegionCourse]
    labels: LabelMap

    @property
    def truth(self) -> dict[str, Any]:
        """What is true, as plain values that JSON can hold."""
        return {
            "schema": 1,
            "seed": self.patient.seed,
            "hours": list(self.hours),
            "displacements_ras": [m.tolist() for m in self.displacements_ras],
            "regions": {name: vars(course) for name, course in self.courses.items()},
        }


def synthetic_time_points(
    patient: SyntheticPatient,
    hours: Sequence[float] = (4.0, 24.0, 72.0, 168.0),
    *,
    camera: Camera | None = None,
    spect_spacing_mm: float = 4.8,
    displacements_ras: Sequence[NDArray[np.float64]] | None = None,
) -> SyntheticTimePoints:
    """Image a synthetic patient several times.

    Parameters
    ----------
    patient : SyntheticPatient
        Its activity at 24 h and half-lives set the courses; tumours, kidneys and bladder also take time to fill.
    hours : sequence of float
        After administration.
    camera : Camera, optional
    spect_spacing_mm : float
    displacements_ras : sequence of ndarray, (4, 4), optional
        Rigid: where the patient of the CT lies at each scan; each displaced scan gets a frame of reference of its own.

    Raises
    ------
    SynthDoseError
        If times and displacements do not match.
    """
    if not hours or min(hours) < 0 or (displacements_ras is not None and len(displacements_ras) != len(hours)):
        raise SynthDoseError(f"Each scan needs a time of 0 h or more, and a displacement if any has one; found {list(hours)}.")
    rng = np.random.default_rng([patient.seed, 52])
    labels, gas = patient.regions, patient.gas
    courses = _courses(patient, rng)
    grid = spect_grid(patient.ct.grid, spect_spacing_mm)
    moves = [np.eye(4) for _ in hours] if displacements_ras is None else [np.asarray(m, np.float64) for m in displacements_ras]
    spects = []
    names = {organ.name: organ.index for organ in labels.organs}
    for number, (time, move) in enumerate(zip(hours, moves, strict=True)):
        values = np.zeros(max(names.values()) + 1, np.float32)
        for name, course in courses.items():
            values[names[name]] = course.activity_MBq(time) * 1e6 / course.volume_ml if course.volume_ml else 0.0
        activity = np.where(gas, np.float32(0), values[labels.labels])
        image = (camera or Camera()).image(activity, patient.ct.grid, grid, rng)
        own_frame = (
            {} if np.allclose(move, np.eye(4)) else {"frame_of_reference_uid": f"1.2.826.0.1.{patient.seed}.{number + 1}"}
        )
        spects.append(
            replace(
                patient.spect,
                grid=VoxelGrid(grid.shape, move @ grid.ijk_to_ras),
                values=image,
                acquired_at=patient.administered_at + timedelta(hours=time),
                metadata={**patient.spect.metadata, **own_frame},
            )
        )
    return SyntheticTimePoints(patient, tuple(spects), tuple(float(h) for h in hours), tuple(moves), courses, labels)


def _courses(patient: SyntheticPatient, rng: np.random.Generator) -> dict[str, RegionCourse]:
    imaged_h = (
        (patient.spect.acquired_at - patient.administered_at).total_seconds() / 3600 if patient.spect.acquired_at else 24.0
    )
    courses = {}
    for name, region in patient.activity.items():
        half_life = region.effective_half_life_h
        start = region.activity_MBq * 2 ** (imaged_h / half_life)
        span = next((s for key, s in UPTAKE_H.items() if name.startswith(key)), None)
        uptake = None if span is None else float(rng.uniform(*span))
        integral = start * (half_life - (uptake or 0.0)) / np.log(2)
        courses[name] = RegionCourse(float(start), half_life, uptake, float(integral), region.volume_ml)
    return courses


@dataclass(frozen=True, eq=False)
class SpherePhantom:
    """SPECT of hot spheres in cold water, for recovery coefficients.

    Attributes
    ----------
    image : ImageVolume
        Bq/ml.
    labels : LabelMap
        ``sphere_1`` … on a grid of 3 mm.
    concentration_Bq_ml : float
        In all spheres.
    volumes_ml : dict of str to float
        As labelled.
    """

    image: ImageVolume
    labels: LabelMap
    concentration_Bq_ml: float
    volumes_ml: dict[str, float]


def sphere_phantom(
    seed: int,
    *,
    camera: Camera | None = None,
    volumes_ml: Sequence[float] = (2.0, 5.0, 11.0, 26.0, 60.0, 150.0, 400.0),
    spect_spacing_mm: float = 4.8,
    concentration_Bq_ml: float = 1e6,
) -> SpherePhantom:
    """Scan hot spheres, 60 mm from the axis and apart along it, with the camera of the patients."""
    grid = VoxelGrid.from_spacing((150, 120, 120), (3.0, 3.0, 3.0))
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    values = np.zeros(grid.shape, np.uint16)
    heights = np.linspace(-170, 170, len(volumes_ml))
    for number, volume in enumerate(volumes_ml):
        radius = 10 * (3 * volume / (4 * np.pi)) ** (1 / 3)
        angle = 2.4 * number
        centre = np.array([60 * np.cos(angle), 60 * np.sin(angle), heights[number]])
        values[np.linalg.norm(ras - centre, axis=-1) < radius] = number + 1
    labels = LabelMap(grid, values, organ_table([f"sphere_{n + 1}" for n in range(len(volumes_ml))]))
    target = spect_grid(grid, spect_spacing_mm)
    rng = np.random.default_rng([seed, 53])
    activity = np.where(values > 0, np.float32(concentration_Bq_ml), np.float32(0))
    image = ImageVolume(target, (camera or Camera()).image(activity, grid, target, rng), "NM", "Bq/ml")
    counts = labels.voxel_counts()
    return SpherePhantom(image, labels, concentration_Bq_ml, {n: c * grid.voxel_volume_ml for n, c in counts.items()})


def _blurred(values: NDArray[np.float32], fwhm_mm: float, spacing_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(values, fwhm_mm * FWHM_TO_SIGMA / spacing_mm, mode="constant", truncate=4.0)
