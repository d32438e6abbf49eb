"""From the activity images of a plan to decays per voxel: read, repaired, calibrated, registered, integrated."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, Progress, SynthDoseError, VoxelGrid, VoxelPhantom, silent
from ..io import ActivityField, activity_fields, read_image
from ..kinetics import (
    SUV_UNITS,
    OrganSource,
    Registration,
    SpatialTransform,
    TimeCourse,
    TimeCourseOptions,
    TimeIntegratedActivity,
    activity_from_counts,
    activity_from_suv,
    fit_recovery,
    from_map,
    from_organs,
    from_to_parent,
    integrate_time_points,
    moved_image,
    read_transform,
    register,
    retention_warnings,
    same_frame,
    time_integrated_activity,
    tissue_share,
    to_scan_time,
)
from ..kinetics.convert import hours_between
from ..kinetics.recovery import RecoveryCurve
from ..kinetics.values import REST
from ..physics import Nuclide, get_nuclide
from .activity_plan import ActivityPlan, KineticsPlan, needs_curves
from .plan import RunPlan
from .stage_store import Stages
from .stations import groups_of

NOMINAL_START = datetime(2000, 1, 1)
HALF_LIFE_AGREES = 0.02
OVERRIDES = (
    "acquired_at",
    "decay_correction",
    "duration_s",
    "sensitivity_cps_per_MBq",
    "patient_weight_kg",
    "patient_height_m",
    "patient_sex",
)


@dataclass(frozen=True, eq=False)
class TimePoint:
    """One activity image on its way.

    Attributes
    ----------
    image : ImageVolume
        Bq/ml, registered to the CT.
    hours : float
        Start of the acquisition after administration.
    registration : Registration or None
        None where there was nothing to decide.
    fields : tuple of ActivityField
    """

    image: ImageVolume
    hours: float
    registration: Registration | None
    fields: tuple[ActivityField, ...]


@dataclass(frozen=True, eq=False)
class ActivityResult:
    """What `time_integrate` found.

    Attributes
    ----------
    tia : TimeIntegratedActivity
    points : tuple of TimePoint
        Empty for maps and numbers per organ.
    course : TimeCourse or None
        Of several time points.
    """

    tia: TimeIntegratedActivity
    points: tuple[TimePoint, ...] = ()
    course: TimeCourse | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the images before they were integrated."""
        return tuple(dict.fromkeys(note for point in self.points for note in point.image.notes))

    @property
    def source_files(self) -> tuple[str, ...]:
        """Files of all images."""
        return tuple(name for point in self.points for name in point.image.source_files)


