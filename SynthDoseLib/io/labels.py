"""One door for all segmentations: `read_labels`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, resample_labels
from .geometry import grid_of, right_handed
from .images import detect_format, place, require_path
from .plain import read_header, read_plain, whole_labels
from .text import clean_text

FORMATS = "a label map (NRRD, NIfTI, MetaImage), a Slicer segmentation (.seg.nrrd), DICOM SEG or DICOM RTSTRUCT"


def read_labels(
    path: str | os.PathLike[str],
    *,
    labels: Mapping[int, Organ | str] | None = None,
    reference: VoxelGrid | None = None,
    reference_image: ImageVolume | None = None,
    segments: Collection[str] | None = None,
    spacing_mm: Sequence[float] | None = None,
    orientation: str | None = None,
    accept_other_frame: bool = False,
) -> LabelMap:
    """Read a segmentation, whatever the format: it is recognised by its content.

    Parameters
    ----------
    path : path-like
        Label map (NRRD, NIfTI, MetaImage, Interfile), Slicer segmentation, DICOM SEG or RTSTRUCT, or a folder with
        one of the latter two.
    labels : mapping of int to Organ or str, optional
        Names for the values of a label map; a value not in it is called ``label_<n>``, as are all without it.
    reference : VoxelGrid, optional
        Grid to bring the labels to (nearest neighbour, with a note). Needed for RTSTRUCT, which has no voxels.
    reference_image : ImageVolume, optional
        The image the labels belong to: its grid is the reference if none is given, and its frame of reference is
        compared with that of DICOM labels.
    segments : collection of str, optional
        Names of the segments to read from SEG, RTSTRUCT or a Slicer segmentation; all if not given.
    spacing_mm, orientation
        As in `read_image`, for label maps that do not say.
    accept_other_frame : bool
        Use DICOM labels in spite of another frame of reference: the caller knows that the images are registered.

    Returns
    -------
    LabelMap
        On `reference` if given, otherwise on the file's own grid.

    Raises
    ------
    SynthDoseError
        If there are no labels, values are no labels, the frames of reference differ, or nothing overlaps `reference`.
    """
    source = require_path(path)
    grid = reference if reference is not None else reference_image.grid if reference_image is not None else None
    frame = str((reference_image.metadata if reference_image else {}).get("frame_of_reference_uid", ""))
    kind = detect_format(source)
    if kind == "dicom":
        from .dicom_files import guarded
        from .dicom_labels import read_dicom_labels

        with guarded(source):
            result = read_dicom_labels(source, grid, frame, segments, accept_other_frame)
    elif kind == "nrrd" and _is_segmentation(source):
        from .seg_nrrd import read_segmentation

        result = select(read_segmentation(source), segments)
    else:
        result = _read_label_map(source, kind, labels or {}, spacing_mm, orientation)
    return resample_labels(result, grid) if grid is not None else result


def select(labels: LabelMap, segments: Collection[str] | None) -> LabelMap:
    """Keep the segments named, refuse a name that is not there."""
    if segments is None:
        return labels
    kept = tuple(labels.organ(name) for name in dict.fromkeys(segments))
    indices = np.array([o.index for o in kept], dtype=np.uint16)
    values = np.where(np.isin(labels.labels, indices), labels.labels, np.uint16(0))
    return LabelMap(labels.grid, values, kept, labels.notes)


def _is_segmentation(path: Path) -> bool:
    from .seg_nrrd import is_slicer_segmentation

    return is_slicer_segmentation(path, read_header(path))


def _read_label_map(
    path: Path,
    kind: str,
    table: Mapping[int, Organ | str],
    spacing_mm: Sequence[float] | None,
    orientation: str | None,
) -> LabelMap:
    if kind == "interfile":
        from .interfile import read_interfile

        image = read_interfile(path)
    else:
        image = read_plain(path)
    values = whole_labels(path, image.values)
    matrix, notes = place(path, image, spacing_mm, orientation)
    values, matrix, flipped = right_handed(values, matrix)
    grid = grid_of(path, values, matrix)
    found = [int(v) for v in np.flatnonzero(np.bincount(values.ravel())) if v]
    if not found:
        raise SynthDoseError(f"{path} is empty: every voxel is 0. A label map with at least one organ is needed.")
    organs = []
    for index in found:
        entry = table.get(index, f"label_{index}")
        organs.append(
            Organ(index, clean_text(entry))
            if isinstance(entry, str)
            else Organ(index, entry.name, entry.snomed_code, entry.colour)
        )
    return LabelMap(grid, values, tuple(organs), (*image.notes, *notes, *flipped))
