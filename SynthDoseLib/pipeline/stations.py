"""The stations of one patient's way, each from a table of the plan to a value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..core import (
    ImageVolume,
    LabelMap,
    Organ,
    Progress,
    ProgressReport,
    SynthDoseError,
    VoxelGrid,
    VoxelPhantom,
    resample_mean,
    silent,
)
from ..io import read_image, read_labels
from ..phantom import (
    HUCalibration,
    PatientFacts,
    add_box,
    assign_tissues,
    build_phantom,
    person_of,
    read_calibration,
    schneider_calibration,
)
from ..segmentation import (
    BundleOptions,
    SegmentedImage,
    apply_table,
    inspect_labels,
    label_table,
    match_organs,
    organ_group,
    segment_image,
    segment_tissue,
)
from .mesh_labels import mesh_files, read_mesh_labels
from .plan import DosePlan, ImagePlan, OverridePlan, PatientPlan, PhantomPlan, SegmentationPlan

AIR_HU = -1000.0
MOST_VOXELS_ALONG = 2000  # of the shortest side: more is a wrong unit


def read_any_image(plan: ImagePlan) -> ImageVolume:
    """Read the image of a plan, whatever its modality."""
    return read_image(
        plan.path,
        series=plan.series or None,
        spacing_mm=plan.spacing_mm,
        orientation=plan.orientation or None,
        hu_offset=plan.hu_offset,
        modality=plan.modality or None,
    )


def read_ct(plan: ImagePlan, *, any_modality: bool = False) -> ImageVolume:
    """Read the CT of a plan, or whatever image it is if tissues are assigned by label (`any_modality`).

    Raises
    ------
    SynthDoseError
        If there is no image, or it is not a CT where one is needed.
    """
    image = read_any_image(plan)
    if image.modality not in ("", "CT") and not any_modality:
        raise SynthDoseError(
            f"[image] is a {image.modality} image; densities come from a CT. Give the CT of the same patient, state "
            'modality = "CT" if the file is wrong, or have tissues assigned by label: [phantom] materials = "labels".'
        )
    return image


def segment(plan: SegmentationPlan, ct: ImageVolume, *, device: str = "auto", progress: Progress = silent) -> LabelMap:
    """Find the organs of a CT by one of the three ways of ``[segmentation]``, on the grid of the CT."""
    return find_organs(plan, ct, device=device, progress=progress).labels


def find_organs(
    plan: SegmentationPlan, image: ImageVolume, *, device: str = "auto", progress: Progress = silent
) -> SegmentedImage:
    """As `segment`, with the uncertainty of the organs where a bundle was asked for it."""
    if plan.path is not None:
        found = SegmentedImage(inspect_labels(read_segmentation(plan, image), image))
    elif plan.bundle:
        options = BundleOptions(
            organs=plan.organs,
            device=device,
            max_memory_bytes=int(plan.memory_GB * 1e9) if plan.memory_GB else None,
            overrides=plan.overrides,
            download=plan.download,
            trusted=plan.trusted,
            clean=plan.clean,
            samples=plan.uncertainty,
            ensemble=plan.ensemble,
        )
        found = segment_image(image, plan.bundle, options, progress=progress)
    else:
        found = SegmentedImage(inspect_labels(segment_tissue(image, progress=progress), image))
    labels = found.labels
    for box in plan.box:
        labels = add_box(labels, box.name, box.lower_ras_mm, box.upper_ras_mm)
    return dataclasses.replace(found, labels=labels)


def read_segmentation(plan: SegmentationPlan, ct: ImageVolume | None) -> LabelMap:
    """Read an existing segmentation, give its labels their organ names, and bring it to the grid of the CT, if there is one.

    Besides what `read_labels` reads, surfaces: a mesh file, or a folder of them, named like the organs.
    """
    assert plan.path is not None
    if meshes := mesh_files(plan.path):
        if ct is None:
            raise SynthDoseError("Meshes have no voxels: give the image that they belong to as well.")
        return match_organs(read_mesh_labels(meshes, ct.grid))
    raw = read_labels(
        plan.path,
        reference=None if ct is None else ct.grid,
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


def dose_grid(plan: DosePlan, grid: VoxelGrid) -> VoxelGrid:
    """Voxels that the dose is wanted in: those of the image, or cubes of ``voxel_mm`` with the same axes.

    Raises
    ------
    SynthDoseError
        If the voxel size does not suit the image.
    """
    return grid if plan.voxel_mm is None else cubic_grid(grid, plan.voxel_mm, "[dose] voxel_mm")


def cubic_grid(grid: VoxelGrid, voxel_mm: float, said: str) -> VoxelGrid:
    """Cubes of `voxel_mm` that cover `grid`; `said` is where the size comes from, for the message."""
    extent = min(n * spacing for n, spacing in zip(grid.shape[::-1], grid.spacing_mm, strict=True))
    if not (extent / MOST_VOXELS_ALONG <= voxel_mm <= extent):
        raise SynthDoseError(
            f"{said} = {voxel_mm:g} does not suit the CT, whose shortest side is {extent:g} mm. "
            f"Its own voxels are {' x '.join(f'{s:g}' for s in grid.spacing_mm)} mm; 2 to 5 mm is usual."
        )
    return grid.with_spacing((voxel_mm,) * 3)


def on_grid(image: ImageVolume, grid: VoxelGrid) -> ImageVolume:
    """Bring an image to other voxels: the mean over each of them."""
    if image.grid.matches(grid):
        return image
    fill = AIR_HU if image.modality in ("", "CT") else 0.0
    return dataclasses.replace(image, grid=grid, values=resample_mean(image.values, image.grid, grid, fill=fill))


def make_phantom(plan: PhantomPlan, image: ImageVolume, labels: LabelMap) -> VoxelPhantom:
    """Give every voxel of the image a material and a density, by CT number or by label."""
    overrides = {organ: _override(organ, entry) for organ, entry in plan.overrides.items()}
    if plan.materials == "labels":
        return assign_tissues(labels, image=image, overrides=overrides)
    return build_phantom(
        image,
        labels,
        calibration=_calibration(plan.calibration),
        overrides=overrides,
        metal=plan.metal_material or None,
        density=plan.density,
        contrast=plan.contrast,
    )


def patient_facts(plan: PatientPlan, image: ImageVolume | None) -> PatientFacts:
    """Whom a phantom is compared with: what the plan says, otherwise what the image says."""
    known = PatientFacts() if image is None else person_of(image)
    return PatientFacts(
        plan.sex or known.sex,
        known.age_y if plan.age_y is None else plan.age_y,
        known.height_m if plan.height_m is None else plan.height_m,
        known.weight_kg if plan.weight_kg is None else plan.weight_kg,
    )


def _override(organ: str, entry: OverridePlan) -> dict[str, str | float]:
    given = {key: value for key, value in dataclasses.asdict(entry).items() if value not in ("", None)}
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