def time_integrate(
    plan: RunPlan,
    phantom: VoxelPhantom,
    ct: ImageVolume | None = None,
    progress: Progress = silent,
    stages: Stages | None = None,
) -> ActivityResult:
    """Decays per voxel from administration to infinity, and the activity images if there are any.

    Activity that images show in the gas of the body is moved to the tissue around, unless the plan wants it kept.

    Parameters
    ----------
    plan : RunPlan
    phantom : VoxelPhantom
    ct : ImageVolume, optional
        The reference that time points are registered to.
    progress : callable
    stages : Stages, optional
        Registrations and fits of time courses are taken from there if nothing that decides them has changed.

    Raises
    ------
    SynthDoseError
        If images, times or calibration are missing or make no sense; what can be repaired in the plan is named.
    """
    stages = stages or Stages()
    nuclide = get_nuclide(plan.therapy.nuclide)
    labels, kinetics = phantom.labels, plan.kinetics
    administered = plan.therapy.administered_MBq
    body, tissue = phantom.density_g_cm3 > 0, tissue_of(kinetics, phantom)
    if plan.organ_activity:
        sources = [OrganSource(**dataclasses.asdict(row)) for row in plan.organ_activity]
        groups = groups_of(labels, [row.organ for row in plan.organ_activity])
        even = from_organs(
            sources,
            labels,
            physical_half_life_s=nuclide.half_life_s,
            administered_MBq=administered,
            groups=groups,
            tissue=tissue,
        )
        return ActivityResult(even)
    if plan.activity[0].tia_MBq_s is not None:
        entry = plan.activity[0]
        image = _read_activity(entry, {}, {})
        return ActivityResult(
            from_map(image, labels, body=body, tissue=tissue, administered_MBq=administered, negative=entry.negative)
        )
    points, start, administered, remarkable = _time_points(plan, phantom, ct, nuclide.half_life_s, progress, stages)
    if needs_curves(kinetics, plan.activity):
        images, hours = [point.image for point in points], [point.hours for point in points]
        decisive: dict[str, Any] = {
            "physical_half_life_s": nuclide.half_life_s,
            "options": course_options(kinetics, phantom),
            "body": body,
            "tissue": tissue,
            "administered_MBq": administered,
            "negative": "zero" if any(entry.negative == "zero" for entry in plan.activity) else "refuse",
        }
        course = stages.take(
            "activity", (images, hours, labels, decisive), partial(integrate_time_points, images, hours, labels, **decisive)
        )
        return ActivityResult(_with_warnings(course.tia, points, nuclide, remarkable), tuple(points), course)
    named = [*kinetics.effective_half_life_h, *kinetics.biological_half_life_h]
    tia = time_integrated_activity(
        points[0].image,
        labels,
        physical_half_life_s=nuclide.half_life_s,
        administered_at=start,
        effective_half_life_h=kinetics.effective_half_life_h,
        biological_half_life_h=kinetics.biological_half_life_h,
        rest_effective_half_life_h=kinetics.rest_effective_half_life_h,
        groups=groups_of(labels, named),
        body=body,
        tissue=tissue,
        acquired_at=start + timedelta(hours=points[0].hours),
        administered_MBq=administered,
        negative=plan.activity[0].negative,
    )
    return ActivityResult(_with_warnings(tia, points, nuclide, remarkable), tuple(points))


def _with_warnings(
    tia: TimeIntegratedActivity, points: Sequence[TimePoint], nuclide: Nuclide, remarkable: Sequence[str]
) -> TimeIntegratedActivity:
    """Put what registrations, the nuclides of the headers and whole images (`remarkable`) have to say before other notes."""
    notes = [note for point in points if point.registration for note in point.registration.notes]
    warnings = [text for point in points if point.registration for text in point.registration.warnings]
    others = dict.fromkeys(text for point in points if (text := _other_nuclide(point.image, nuclide)))
    notes, warnings = [*notes, *others, *remarkable], [*warnings, *others, *remarkable]
    return dataclasses.replace(tia, notes=(*notes, *tia.notes), warnings=(*warnings, *tia.warnings))


def _other_nuclide(image: ImageVolume, nuclide: Nuclide) -> str:
    """What to say if the header of an image names another nuclide than the plan, or another half-life of it; "" if not."""
    said, half_life_s = str(image.metadata.get("radionuclide", "")), image.metadata.get("half_life_s")
    if said and said != nuclide.name:
        return (
            f"The activity image was acquired as {said}, the plan says {nuclide.name}: calibration, emission probability and "
            f"decay corrections of the scanner are those of {said}. Check that it is meant."
        )
    if half_life_s and abs(half_life_s / nuclide.half_life_s - 1) > HALF_LIFE_AGREES:
        return (
            f"The activity image was acquired with a half-life of {half_life_s:g} s; that of {nuclide.name} is "
            f"{nuclide.half_life_s:g} s: the decay corrections of the scanner are wrong, or it was another nuclide."
        )
    return ""


