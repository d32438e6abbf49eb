"""The stations of one patient's way, each from a table of the plan to a value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from ..core import (
    ImageVolume,
    LabelMap,
    Organ,
    Progress,
    ProgressReport,
    SynthDoseError,
    VoxelPhantom,
    resample_labels,
    resample_mean,
    silent,
)
from ..io import read_image, read_labels
from ..kinetics import (
    OrganSource,
    TimeIntegratedActivity,
    activity_from_counts,
    activity_from_suv,
    from_map,
    from_organs,
    time_integrated_activity,
)
from ..phantom import HUCalibration, add_box, build_phantom, read_calibration, schneider_calibration
from ..physics import get_nuclide
from ..segmentation import apply_table, label_table, match_organs, organ_group, segment_tissue, segment_with_bundle
from .plan import ActivityPlan, DosePlan, ImagePlan, OverridePlan, PhantomPlan, RunPlan, SegmentationPlan

AIR_HU = -1000.0
MOST_VOXELS_ALONG = 2000  # of the shortest side: more is a wrong unit
NOMINAL_START = datetime(2000, 1, 1)


def read_ct(plan: ImagePlan) -> ImageVolume:
    """Read the CT of a plan.

    Raises
    ------
    SynthDoseError
        If there is no image, or it is not a CT.
    """
    image = read_image(
        plan.path,
        series=plan.series or None,
        spacing_mm=plan.spacing_mm,
        orientation=plan.orientation or None,
        hu_offset=plan.hu_offset,
        modality=plan.modality or None,
    )
    if image.modality not in ("", "CT"):
        raise SynthDoseError(
            f"[image] is a {image.modality} image; densities come from a CT. Give the CT of the same patient, or state "
            'modality = "CT" if the file is wrong.'
        )
    return image


def segment(plan: SegmentationPlan, ct: ImageVolume, *, device: str = "auto", progress: Progress = silent) -> LabelMap:
    """Find the organs of a CT by one of the three ways of ``[segmentation]``, on the grid of the CT."""
    if plan.path is not None:
        labels = read_segmentation(plan, ct)
    elif plan.bundle:
        labels = segment_with_bundle(
            ct, plan.bundle, organs=plan.organs or None, device=device, progress=progress, download=plan.download
        )
    else:
        labels = segment_tissue(ct, progress=progress)
    for box in plan.box:
        labels = add_box(labels, box.name, box.lower_ras_mm, box.upper_ras_mm)
    return labels


def read_segmentation(plan: SegmentationPlan, ct: ImageVolume) -> LabelMap:
    """Read an existing segmentation, give its labels their organ names, and bring it to the grid of the CT."""
    assert plan.path is not None
    raw = read_labels(
        plan.path,
        reference=ct.grid,
        reference_image=ct,
        segments=plan.organs or None,
        spacing_mm=plan.spacing_mm,
        orientation=plan.orientation or None,
    )
    if not plan.labels:
        return match_organs(raw)
    table = label_table(plan.labels)
    return apply_table(_only_listed(raw, table) if plan.unlisted == "background" else raw, table)


def _only_listed(raw: LabelMap, table: Mapping[int, Organ]) -> LabelMap:
    """Turn labels that the table does not list into background."""
    kept = tuple(organ for organ in raw.organs if organ.index in table)
    listed = np.isin(raw.labels, [organ.index for organ in kept])
    dropped = len(raw.organs) - len(kept)
    note = f"{dropped} label values that the label table does not list are background, as the plan says."
    return LabelMap(raw.grid, np.where(listed, raw.labels, np.uint16(0)), kept, (*raw.notes, note) if dropped else raw.notes)


def to_dose_grid(plan: DosePlan, ct: ImageVolume, labels: LabelMap) -> tuple[ImageVolume, LabelMap]:
    """Bring CT (mean over the new voxel) and labels to the voxels that the dose is wanted in."""
    if plan.voxel_mm is None:
        return ct, labels
    extent = min(n * spacing for n, spacing in zip(ct.grid.shape[::-1], ct.grid.spacing_mm, strict=True))
    if not (extent / MOST_VOXELS_ALONG <= plan.voxel_mm <= extent):
        raise SynthDoseError(
            f"[dose] voxel_mm = {plan.voxel_mm:g} does not suit the CT, whose shortest side is {extent:g} mm. "
            f"Its own voxels are {' x '.join(f'{s:g}' for s in ct.grid.spacing_mm)} mm; 2 to 5 mm is usual."
        )
    grid = ct.grid.with_spacing((plan.voxel_mm,) * 3)
    values = resample_mean(ct.values, ct.grid, grid, fill=AIR_HU)
    return dataclasses.replace(ct, grid=grid, values=values), resample_labels(labels, grid)


def make_phantom(plan: PhantomPlan, ct: ImageVolume, labels: LabelMap) -> VoxelPhantom:
    """Give every voxel a material and a density."""
    return build_phantom(
        ct,
        labels,
        calibration=_calibration(plan.calibration),
        overrides={organ: _override(organ, entry) for organ, entry in plan.overrides.items()},
        metal=plan.metal_material or None,
    )


def _override(organ: str, entry: OverridePlan) -> dict[str, str | float]:
    given = {key: value for key, value in dataclasses.asdict(entry).items() if value}
    if not given:
        raise SynthDoseError(f"[phantom.overrides.{organ}] needs material, density_g_cm3, or both.")
    return given


def _calibration(name: str) -> HUCalibration:
    if name == "schneider":
        return schneider_calibration()
    if name.endswith(".csv"):
        return read_calibration(name)
    raise SynthDoseError(f"[phantom] calibration is '{name}'. Allowed: schneider, or a CSV file with columns hu,density_g_cm3.")


def members(organ: str, labels: LabelMap) -> tuple[str, ...]:
    """Names of the labels that `organ` stands for: itself, or the members of a group such as kidneys.

    Raises
    ------
    SynthDoseError
        If there is no such label, or all of them are empty.
    """
    counts = labels.voxel_counts()
    named = (organ,) if organ in counts else tuple(name for name in organ_group(organ) if name in counts)
    if not named:
        labels.organ(organ)  # raises, naming the organs there are
    filled = tuple(name for name in named if counts[name])
    if not filled:
        raise SynthDoseError(f"The plan names the organ '{organ}', which is empty in the segmentation.")
    return filled


def groups_of(labels: LabelMap, wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Members of those names in `wanted` that are groups and not labels themselves."""
    counts = labels.voxel_counts()
    return {name: members(name, labels) for name in wanted if name not in counts}


