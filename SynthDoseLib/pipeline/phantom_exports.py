"""A phantom in the formats of other programs, one folder each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..core import ImageVolume, LabelMap, SynthDoseError, VoxelPhantom
from ..io import read_image, write_dicom_seg, write_dicom_series, write_volume
from ..phantom import REST_OF_BODY, material_entries, write_gate, write_penred
from ..phantom.meshes import organ_mesh, write_mesh
from .toml_tables import nearest

EXPORTS = ("case", "gate", "penred", "stl", "vtp", "dicom")
"""A case for ``synthdose simulate``, GATE/Geant4, PENELOPE/PenRed, surfaces, DICOM SEG."""

CASE_HISTORIES = 100_000


def check_exports(names: Sequence[str]) -> None:
    """Raise `SynthDoseError` unless every name is one of `EXPORTS`."""
    for name in names:
        if name not in EXPORTS:
            raise SynthDoseError(f"'{name}' is not an export.{nearest(name, EXPORTS)} Allowed: {', '.join(EXPORTS)}.")


def export_phantom(
    folder: Path, names: Sequence[str], phantom: VoxelPhantom, image: ImageVolume | None, labels: LabelMap
) -> None:
    """Write exports into sub-folders of `folder` called like them.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Of `EXPORTS`.
    phantom : VoxelPhantom
    image : ImageVolume or None
        What the labels belong to, for DICOM: without DICOM files of its own it is written as a series too.
    labels : LabelMap
        On the grid of the image, without what the builder added.

    Raises
    ------
    SynthDoseError
        If a name is not known, or there is no image for DICOM.
    """
    check_exports(names)
    writers: dict[str, Callable[[Path], object]] = {
        "case": lambda path: _write_case(path, phantom),
        "gate": lambda path: write_gate(path, phantom),
        "penred": lambda path: write_penred(path, phantom),
        "stl": lambda path: write_organ_meshes(path, phantom.labels, ".stl"),
        "vtp": lambda path: write_organ_meshes(path, phantom.labels, ".vtp"),
        "dicom": lambda path: _write_dicom(path, image, labels),
    }
    for name in dict.fromkeys(names):
        (folder / name).mkdir()
        writers[name](folder / name)


def write_organ_meshes(folder: Path, labels: LabelMap, suffix: str) -> list[Path]:
    """Write the surface of every organ with voxels but the rest of the body, and of the body itself (``body.stl``)."""
    counts = labels.voxel_counts()
    written = []
    masks = [(o.name, labels.mask(o.name)) for o in labels.organs if counts[o.name] and o.name not in (REST_OF_BODY, "body")]
    for name, mask in [*masks, ("body", np.asarray(labels.labels != 0))]:
        path = folder / f"{_file_name(name)}{suffix}"
        write_mesh(path, organ_mesh(mask, labels.grid))
        written.append(path)
    return written


def _file_name(organ: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in organ)


def _write_case(folder: Path, phantom: VoxelPhantom) -> None:
    write_volume(folder / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
    write_volume(folder / "materials.nrrd", phantom.material_index, phantom.grid)
    write_volume(folder / "organs.nrrd", phantom.labels.labels, phantom.grid)
    counts = phantom.labels.voxel_counts()
    organs = [name for name, count in counts.items() if count]
    source = next((name for name in organs if name != REST_OF_BODY), organs[0])
    case = {
        "schema": 1,
        "phantom": {
            "materials": "materials.nrrd",
            "density": "density.nrrd",
            "organs": "organs.nrrd",
            "material": material_entries(phantom.materials),
            "organ": [{"index": o.index, "name": o.name} for o in phantom.labels.organs if counts[o.name]],
        },
        "source": {"kind": "organs", "weights": {source: 1.0}, "nuclide": "Lu-177", "progeny": "none"},
        "run": {"histories": CASE_HISTORIES, "seed": 1},
    }
    text = "# Made by 'synthdose phantom': change [source] and [run], then 'synthdose simulate case.toml --out DIR'.\n"
    import tomlkit

    (folder / "case.toml").write_text(text + tomlkit.dumps(case), encoding="utf-8")


def _write_dicom(folder: Path, image: ImageVolume | None, labels: LabelMap) -> None:
    if image is None:
        raise SynthDoseError("DICOM SEG needs the image that the labels belong to. Give it, or leave this export out.")
    reference = image
    if not image.metadata.get("series_instance_uid") or not image.source_files:
        write_dicom_series(folder / "image", image, modality=image.modality or "CT")
        reference = read_image(folder / "image")
    write_dicom_seg(folder / "seg.dcm", labels, reference, deidentify=True)
