"""Segmentations in DICOM: finding the SEG or RTSTRUCT and reading it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..core import LabelMap, SynthDoseError, VoxelGrid
from .dicom_files import describe_series, scan
from .images import detect_format


def read_dicom_labels(
    path: Path, reference: VoxelGrid | None, frame_of_reference: str, segments: Collection[str] | None, accept_other_frame: bool
) -> LabelMap:
    """Read the one SEG or RTSTRUCT at `path` (a file, or a folder that may hold images too); see `read_labels`."""
    scanned = scan(path)
    files = scanned.files
    found = [f for f in files if f.modality in ("SEG", "RTSTRUCT")]
    if len(found) != 1:
        listed = "; ".join(f"{f.path.name} ({f.modality})" for f in found[:8]) or "none"
        other = "" if found or not files else f" It holds {describe_series(files)}."
        raise SynthDoseError(
            f"{path}: one DICOM SEG or RTSTRUCT is needed; found {len(found)}: {listed}.{other} Give the path of the file."
            + "".join(f" {note}" for note in scanned.notes())
        )
    file = found[0]
    if file.modality == "RTSTRUCT":
        from .rtstruct import read_rtstruct

        return read_rtstruct(file.path, reference, frame_of_reference, segments, accept_other_frame)
    from .dicom_seg import read_dicom_seg

    return read_dicom_seg(file.path, frame_of_reference, segments, accept_other_frame)


def rtstruct_file(path: Path) -> Path | None:
    """The RTSTRUCT that `read_dicom_labels` would read at `path`; None if there is none, or it is another format."""
    if detect_format(path) != "dicom":
        return None
    found = [f for f in scan(path).files if f.modality in ("SEG", "RTSTRUCT")]
    return found[0].path if len(found) == 1 and found[0].modality == "RTSTRUCT" else None


def compare_frames(path: Path, own: str, reference: str, accept_other_frame: bool) -> tuple[str, ...]:
    """Return a note on the frames of reference, or refuse when they differ."""
    if not own or not reference:
        if not reference:
            return ()
        return (f"{path.name} does not name its frame of reference; it was taken to be the image's.",)
    if own == reference:
        return ()
    if accept_other_frame:
        return (f"{path.name} has another frame of reference than the image; it was used as it is, as asked.",)
    raise SynthDoseError(
        f"{path} was drawn in another frame of reference ({own}) than the image's ({reference}): its positions do not "
        "belong to this image. Give the segmentation of this image, or register and resample it first."
    )