def _time_points(
    plan: RunPlan, phantom: VoxelPhantom, ct: ImageVolume | None, half_life_s: float, progress: Progress, stages: Stages
) -> tuple[list[TimePoint], datetime, float | None, tuple[str, ...]]:
    """Read, date, calibrate and register every [[activity]]; say what is remarkable about their activity as a whole."""
    images, overrides = [], []
    for entry in plan.activity:
        given = {name: getattr(entry, name) for name in OVERRIDES if getattr(entry, name) not in (None, "")}
        # a PET corrected to its injection was corrected to the one of its header
        therapy = {"injected_at": plan.therapy.administered_at, "injected_activity_MBq": plan.therapy.administered_MBq}
        therapy = {name: value for name, value in therapy.items() if value is not None}
        images.append(_read_activity(entry, given, therapy))
        overrides.append({**therapy, **given, **({"unit": entry.unit} if entry.unit else {})})
    start, hours, administered = _times(plan, images)
    fields = [activity_fields(image, given) for image, given in zip(images, overrides, strict=True)]
    ready = [
        _to_concentration(entry, image, administered, time, half_life_s)
        for entry, image, time in zip(plan.activity, images, hours, strict=True)
    ]
    decisive = (
        [(entry.registration, entry.transform, entry.transform_ras, entry.ct) for entry in plan.activity],
        (plan.kinetics.registration, ready, ct, phantom.grid),
    )
    registrations = stages.take(
        "activity", decisive, partial(_register_all, plan, ready, ct, phantom.grid, progress), part="registration"
    )
    points = [
        TimePoint(moved_image(image, found.transform) if found else image, time, found, table)
        for image, time, found, table in zip(ready, hours, registrations, fields, strict=True)
    ]
    remarkable = retention_warnings(ready, hours, physical_half_life_s=half_life_s, administered_MBq=administered)
    return points, start, administered, remarkable


