"""A synthetic patient: a stylised adult, CT, and Lu-177 SPECT after a therapy, with the truth beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.core.volumes import GAS_G_CM3

from .builder import REST_OF_BODY
from .calibration import schneider_calibration
from .people import stylised_person
from .people_person import ORGAN_GROUPS, PersonPlan, StylisedPerson
from .people_reference import SEXES, require_sex
from .people_sampling import sample_plan
from .people_tissues import PersonTissue
from .synthetic_images import add_couch, ct_image, spect_image

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
    "colon": (0.03, 50.0),
    "skeleton": (0.014, 46.0),
    "heart": (0.012, 44.0),
    "aorta": (0.012, 44.0),
    "lung_left": (0.004, 44.0),
    "lung_right": (0.004, 44.0),
}
_REST_UPTAKE = (0.008, 44.0)
_TUMOUR_UPTAKE = (3.0, 92.0)
_TUMOUR = PersonTissue(
    "tumour", float(schneider_calibration().density([62.0])[0]), 62.0, 3.0, "soft_tissue_icru_four_component"
)
_HOSTS = ("liver", "liver", "lumbar_spine", "pancreas", "liver", "liver")
_AGES_Y = (30.0, 75.0)
_MUCH_SURFACE = (("lung_left", "lung_right"), ("skeleton",), ("esophagus",))
_LEFT_OUT = ("eye_left", "eye_right", "parotid_gland_left", "parotid_gland_right")

FIELDS_OF_VIEW = ("torso", "head_to_thigh")
CORTICAL_HU = 1300.0  # what voxels of 3 mm leave of compact bone
MARGIN_MM = 10.0
COUCH_ROOM_MM = 20.0
"""Air behind the body beyond the margin, so that a couch has room in the image."""


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
        The volume without gas, which holds no activity.
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
        Mass asked per tumour and per organ that lies wholly in the field of view, g: of a liver with tumours that of the
        healthy part, of the skeleton that of the bones inside.
    activity : dict of str to RegionActivity
        Per organ and tumour, and `rest_of_body`; within the field of view.
    person : StylisedPerson
        The voxels in the field of view, without tumours.
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
    person: StylisedPerson
    nuclide: str
    administered_MBq: float
    administered_at: datetime
    seed: int

    @property
    def regions(self) -> LabelMap:
        """`labels` with what is left of the body, without its air, as one more label ``rest_of_body``."""
        return _with_rest(self.labels, self.person)

    @property
    def gas(self) -> NDArray[np.bool_]:
        """Voxels of the CT's grid with gas or air."""
        return np.isin(self.person.tissues, [n for n, t in enumerate(self.person.tissue_table) if t.density_g_cm3 < GAS_G_CM3])

    @property
    def truth(self) -> dict[str, Any]:
        """What is true about this patient, as plain values that JSON can hold."""
        return {
            "schema": 1,
            "seed": self.seed,
            "sex": self.person.plan.sex,
            "age_y": self.person.plan.age_y,
            "height_m": float(self.person.plan.height_cm or 0.0) / 100,
            "weight_kg": self.person.plan.weight_kg,
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
    variation : float
        How much people differ: 0 is the reference person, 1 the spread of adults, up to 1.5.
    field_of_view : str
        "torso" (neck to mid-thigh) or "head_to_thigh"; arms are raised.
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
    if field_of_view not in FIELDS_OF_VIEW:
        raise SynthDoseError(f"'{field_of_view}' is not a field of view. Allowed: {', '.join(FIELDS_OF_VIEW)}.")
    streams = np.random.SeedSequence([seed, 177]).spawn(4)
    rng_person, rng_tumours, rng_ct, rng_spect = (np.random.default_rng(stream) for stream in streams)
    drawn = SEXES[int(rng_person.integers(2))]
    sex = drawn if sex is None else sex
    person = _person(seed, sex, spacing_mm, variation, field_of_view)
    organs, organ_targets = _organs(person)
    labels, tissues, targets = _with_tumours(person, organs, organ_targets, tumours, rng_tumours)

    acquired_at = administered_at + timedelta(hours=imaged_after_h)
    metadata = {
        "patient_id": f"SYNTHETIC-{seed:04d}",
        "patient_name": f"Synthetic^Patient {seed:04d}",
        "patient_sex": "F" if sex == "female" else "M",
        "patient_weight_kg": round(float(person.plan.weight_kg or 0.0), 1),
        "patient_height_m": round(float(person.plan.height_cm or 0.0) / 100, 2),
        "study_description": "SynthDose synthetic patient, Lu-177-DOTATATE",
    }
    much_surface = [np.isin(organs.labels, [o.index for o in organs.organs if o.name in names]) for names in _MUCH_SURFACE]
    table = (*person.tissue_table, _TUMOUR)
    hu = ct_image(tissues, table, person.grid.spacing_mm, rng_ct, noise_hu=noise_hu, keep_mean=much_surface)
    if couch:
        add_couch(tissues, person.grid, hu)
    ct = ImageVolume(
        person.grid,
        hu,
        modality="CT",
        unit="HU",
        acquired_at=acquired_at - timedelta(minutes=5),
        metadata={**metadata, "series_description": "CT, synthetic"},
        notes=("This image is synthetic: it shows nobody.",),
    )

    regions = _with_rest(labels, person)
    density = np.array([tissue.density_g_cm3 for tissue in table])[tissues]
    concentration, activity = _activity(regions, density, administered_MBq, imaged_after_h, rng_person)
    grid = spect_grid(person.grid, spect_spacing_mm)
    spect = ImageVolume(
        grid,
        spect_image(concentration, person.grid, grid, rng_spect),
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
        ct, spect, labels, organs, targets, activity, person, "Lu-177", administered_MBq, administered_at, seed
    )


def _person(
    seed: int, sex: str, spacing_mm: tuple[float, float, float], variation: float, field_of_view: str
) -> StylisedPerson:
    """The adult in the field of view: of the seed, or with variation 0 the reference person."""
    require_sex(sex)
    if variation == 0:
        plan = PersonPlan(sex, 30.0, arms="up", seed=seed)
    else:
        plan = sample_plan(seed, sex=sex, age_y=_AGES_Y, arms="up", variation=variation)
    whole = stylised_person(plan, spacing_mm=spacing_mm, margin_mm=MARGIN_MM + COUCH_ROOM_MM, adapt_tissues=_as_on_ct)
    at = whole.landmarks_mm
    lowest = at["crotch"] - 0.23 * (at["crotch"] - at["knee"])
    highest = at["neck"] + 0.76 * (at["chin"] - at["neck"]) if field_of_view == "torso" else at["vertex"] + MARGIN_MM
    return whole.cropped(lowest, highest, margin_mm=MARGIN_MM, behind_mm=COUCH_ROOM_MM)


def _as_on_ct(tissues: tuple[PersonTissue, ...]) -> tuple[PersonTissue, ...]:
    """Tissues with the densities that the Schneider calibration gives their CT numbers: image and mass then tell the same."""
    surroundings, *others = [
        replace(tissue, hu=CORTICAL_HU, texture_hu=40.0) if tissue.name == "cortical_bone" else tissue for tissue in tissues
    ]
    density = schneider_calibration().density([tissue.hu for tissue in others])
    return surroundings, *(replace(t, density_g_cm3=float(d)) for t, d in zip(others, density, strict=True))


def _organs(person: StylisedPerson) -> tuple[LabelMap, dict[str, float]]:
    """Organs as segmentations name them, and the mass asked of those that are not cut."""
    masses = person.mass_g()
    groups, targets = {}, {}
    for name, members in ORGAN_GROUPS.items():
        inside = [member for member in members if member in masses]
        if not inside or name in _LEFT_OUT:
            continue
        groups[name] = members
        if name == "skeleton":
            targets[name] = sum(person.targets[m].mass_g if m in person.targets else masses[m] for m in inside)
        elif all(member in person.targets for member in inside):
            targets[name] = sum(person.targets[member].mass_g for member in inside)
    return _with_lumens(person.merged(groups), person), targets


def _with_lumens(labels: LabelMap, person: StylisedPerson) -> LabelMap:
    """Labels of trachea and oesophagus with the gas inside, which a person's phantom leaves without a label."""
    walls = [organ.index for organ in labels.organs if organ.name in ("trachea", "esophagus")]
    gas = [n for n, tissue in enumerate(person.tissue_table) if tissue.name == "gas"]
    inside = (labels.labels == 0) & np.isin(person.tissues, gas)
    values = labels.labels.copy()
    wall = np.isin(values, walls)
    if wall.any() and inside.any():
        box = ndimage.find_objects((wall | inside).astype(np.uint8))[0]
        near = ndimage.distance_transform_edt(
            ~wall[box], labels.grid.spacing_mm[::-1], return_distances=False, return_indices=True
        )
        values[box][inside[box]] = values[box][tuple(index[inside[box]] for index in near)]
    return LabelMap(labels.grid, values, labels.organs)


def _with_rest(labels: LabelMap, person: StylisedPerson) -> LabelMap:
    """Labels with one more for what is left of the body without its air."""
    gas = [n for n, tissue in enumerate(person.tissue_table) if tissue.name in ("surrounding_air", "gas", "air")]
    rest = Organ(1 + max(organ.index for organ in labels.organs), REST_OF_BODY)
    values = labels.labels.copy()
    values[(values == 0) & ~np.isin(person.tissues, gas)] = rest.index
    return LabelMap(labels.grid, values, (*labels.organs, rest))


def _with_tumours(
    person: StylisedPerson, organ_labels: LabelMap, asked_g: dict[str, float], number: int, rng: np.random.Generator
) -> tuple[LabelMap, NDArray[np.uint8], dict[str, float]]:
    """Labels, tissues and asked masses with spheres of tumour in the liver, the pancreas and the spine."""
    labels = organ_labels.labels.copy()
    tissues = person.tissues.copy()
    organs = list(organ_labels.organs)
    targets = dict(asked_g)
    diameters = rng.uniform((28, 20, 16, 14, 12, 34), (38, 28, 22, 18, 20, 40))
    spacing = np.asarray(person.grid.spacing_mm[::-1])
    table = [*(tissue.density_g_cm3 for tissue in person.tissue_table), _TUMOUR.density_g_cm3]
    for index in range(number):
        host = person.labels.mask(_HOSTS[index]) & (tissues < len(person.tissue_table))
        owner = "skeleton" if _HOSTS[index] == "lumbar_spine" else _HOSTS[index]
        centre = _seat(host, spacing, diameters[index] / 2, rng)
        half = np.ceil(diameters[index] / spacing).astype(int)
        lower = np.maximum(centre - half, 0)
        where = tuple(slice(int(a), int(b)) for a, b in zip(lower, centre + half + 1, strict=True))
        distance = np.zeros(labels[where].shape)
        for axis in range(3):
            along = (np.arange(labels[where].shape[axis]) + lower[axis] - centre[axis]) * spacing[axis]
            distance = distance + (along**2).reshape([-1 if a == axis else 1 for a in range(3)])
        volume = 4 / 3 * np.pi * (diameters[index] / 20) ** 3
        count = max(1, round(volume / person.grid.voxel_volume_ml))
        distance[~host[where]] = np.inf
        count = min(count, int(np.isfinite(distance).sum()))
        chosen = np.unravel_index(np.argsort(distance, axis=None, kind="stable")[:count], distance.shape)
        lost = np.array([table[t] for t in tissues[where][chosen]]).sum() * person.grid.voxel_volume_ml
        targets[owner] -= float(lost)
        organ = Organ(max(o.index for o in organs) + 1, f"tumour_{index + 1}")
        organs.append(organ)
        labels[where][chosen] = organ.index
        tissues[where][chosen] = len(person.tissue_table)
        targets[organ.name] = volume * _TUMOUR.density_g_cm3
    return LabelMap(person.grid, labels, tuple(organs)), tissues, targets


def _seat(
    host: NDArray[np.bool_], spacing: NDArray[np.float64], radius_mm: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Voxel (k, j, i) in an organ with room for a sphere around it; the roomiest one if there is none."""
    box = ndimage.find_objects(host.astype(np.uint8))[0]
    room = ndimage.distance_transform_edt(np.pad(host[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    seats = np.argwhere(room > min(radius_mm + spacing.max(), room.max() * 0.999))
    return seats[int(rng.integers(len(seats)))] + np.array([part.start for part in box])


def _activity(
    regions: LabelMap,
    density_g_cm3: NDArray[np.float64],
    administered_MBq: float,
    imaged_after_h: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], dict[str, RegionActivity]]:
    """Activity concentration, Bq/ml, on the CT's grid, and the same per region."""
    volume = regions.grid.voxel_volume_ml
    rest = regions.organ(REST_OF_BODY).index
    solid = density_g_cm3 >= GAS_G_CM3
    counts = np.bincount(regions.labels[solid], minlength=rest + 1)
    masses = np.bincount(regions.labels.ravel(), weights=density_g_cm3.ravel(), minlength=rest + 1) * volume
    values = np.zeros(rest + 1, np.float32)
    truth: dict[str, RegionActivity] = {}
    for organ in regions.organs:
        uptake, half_life = _TUMOUR_UPTAKE if organ.name.startswith("tumour_") else _UPTAKE.get(organ.name, _REST_UPTAKE)
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
    return np.where(solid, values[regions.labels], np.float32(0)), truth


def spect_grid(ct: VoxelGrid, spacing_mm: float) -> VoxelGrid:
    """Cubic voxels, 128 columns and rows around the person, not aligned with the CT."""
    count = int(np.ceil(ct.shape[0] * ct.spacing_mm[2] / spacing_mm)) + 4
    middle = ct.to_ras((np.asarray(ct.shape[::-1]) - 1) / 2) + np.array([3.1, -5.3, 1.7])
    size = np.array([128, 128, count])
    origin = middle - ct.directions @ (spacing_mm * (size - 1) / 2)
    return VoxelGrid.from_spacing((count, 128, 128), (spacing_mm,) * 3, origin, ct.directions)
