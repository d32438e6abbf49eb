"""A synthetic patient: stylised adult, CT, and Lu-177 SPECT after a therapy, with the truth beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid

from .stylised import StylisedAdult, stylised_adult
from .stylised_reference import SEXES, TISSUE_INDEX, TISSUES
from .synthetic_images import FWHM_TO_SIGMA, add_couch, ct_image, spect_image

LU177_HALF_LIFE_H = 159.5  # 6.647 d, ICRP Publication 107

# concentration at 24 h after 7400 MBq, MBq/ml, and effective half-life, h: inside the ranges that dosimetry after
# Lu-177-DOTATATE finds, chosen here
_UPTAKE: dict[str, tuple[float, float]] = {
    "kidney_left": (0.55, 51.0),
    "kidney_right": (0.55, 51.0),
    "spleen": (0.70, 67.0),
    "liver": (0.11, 67.0),
    "urinary_bladder": (0.10, 40.0),
    "adrenal_gland_left": (0.12, 60.0),
    "adrenal_gland_right": (0.12, 60.0),
    "pancreas": (0.05, 60.0),
    "thyroid_gland": (0.03, 60.0),
    "stomach": (0.03, 50.0),
    "small_bowel": (0.04, 50.0),
    "duodenum": (0.05, 50.0),
    "colon": (0.03, 50.0),
    "skeleton": (0.014, 46.0),
    "heart": (0.012, 44.0),
    "aorta": (0.012, 44.0),
    "lung_left": (0.004, 44.0),
    "lung_right": (0.004, 44.0),
}
_REST = (0.008, 44.0)
_TUMOUR = (3.0, 92.0)


@dataclass(frozen=True)
class RegionActivity:
    """True activity of an organ, a tumour or the rest of the body.

    Attributes
    ----------
    activity_MBq : float
        At the start of the SPECT.
    concentration_Bq_ml : float
    effective_half_life_h : float
    time_integrated_activity_MBq_s : float
        From the administration on, by that half-life alone.
    volume_ml, mass_g : float
    """

    activity_MBq: float
    concentration_Bq_ml: float
    effective_half_life_h: float
    time_integrated_activity_MBq_s: float
    volume_ml: float
    mass_g: float


@dataclass(frozen=True, eq=False)
class SyntheticPatient:
    """Images of a person who does not exist, and what is true about them.

    Attributes
    ----------
    ct : ImageVolume
        HU.
    spect : ImageVolume
        Bq/ml, on a grid of its own.
    labels : LabelMap
        Truth on the CT's grid: organs, skeleton and ``tumour_1`` … (cut out of their organs).
    organ_labels : LabelMap
        The same with the tumours counted to the organs they sit in, as a segmentation of organs would have it.
    target_mass_g : dict of str to float
        Mass asked per organ and tumour, g; of a liver with tumours that of the healthy part.
    activity : dict of str to RegionActivity
        Per organ and tumour, and `rest_of_body`; within the field of view.
    adult : StylisedAdult
    nuclide : str
    administered_MBq : float
    administered_at : datetime
    seed : int
    """

    ct: ImageVolume
    spect: ImageVolume
    labels: LabelMap
    organ_labels: LabelMap
    target_mass_g: dict[str, float]
    activity: dict[str, RegionActivity]
    adult: StylisedAdult
    nuclide: str
    administered_MBq: float
    administered_at: datetime
    seed: int

    @property
    def truth(self) -> dict[str, Any]:
        """What is true about this patient, as plain values that JSON can hold."""
        return {
            "schema": 1,
            "seed": self.seed,
            "sex": self.adult.sex,
            "height_m": self.adult.height_m,
            "weight_kg": self.adult.weight_kg,
            "nuclide": self.nuclide,
            "administered_MBq": self.administered_MBq,
            "administered_at": self.administered_at.isoformat(),
            "imaged_at": self.spect.acquired_at.isoformat() if self.spect.acquired_at else "",
            "target_mass_g": dict(self.target_mass_g),
            "regions": {name: asdict(region) for name, region in self.activity.items()},
        }


def synthetic_patient(
    seed: int,
    *,
    sex: str | None = None,
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    spect_spacing_mm: float = 4.8,
    administered_MBq: float = 7400.0,
    administered_at: datetime = datetime(2024, 1, 31, 10, 0, 0),
    imaged_after_h: float = 24.0,
    tumours: int = 4,
    variation: float = 1.0,
    field_of_view: str = "torso",
    noise_hu: float = 15.0,
    couch: bool = True,
) -> SyntheticPatient:
    """Make a patient after Lu-177-DOTATATE: CT, SPECT and the truth.

    Parameters
    ----------
    seed : int
        0 or more; the same arguments always make the same patient.
    sex : str, optional
        "female" or "male"; drawn from the seed if not given.
    spacing_mm : tuple of 3 float
        CT voxels along i, j, k, mm.
    spect_spacing_mm : float
        Edge of the cubic SPECT voxels, mm.
    administered_MBq, administered_at
        Activity of Lu-177 and when it was given.
    imaged_after_h : float
        From the administration to the SPECT, h.
    tumours : int
        Number of tumours, 0 to 6: in the liver, the pancreas and a vertebra.
    variation, field_of_view
        As for `stylised_adult`.
    noise_hu : float
        Standard deviation of the CT's noise, HU.
    couch : bool
        Whether the CT shows the scanner's couch.

    Returns
    -------
    SyntheticPatient

    Raises
    ------
    SynthDoseError
        If an argument is outside what is allowed above.
    """
    if seed < 0:
        raise SynthDoseError(f"seed has to be 0 or more; found {seed}.")
    if administered_MBq <= 0 or imaged_after_h < 0:
        raise SynthDoseError(f"Activity and time have to be positive; found {administered_MBq} MBq, {imaged_after_h} h.")
    if not 0 <= tumours <= 6:
        raise SynthDoseError(f"tumours has to be from 0 to 6; found {tumours}.")
    streams = np.random.SeedSequence([seed, 177]).spawn(4)
    rng_person, rng_tumours, rng_ct, rng_spect = (np.random.default_rng(stream) for stream in streams)
    drawn = SEXES[int(rng_person.integers(2))]
    sex = drawn if sex is None else sex
    adult = stylised_adult(sex, spacing_mm=spacing_mm, seed=seed, variation=variation, field_of_view=field_of_view)
    labels, tissues, targets = _with_tumours(adult, tumours, rng_tumours)

    acquired_at = administered_at + timedelta(hours=imaged_after_h)
    metadata = {
        "patient_id": f"SYNTHETIC-{seed:04d}",
        "patient_name": f"Synthetic^Patient {seed:04d}",
        "patient_sex": "F" if sex == "female" else "M",
        "patient_weight_kg": round(adult.weight_kg, 1),
        "patient_height_m": round(adult.height_m, 2),
        "study_description": "SynthDose synthetic patient, Lu-177-DOTATATE",
    }
    hu = ct_image(tissues, TISSUES, adult.grid.spacing_mm, rng_ct, noise_hu=noise_hu)
    if couch:
        add_couch(tissues, adult.grid, hu)
    ct = ImageVolume(
        adult.grid,
        hu,
        modality="CT",
        unit="HU",
        acquired_at=acquired_at - timedelta(minutes=5),
        metadata={**metadata, "series_description": "CT, synthetic"},
        notes=("This image is synthetic: it shows nobody.",),
    )

    concentration, activity = _activity(adult, labels, tissues, administered_MBq, imaged_after_h, rng_person)
    grid = _spect_grid(adult.grid, spect_spacing_mm)
    spect = ImageVolume(
        grid,
        spect_image(concentration, adult.grid, grid, rng_spect),
        modality="NM",
        unit="Bq/ml",
        acquired_at=acquired_at,
        metadata={
            **metadata,
            "series_description": "SPECT Lu-177, Bq/ml, synthetic",
            "radionuclide": "Lu-177",
            "injected_activity_MBq": administered_MBq,
            "injected_at": administered_at,
        },
        notes=("This image is synthetic: it shows nobody.",),
    )
    return SyntheticPatient(
        ct, spect, labels, adult.labels, targets, activity, adult, "Lu-177", administered_MBq, administered_at, seed
    )


def _with_tumours(
    adult: StylisedAdult, number: int, rng: np.random.Generator
) -> tuple[LabelMap, NDArray[np.uint8], dict[str, float]]:
    """Labels, tissues and asked masses with spheres of tumour in the liver, the pancreas and the spine."""
    labels = adult.labels.labels.copy()
    tissues = adult.tissues.copy()
    organs = list(adult.labels.organs)
    targets = dict(adult.target_mass_g)
    hosts = ("liver", "liver", "skeleton", "pancreas", "liver", "liver")
    diameters = rng.uniform((28, 20, 16, 14, 12, 34), (38, 28, 22, 18, 20, 40))
    spacing = np.asarray(adult.grid.spacing_mm[::-1])
    density = TISSUES[TISSUE_INDEX["tumour"]].density_g_cm3
    for index in range(number):
        host = adult.labels.organ(hosts[index]).index
        centre = _seat(labels == host, spacing, diameters[index] / 2, rng, spine=hosts[index] == "skeleton", grid=adult.grid)
        half = np.ceil(diameters[index] / spacing).astype(int)
        lower = np.maximum(centre - half, 0)
        where = tuple(slice(int(a), int(b)) for a, b in zip(lower, centre + half + 1, strict=True))
        distance = np.zeros(labels[where].shape)
        for axis in range(3):
            along = (np.arange(labels[where].shape[axis]) + lower[axis] - centre[axis]) * spacing[axis]
            distance = distance + (along**2).reshape([-1 if a == axis else 1 for a in range(3)])
        mass = 4 / 3 * np.pi * (diameters[index] / 20) ** 3 * density
        count = max(1, round(mass / density / adult.grid.voxel_volume_ml))
        distance[(labels[where] != host)] = np.inf
        count = min(count, int(np.isfinite(distance).sum()))
        chosen = np.unravel_index(np.argsort(distance, axis=None, kind="stable")[:count], distance.shape)
        lost = np.array([TISSUES[t].density_g_cm3 for t in tissues[where][chosen]]).sum() * adult.grid.voxel_volume_ml
        targets[hosts[index]] -= float(lost)
        organ = Organ(max(o.index for o in organs) + 1, f"tumour_{index + 1}")
        organs.append(organ)
        labels[where][chosen] = organ.index
        tissues[where][chosen] = TISSUE_INDEX["tumour"]
        targets[organ.name] = mass
    return LabelMap(adult.grid, labels, tuple(organs)), tissues, targets


def _seat(
    host: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    radius_mm: float,
    rng: np.random.Generator,
    *,
    spine: bool,
    grid: VoxelGrid,
) -> NDArray[np.int64]:
    """Voxel (k, j, i) in an organ with room for a sphere around it; the roomiest one if there is none."""
    if spine:
        kji = np.argwhere(host)
        ras = grid.to_ras(kji[:, ::-1])
        middle = np.median(ras, axis=0)
        near = kji[(np.abs(ras[:, 0] - middle[0]) < 15) & (np.abs(ras[:, 2] - (middle[2] - 60)) < 60)]
        host = np.zeros_like(host)
        host[tuple(near.T)] = True
    box = ndimage.find_objects(host.astype(np.uint8))[0]
    room = ndimage.distance_transform_edt(np.pad(host[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    seats = np.argwhere(room > min(radius_mm + spacing.max(), room.max() * 0.999))
    return seats[int(rng.integers(len(seats)))] + np.array([part.start for part in box])


def _activity(
    adult: StylisedAdult,
    labels: LabelMap,
    tissues: NDArray[np.uint8],
    administered_MBq: float,
    imaged_after_h: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], dict[str, RegionActivity]]:
    """Activity concentration, Bq/ml, on the CT's grid, and the same per region."""
    volume = labels.grid.voxel_volume_ml
    regions = np.asarray(labels.labels, np.int32).copy()
    rest = max(organ.index for organ in labels.organs) + 1
    regions[(regions == 0) & (tissues != TISSUE_INDEX["air"]) & (tissues != TISSUE_INDEX["gas"])] = rest
    density = np.array([tissue.density_g_cm3 for tissue in TISSUES])[tissues]
    counts = np.bincount(regions.ravel(), minlength=rest + 1)
    masses = np.bincount(regions.ravel(), weights=density.ravel(), minlength=rest + 1) * volume
    values = np.zeros(rest + 1, np.float32)
    truth: dict[str, RegionActivity] = {}
    for organ in (*labels.organs, Organ(rest, "rest_of_body")):
        uptake, half_life = _TUMOUR if organ.name.startswith("tumour_") else _UPTAKE.get(organ.name, _REST)
        spread = 0.35 if organ.name.startswith("tumour_") else 0.12
        uptake *= float(np.exp(spread * np.clip(rng.standard_normal(), -2, 2)))
        half_life *= float(np.exp(0.05 * np.clip(rng.standard_normal(), -2, 2)))
        at_24_h = uptake * administered_MBq / 7400 * 1e6
        now = at_24_h * 2 ** ((24.0 - imaged_after_h) / half_life)
        total = now * counts[organ.index] * volume * 1e-6
        integral = total * 2 ** (imaged_after_h / half_life) * half_life * 3600 / np.log(2)
        values[organ.index] = now
        truth[organ.name] = RegionActivity(
            float(total),
            float(now),
            half_life,
            float(integral),
            float(counts[organ.index] * volume),
            float(masses[organ.index]),
        )
    return values[regions], truth


def _spect_grid(ct: VoxelGrid, spacing_mm: float) -> VoxelGrid:
    """Cubic voxels, 128 columns and rows around the person, not aligned with the CT."""
    count = int(np.ceil(ct.shape[0] * ct.spacing_mm[2] / spacing_mm)) + 4
    middle = ct.to_ras((np.asarray(ct.shape[::-1]) - 1) / 2) + np.array([3.1, -5.3, 1.7])
    size = np.array([128, 128, count])
    origin = middle - ct.directions @ (spacing_mm * (size - 1) / 2)
    return VoxelGrid.from_spacing((count, 128, 128), (spacing_mm,) * 3, origin, ct.directions)


RESOLUTION_SIGMA_MM = 9.0 * FWHM_TO_SIGMA
"""Standard deviation of the SPECT's Gaussian resolution, mm."""
