"""``synthdose phantom``: from an image and its labels to a folder with a checked phantom."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core import ImageVolume, LabelMap, Progress, SynthDoseError, VoxelPhantom, computer, silent, versions
from ..io import atomic_folder, write_segmentation, write_volume
from ..io.folder import write_csv
from ..phantom import PhantomQuality, assess_phantom, assign_tissues, regrid_phantom
from .phantom_exports import check_exports, export_phantom
from .plan import ImagePlan, PhantomPlan, SegmentationPlan, check_phantom
from .quality_report import PHANTOM_JSON, QUALITY_PAGE, phantom_record, write_phantom_json, write_quality_page
from .run_folder import hash_files, require_folder, require_writable
from .stations import (
    cubic_grid,
    describe_masses,
    make_phantom,
    mass_rows,
    on_grid,
    patient_facts,
    read_ct,
    read_segmentation,
    report_stage,
    segment,
)

MASSES_CSV = "masses.csv"


@dataclass(frozen=True)
class PhantomRequest:
    """What `write_phantom_folder` is to make.

    Attributes
    ----------
    image : ImagePlan
        CT; with ``materials = "labels"`` any image, or the label map itself if there is no segmentation.
    segmentation : SegmentationPlan or None
    phantom : PhantomPlan
    voxel_mm : float or None
        Edge of cubic voxels; those of the image if not given.
    exports : tuple of str
        See `phantom_exports.EXPORTS`.
    labels : str
        Label table of the image, where it is itself the label map.
    """

    image: ImagePlan
    segmentation: SegmentationPlan | None
    phantom: PhantomPlan = field(default_factory=PhantomPlan)
    voxel_mm: float | None = None
    exports: tuple[str, ...] = ()
    labels: str = ""


@dataclass(frozen=True, eq=False)
class PhantomFolder:
    """A phantom that was written.

    Attributes
    ----------
    folder : Path
    phantom : VoxelPhantom
    quality : PhantomQuality
    seconds : dict of str to float
        Wall time per stage.
    """

    folder: Path
    phantom: VoxelPhantom
    quality: PhantomQuality
    seconds: dict[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """Masses, notes and verdict, for people."""
        notes = dict.fromkeys((*self.phantom.notes, *self.phantom.labels.notes))
        pages = f"Table and pictures: {self.folder / QUALITY_PAGE}"
        return "\n".join([describe_masses(self.phantom), *notes, self.quality.describe(), pages])


def write_phantom_folder(
    request: PhantomRequest, out: Path, *, overwrite: bool = False, progress: Progress = silent
) -> PhantomFolder:
    """Build a phantom, judge it, and write it with its verdict and exports; nothing is left behind if it fails.

    Parameters
    ----------
    request : PhantomRequest
    out : Path
        Folder for ``density.nrrd``, ``materials.nrrd``, ``labels.seg.nrrd``, ``masses.csv``, ``phantom.json``,
        ``quality.html`` and one folder per export.
    overwrite : bool
        Replace an earlier phantom there.
    progress : callable

    Raises
    ------
    SynthDoseError
        If the input is bad, or `out` holds something else.
    """
    check_phantom(request.phantom)
    check_exports(request.exports)
    _claim(out, overwrite)
    seconds: dict[str, float] = {}
    with _timed(seconds, "read", progress):
        image, labels = _read(request, progress)
    with _timed(seconds, "phantom", progress):
        if image is None:
            phantom = assign_tissues(labels, overrides=_override_values(request.phantom))
        else:
            phantom = make_phantom(request.phantom, image, labels)
    with _timed(seconds, "quality", progress):
        ct = image if request.phantom.materials == "hu" else None
        quality = assess_phantom(phantom, ct, person=patient_facts(request.phantom.patient, image))
    if request.voxel_mm is not None:
        with _timed(seconds, "voxels", progress):
            phantom = regrid_phantom(phantom, cubic_grid(phantom.grid, request.voxel_mm, "--voxel"))
    with _replacing(out, overwrite) as folder:
        with _timed(seconds, "write", progress):
            _write(folder, phantom, quality, None if image is None else on_grid(image, phantom.grid), request.image.path.name)
        if request.exports:
            with _timed(seconds, "export", progress):
                export_phantom(folder, request.exports, phantom, image, labels)
        record = phantom_record(phantom, quality) | _provenance(request, image, seconds)
        write_phantom_json(folder / PHANTOM_JSON, record)
    return PhantomFolder(out, phantom, quality, seconds)


def _override_values(plan: PhantomPlan) -> dict[str, dict[str, Any]]:
    entries = {organ: dataclasses.asdict(entry) for organ, entry in plan.overrides.items()}
    return {organ: {key: value for key, value in entry.items() if value} for organ, entry in entries.items()}


def _read(request: PhantomRequest, progress: Progress) -> tuple[ImageVolume | None, LabelMap]:
    by_label = request.phantom.materials == "labels"
    if request.segmentation is None:
        if not by_label:
            raise SynthDoseError(
                "A phantom needs an image and a segmentation. For a label map alone add --materials labels: tissues are then "
                "assigned by label."
            )
        return None, read_segmentation(SegmentationPlan(path=request.image.path, labels=request.labels), None)
    image = read_ct(request.image, any_modality=by_label)
    return image, segment(request.segmentation, image, progress=progress)


@contextmanager
def _timed(seconds: dict[str, float], stage: str, progress: Progress) -> Iterator[None]:
    report_stage(progress, stage, 0.0)
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    report_stage(progress, stage, 1.0)


def _claim(out: Path, overwrite: bool) -> None:
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        if not (out / PHANTOM_JSON).is_file():
            raise SynthDoseError(f"{out} holds other files. Choose an empty or new folder, so that nothing of yours is lost.")
        if not overwrite:
            raise SynthDoseError(f"{out} holds an earlier phantom. Choose another folder, or --overwrite.")
    require_writable(out)


@contextmanager
def _replacing(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder that takes the place of `out` when all is written."""
    if not (overwrite and (out / PHANTOM_JSON).is_file()):
        with atomic_folder(out) as folder:
            yield folder
        return
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic_folder(fresh) as folder:
        yield folder
    shutil.rmtree(out)
    fresh.replace(out)


def _write(folder: Path, phantom: VoxelPhantom, quality: PhantomQuality, image: ImageVolume | None, title: str) -> None:
    write_volume(folder / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
    write_volume(folder / "materials.nrrd", phantom.material_index, phantom.grid)
    write_segmentation(folder / "labels.seg.nrrd", phantom.labels)
    write_csv(folder / MASSES_CSV, ("organ", "volume_ml", "mass_g", "density_g_cm3"), mass_rows(phantom))
    write_quality_page(folder / QUALITY_PAGE, title, phantom, quality, image)


def _provenance(request: PhantomRequest, image: ImageVolume | None, seconds: dict[str, float]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if image is not None and image.source_files:
        inputs["image"] = hash_files(image.source_files)
    path = request.image.path if request.segmentation is None else request.segmentation.path
    if path is not None and path.exists():
        files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
        inputs["segmentation"] = hash_files(tuple(str(file) for file in files))
    phantom = request.phantom
    return {
        "made": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "inputs": inputs,
            "settings": {
                key: value
                for key, value in dataclasses.asdict(phantom).items()
                if key != "patient" and value not in ("", {}, None)
            },
            "voxel_mm": request.voxel_mm,
            "exports": list(request.exports),
            "versions": versions(),
            "computer": computer(),
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        }
    }