def time_integrate(plan: RunPlan, phantom: VoxelPhantom) -> tuple[TimeIntegratedActivity, ImageVolume | None]:
    """Decays per voxel from administration to infinity, and the activity image if there is one."""
    nuclide = get_nuclide(plan.therapy.nuclide)
    labels = phantom.labels
    administered = plan.therapy.administered_MBq
    if plan.organ_activity:
        sources = [OrganSource(**dataclasses.asdict(row)) for row in plan.organ_activity]
        groups = groups_of(labels, [row.organ for row in plan.organ_activity])
        tia = from_organs(
            sources,
            labels,
            physical_half_life_s=nuclide.half_life_s,
            administered_MBq=administered,
            groups=groups,
        )
        return tia, None
    entry = plan.activity[0]
    image = _read_activity(entry)
    if entry.tia_MBq_s is not None:
        return from_map(image, labels, administered_MBq=administered, negative=entry.negative), None
    administered_at, acquired_at, administered = _times(plan, image, administered)
    image = _to_concentration(entry, image, administered, administered_at, acquired_at, nuclide.half_life_s)
    kinetics = plan.kinetics
    named = [*kinetics.effective_half_life_h, *kinetics.biological_half_life_h]
    tia = time_integrated_activity(
        image,
        labels,
        physical_half_life_s=nuclide.half_life_s,
        administered_at=administered_at,
        effective_half_life_h=kinetics.effective_half_life_h,
        biological_half_life_h=kinetics.biological_half_life_h,
        rest_effective_half_life_h=kinetics.rest_effective_half_life_h,
        groups=groups_of(labels, named),
        acquired_at=acquired_at,
        administered_MBq=administered,
        negative=entry.negative,
    )
    return tia, image