def _read_activity(entry: ActivityPlan, overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> ImageVolume:
    path = entry.tia_MBq_s or entry.path
    assert path is not None
    image = read_image(
        path,
        series=entry.series or None,
        spacing_mm=entry.spacing_mm,
        orientation=entry.orientation or None,
        overrides=overrides,
        defaults=defaults,
    )
    return dataclasses.replace(image, unit=entry.unit) if entry.unit else image


def _times(plan: RunPlan, images: Sequence[ImageVolume]) -> tuple[datetime, list[float], float | None]:
    """Administration, hours of every scan after it, and administered activity: from the plan or else from the images."""
    says = [image.metadata.get("injected_at") for image in images]
    start = plan.therapy.administered_at or next((t for t in says if t is not None), None)
    _require_one_zone(images, start)
    administered = plan.therapy.administered_MBq or next(
        (a for image in images if (a := image.metadata.get("injected_activity_MBq"))), None
    )
    hours: list[float] = []
    lacking: list[str] = []
    for number, (entry, image) in enumerate(zip(plan.activity, images, strict=True), start=1):
        which = f" of time point {number}" if len(images) > 1 else ""
        if entry.hours_after_administration is not None:
            hours.append(entry.hours_after_administration)
            continue
        acquired_at = entry.acquired_at or image.acquired_at
        if start is None:
            lacking.append("[therapy] administered_at (the image does not say when the activity was given)")
        if acquired_at is None:
            lacking.append(
                f"[[activity]] acquired_at or hours_after_administration{which} (the image does not say when it was taken)"
            )
        if start is not None and acquired_at is not None:
            hours.append(hours_between(start, _in_zone(acquired_at, start, image)))
    if lacking:
        raise SynthDoseError(f"Please add to the plan: {'; '.join(dict.fromkeys(lacking))}.")
    return start or NOMINAL_START, hours, administered


def _require_one_zone(images: Sequence[ImageVolume], start: datetime | None) -> None:
    """Refuse times of several zones that cannot be compared because that of the administration is not known."""
    offsets = sorted({zone for image in images if (zone := str(image.metadata.get("timezone_offset", "")))})
    if len(offsets) > 1 and start is not None and start.tzinfo is None:
        raise SynthDoseError(
            f"The activity images are in different time zones ({', '.join(offsets)} from UTC; summer time changes it too). "
            f"Write [therapy] administered_at with its own, for example {start.isoformat()}{offsets[0][:3]}:{offsets[0][3:]}."
        )


def _in_zone(acquired_at: datetime, start: datetime, image: ImageVolume) -> datetime:
    """Give a time of the header its zone where the administration has one."""
    offset = str(image.metadata.get("timezone_offset", ""))
    if start.tzinfo is None or acquired_at.tzinfo is not None or not offset:
        return acquired_at
    return datetime.fromisoformat(f"{acquired_at.isoformat()}{offset[:3]}:{offset[3:]}")


def _to_concentration(
    entry: ActivityPlan, image: ImageVolume, administered: float | None, hours: float, half_life_s: float
) -> ImageVolume:
    if image.unit == "Bq/ml":
        # a PET was brought to its scan by the reader; other images are as the plan says
        if image.modality != "PT" and entry.decay_correction:
            return to_scan_time(
                image,
                correction=entry.decay_correction,
                seconds_since_injection=hours * 3600,
                physical_half_life_s=half_life_s,
            )
        return image
    kind = entry.suv or next((name for name, unit in SUV_UNITS.items() if unit == image.unit), "")
    if image.unit.startswith("g/ml"):
        return _from_suv(entry, image, kind, administered, hours, half_life_s)
    duration = entry.duration_s or image.metadata.get("duration_s")
    if entry.sensitivity_cps_per_MBq and duration:
        return activity_from_counts(
            image,
            sensitivity_cps_per_MBq=entry.sensitivity_cps_per_MBq,
            duration_s=duration,
            physical_half_life_s=half_life_s,
        )
    raise SynthDoseError(
        f'The unit of the activity image is {image.unit or "not stated"}. Give [[activity]] unit = "Bq/ml" if that is what '
        "it holds, or sensitivity_cps_per_MBq and duration_s to calibrate counts."
    )


def _from_suv(
    entry: ActivityPlan, image: ImageVolume, kind: str, administered: float | None, hours: float, half_life_s: float
) -> ImageVolume:
    says = image.metadata
    weight = entry.patient_weight_kg or says.get("patient_weight_kg")
    height = entry.patient_height_m or says.get("patient_height_m")
    lacking = [] if administered else ["[therapy] administered_MBq"]
    lacking += [] if weight else ["[[activity]] patient_weight_kg"]
    lacking += [] if kind else [f"[[activity]] suv ({', '.join(SUV_UNITS)}: the file says {image.unit})"]
    lacking += ["[[activity]] patient_height_m"] if kind.startswith("lbm") and not height else []
    if not weight or not administered or lacking:
        raise SynthDoseError(
            f"The activity image is in SUV (g/ml) and its file lacks what turns it into Bq/ml: {', '.join(lacking)}. "
            "Add it to the plan."
        )
    return activity_from_suv(
        image,
        injected_MBq=administered,
        weight_kg=weight,
        seconds_since_injection=hours * 3600,
        physical_half_life_s=half_life_s,
        kind=kind,
        height_m=height,
        sex=entry.patient_sex or str(says.get("patient_sex", "")),
    )


def _register_all(
    plan: RunPlan, images: Sequence[ImageVolume], ct: ImageVolume | None, grid: VoxelGrid, progress: Progress
) -> list[Registration | None]:
    """One registration per image: given, by its own CT, or by the activity of the image that lies on the CT."""
    anchor = next((n for n, image in enumerate(images) if ct is not None and same_frame(ct, image)), 0)
    found: list[Registration | None] = []
    for number, (entry, image) in enumerate(zip(plan.activity, images, strict=True)):
        what = f"Time point {number + 1}" if len(images) > 1 else "The activity image"
        found.append(_register_one(plan, entry, image, images[anchor], number == anchor, ct, grid, what, progress))
    return found


def _register_one(
    plan: RunPlan,
    entry: ActivityPlan,
    image: ImageVolume,
    reference: ImageVolume,
    is_reference: bool,
    ct: ImageVolume | None,
    grid: VoxelGrid,
    what: str,
    progress: Progress,
) -> Registration | None:
    if entry.transform_ras or entry.transform is not None:
        return _given(entry, grid, what)
    method = entry.registration or plan.kinetics.registration
    if entry.ct is not None and ct is not None:
        own_ct = read_image(entry.ct, modality="CT")
        chosen = "rigid" if method == "auto" else method
        return register(
            dataclasses.replace(ct, modality="CT"), own_ct, method=chosen, what=f"{what} (by its CT)", progress=progress
        )
    if ct is not None and same_frame(ct, image):
        return register(ct, dataclasses.replace(image, modality=ct.modality), method="none", what=what)
    if is_reference:
        return None
    if method == "auto":
        frames = [str(i.metadata.get("frame_of_reference_uid") or "") for i in (reference, image)]
        if not all(frames):
            note = f"{what} does not name its frame of reference: its coordinates were taken as they are."
            return Registration(SpatialTransform(), "none", None, True, (note,))
        method = "rigid"
    return register(reference, image, method=method, what=what, progress=progress)


def _given(entry: ActivityPlan, grid: VoxelGrid, what: str) -> Registration:
    if entry.transform is not None:
        transform = read_transform(entry.transform, grid)
    else:
        transform = from_to_parent([entry.transform_ras[4 * n : 4 * n + 4] for n in range(4)])
    return Registration(transform, "given", None, True, (f"{what}: the transform of the plan was used.",))


def tissue_of(kinetics: KineticsPlan, phantom: VoxelPhantom) -> NDArray[np.float32] | None:
    """Share of every voxel that is tissue and may hold activity; None if gas may, too."""
    return None if kinetics.activity_in_gas == "keep" else tissue_share(phantom)


def course_options(kinetics: KineticsPlan, phantom: VoxelPhantom) -> TimeCourseOptions:
    """How ``[kinetics]`` wants activities integrated."""
    labels = phantom.labels
    wanted = [*kinetics.effective_half_life_h, *kinetics.half_life_sigma_h, *kinetics.shared_organs]
    groups = groups_of(labels, [name for name in wanted if name != REST])
    half_lives = _per_member(kinetics.effective_half_life_h, groups)
    if kinetics.rest_effective_half_life_h is not None:
        half_lives[REST] = kinetics.rest_effective_half_life_h
    shared = tuple(member for name in kinetics.shared_organs for member in groups.get(name, (name,)))
    return TimeCourseOptions(
        method=kinetics.method,
        models=kinetics.models,
        average=kinetics.average,
        relative_sigma=kinetics.relative_sigma or None,
        noise_fwhm_mm=kinetics.noise_fwhm_mm,
        fixed=kinetics.fixed,
        shared=kinetics.shared,
        shared_regions=shared,
        start=kinetics.start,
        tail=kinetics.tail,
        half_life_h=half_lives,
        half_life_sigma_h=_per_member(kinetics.half_life_sigma_h, groups),
        voxelwise=kinetics.voxelwise,
        voxel_model=kinetics.voxel_model,
        recovery=None if kinetics.recovery is None else read_recovery(kinetics.recovery, kinetics.recovery_form),
        blur_relative_sigma=kinetics.blur_relative_sigma,
        calibration_relative_sigma=kinetics.calibration_relative_sigma,
    )


def _per_member(values: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    result = {member: value for name, value in values.items() for member in groups.get(name, ())}
    return result | {name: value for name, value in values.items() if name not in groups}


def read_recovery(path: Path, form: str) -> RecoveryCurve:
    """Fit the recovery coefficients of a CSV file with the columns volume_ml, recovery and, if known, sigma.

    Raises
    ------
    SynthDoseError
        If the file cannot be read or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise SynthDoseError(f"Cannot read the recovery coefficients {path}: {error}.") from error
    try:
        volumes = [float(row["volume_ml"]) for row in rows]
        values = [float(row["recovery"]) for row in rows]
        sigmas = [float(row["sigma"]) for row in rows] if rows and rows[0].get("sigma") else None
    except (KeyError, TypeError, ValueError) as error:
        raise SynthDoseError(
            f"{path} has to hold numbers in the columns volume_ml, recovery and, if known, sigma ({error})."
        ) from error
    return fit_recovery(volumes, values, sigmas, form=form)