def _read_activity(entry: ActivityPlan) -> ImageVolume:
    path = entry.tia_MBq_s or entry.path
    assert path is not None
    image = read_image(
        path,
        series=entry.series or None,
        spacing_mm=entry.spacing_mm,
        orientation=entry.orientation or None,
    )
    return dataclasses.replace(image, unit=entry.unit) if entry.unit else image


def _times(plan: RunPlan, image: ImageVolume, administered: float | None) -> tuple[datetime, datetime, float | None]:
    """Times of administration and scan, from the plan or else from the image; what is missing is asked for by name."""
    entry = plan.activity[0]
    administered_at = plan.therapy.administered_at or image.metadata.get("injected_at")
    if entry.hours_after_administration is not None:
        start = administered_at or NOMINAL_START  # only the time between the two counts
        acquired_at = start + timedelta(hours=entry.hours_after_administration)
        return start, acquired_at, administered or image.metadata.get("injected_activity_MBq")
    acquired_at = entry.acquired_at or image.acquired_at
    lacking = []
    if administered_at is None:
        lacking.append("[therapy] administered_at (the image does not say when the activity was given)")
    if acquired_at is None:
        lacking.append("[[activity]] acquired_at or hours_after_administration (the image does not say when it was taken)")
    if lacking or administered_at is None or acquired_at is None:
        raise SynthDoseError(f"Please add to the plan: {'; '.join(lacking)}.")
    return administered_at, acquired_at, administered or image.metadata.get("injected_activity_MBq")


def _to_concentration(
    entry: ActivityPlan,
    image: ImageVolume,
    administered: float | None,
    administered_at: datetime,
    acquired_at: datetime,
    half_life_s: float,
) -> ImageVolume:
    if image.unit == "Bq/ml":
        return image
    if image.unit == "g/ml":
        weight = entry.patient_weight_kg or image.metadata.get("patient_weight_kg")
        lacking = [] if administered else ["[therapy] administered_MBq"]
        lacking += [] if weight else ["[[activity]] patient_weight_kg"]
        if not weight or not administered:
            raise SynthDoseError(
                f"The activity image is in SUV (g/ml) and its file lacks what turns it into Bq/ml: {', '.join(lacking)}. "
                "Add it to the plan."
            )
        return activity_from_suv(
            image,
            injected_MBq=administered,
            weight_kg=weight,
            seconds_since_injection=(acquired_at - administered_at).total_seconds(),
            physical_half_life_s=half_life_s,
        )
    if entry.sensitivity_cps_per_MBq and entry.duration_s:
        return activity_from_counts(image, sensitivity_cps_per_MBq=entry.sensitivity_cps_per_MBq, duration_s=entry.duration_s)
    raise SynthDoseError(
        f'The unit of the activity image is {image.unit or "not stated"}. Give [[activity]] unit = "Bq/ml" if that is what '
        "it holds, or sensitivity_cps_per_MBq and duration_s to calibrate counts."
    )


def describe_masses(phantom: VoxelPhantom) -> str:
    """Table of volume and mass per organ, for people."""
    counts, masses = phantom.labels.voxel_counts(), phantom.mass_g()
    lines = [f"{'organ':<28}{'volume / ml':>14}{'mass / g':>14}"]
    for organ, mass in masses.items():
        lines.append(f"{organ:<28}{counts[organ] * phantom.grid.voxel_volume_ml:>14.1f}{mass:>14.1f}")
    return "\n".join(lines)


def mass_rows(phantom: VoxelPhantom) -> list[tuple[str, str, str, str]]:
    """Rows organ, volume_ml, mass_g, mean density_g_cm3 as text for a CSV file."""
    counts, masses = phantom.labels.voxel_counts(), phantom.mass_g()
    rows = []
    for organ, mass in masses.items():
        volume = counts[organ] * phantom.grid.voxel_volume_ml
        density = mass / volume if volume else math.nan
        rows.append((organ, f"{volume:.6g}", f"{mass:.6g}", f"{density:.6g}" if volume else ""))
    return rows


def report_stage(progress: Progress, stage: str, fraction: float, message: str = "") -> None:
    """Tell the caller that a stage without finer steps has begun (0) or ended (1)."""
    progress(ProgressReport(stage, fraction, None, message))
