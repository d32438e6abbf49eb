"""DICOM SEG through highdicom: binary and fractional segments to labels, and labels to binary segments."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .. import __version__
from ..core import ImageVolume, LabelMap, MissingPackageError, Organ, SynthDoseError
from .coding import TISSUE, named_with_side, organ_concept, snomed_of
from .dicom_common import (
    MAKER,
    frame_of_reference,
    new_uid,
    place_of,
    reference_headers,
    series_number_after,
    strip_identity,
    with_required_tags,
)
from .dicom_files import lenient, read_dataset, save_dataset
from .dicom_labels import compare_frames
from .dicom_syntax import is_compressed, is_deflated, require_decoder
from .geometry import LPS_TO_RAS, grid_of, lps_matrix, right_handed
from .identity import identity_of_headers, without_identity
from .overlap import combine
from .text import clean_name, clean_text, same_name_notes, unique_names
from .volumes import writing

FRACTION_INSIDE = 0.5
_MOST_VOXELS, _LONGEST_MM = 1.5e9, 5000.0  # 1400 slices of 1024 x 1024


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:  # also one that does not fit the pydicom installed
        install = "pip install 'highdicom>=0.25' 'pydicom>=3'"
        raise MissingPackageError("highdicom", "Reading and writing DICOM SEG", install) from error
    return highdicom


def read_dicom_seg(
    path: Path,
    frame_of_reference: str = "",
    segments: Collection[str] | None = None,
    accept_other_frame: bool = False,
) -> LabelMap:
    """Read the segments of a DICOM SEG on its own grid; see `read_labels`.

    A fractional segment holds the voxels that are at least half inside.
    """
    highdicom = _highdicom()
    header = read_dataset(path, pixels=False)
    require_decoder(header, path)
    _require_whole(path, header)
    try:
        with lenient():
            dataset = highdicom.seg.segread(path)
            descriptions = [dataset.get_segment_description(n) for n in dataset.segment_numbers]
    except Exception as error:  # highdicom and the decoders raise whatever they like
        raise SynthDoseError(f"{path} cannot be read as DICOM SEG; it is damaged ({clean_text(error, 160)}).") from error
    _require_frames_in_place(path, dataset)
    notes = list(compare_frames(path, clean_text(header.get("FrameOfReferenceUID")), frame_of_reference, accept_other_frame))
    given = [_name(d) for d in descriptions]
    names = unique_names(given)
    notes += same_name_notes(given, names, "segments")
    lacking = [name for name in segments or () if name not in names]
    if lacking:
        raise SynthDoseError(f"{path} has no segment '{lacking[0]}'. Segments: {', '.join(names)}.")
    chosen = [(d, name) for d, name in zip(descriptions, names, strict=True) if segments is None or name in segments]
    organs = tuple(Organ(n, name, _code(d), _colour(d)) for n, (d, name) in enumerate(chosen, start=1))
    fractional = str(dataset.segmentation_type.value) == "FRACTIONAL"
    if fractional:
        notes.append(f"The segments of {path.name} are fractional: voxels at least half inside were taken.")
    numbers = [int(description.segment_number) for description, _ in chosen]
    whole = None if fractional else _combined(dataset, numbers)
    if whole is not None:
        values, matrix, _ = right_handed(*whole)
        return LabelMap(grid_of(path, values, matrix), values, organs, tuple(notes))
    first, matrix = _volume(path, dataset, numbers[0])
    first, turned, _ = right_handed(first, matrix)
    grid = grid_of(path, first, turned)

    def masks() -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for organ, segment in zip(organs, numbers, strict=True):
            part = first if segment == numbers[0] else right_handed(_volume(path, dataset, segment)[0], matrix)[0]
            yield organ.index, part >= FRACTION_INSIDE if fractional else part > 0

    labels, overlap = combine(masks(), organs, grid)
    return LabelMap(grid, labels, organs, (*notes, *overlap))


def _require_whole(path: Path, header: Dataset) -> None:
    """Refuse a file that holds fewer pixels than it declares, or numbers two segments alike, before memory is taken."""
    declared = int(header.get("NumberOfFrames") or 0) * int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    packed = is_compressed(header) or is_deflated(header)
    # pixels of one bit follow each other without a gap, through the ends of rows and frames
    needed = declared // 10_000 if packed else (declared * int(header.get("BitsAllocated") or 1) + 7) // 8
    held = path.stat().st_size
    if declared == 0 or needed > held:
        raise SynthDoseError(
            f"{path} declares {declared} pixels, {needed} bytes, which does not fit its size, {held} bytes. "
            "It is damaged or incomplete."
        )
    numbers = [int(segment.SegmentNumber) for segment in header.get("SegmentSequence") or []]
    double = next((number for number in numbers if numbers.count(number) > 1), None)
    if double is not None:
        raise SynthDoseError(f"{path} holds two segments with the number {double}; which voxels are whose is not known.")


def _require_frames_in_place(path: Path, header: Dataset) -> None:
    """Refuse frames that are not described, belong to no segment, or lie so far apart that no volume holds them."""
    described = header.get("PerFrameFunctionalGroupsSequence") or []
    frames = int(header.get("NumberOfFrames") or 1)
    if len(described) != frames:
        raise SynthDoseError(f"{path} is damaged: it declares {frames} frames and describes {len(described)}.")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    numbers = {int(segment.SegmentNumber) for segment in header.get("SegmentSequence") or []}
    places = np.full((frames, 3), np.nan)
    for n, own in enumerate(described):
        which = (own.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence") or [Dataset()])[0]
        number = which.get("ReferencedSegmentNumber")
        if number is not None and int(number) not in numbers:
            raise SynthDoseError(f"{path} is damaged: frame {n + 1} belongs to segment {number}, which it does not list.")
        plane = (own.get("PlanePositionSequence") or shared.get("PlanePositionSequence") or [Dataset()])[0]
        position = plane.get("ImagePositionPatient")
        if position is not None and len(position) == 3:
            places[n] = [float(x) for x in position]
    if not np.isfinite(places).all():
        raise SynthDoseError(
            f"{path} does not say where all of its {frames} frames are in the patient (PlanePositionSequence)."
        )
    planes = np.unique(places.round(3), axis=0)
    if len(planes) < 2:
        return
    extent = float(np.linalg.norm(np.ptp(planes, axis=0)))
    measures = (shared.get("PixelMeasuresSequence") or [Dataset()])[0]
    stated = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    apart = abs(float(stated)) if stated else float(np.linalg.norm(np.diff(planes, axis=0), axis=1).min())
    voxels = extent / apart * int(header.Rows) * int(header.Columns) if apart > 0 else np.inf
    if voxels > _MOST_VOXELS or extent > _LONGEST_MM:
        raise SynthDoseError(
            f"{path} is damaged: its frames lie up to {extent:.4g} mm apart, in steps of {apart:.3g} mm; none is that large."
        )


def _combined(dataset: Any, numbers: list[int]) -> tuple[NDArray[np.uint16], NDArray[np.float64]] | None:
    """All segments at once, numbered from 1 in the order given; None if they overlap or are no regular volume."""
    try:
        with lenient():
            volume = dataset.get_volume(segment_numbers=numbers, combine_segments=True, relabel=True, dtype=np.uint16)
    except Exception:  # the way segment by segment finds out which it is, and says so
        return None
    return np.asarray(volume.array), _matrix(volume)


def _volume(path: Path, dataset: Any, number: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return one segment as (nk, nj, ni) with the matrix from (i, j, k) to RAS."""
    try:
        with lenient():
            volume = dataset.get_volume(segment_numbers=[number], rescale_fractional=True, skip_overlap_checks=True)
    except Exception as error:  # as above
        raise SynthDoseError(
            f"{path}: the segments do not make up a regular volume ({clean_text(error, 200)}). "
            "Slices are missing or not evenly spaced, or the file is damaged: export it again."
        ) from error
    return np.asarray(volume.array).reshape(volume.spatial_shape), _matrix(volume)


def _matrix(volume: Any) -> NDArray[np.float64]:
    """Matrix from (i, j, k) to RAS; highdicom orders its columns as the array: slices, rows, columns."""
    return LPS_TO_RAS @ np.asarray(volume.affine)[:, [2, 1, 0, 3]]


def _name(description: Any) -> str:
    """Label of a segment, with the side if only its modifier says it: two segments called "Kidney" are told apart."""
    name = clean_name(description.get("SegmentLabel")) or f"segment {description.segment_number}"
    kind = (description.get("SegmentedPropertyTypeCodeSequence") or [{}])[0]
    region = (description.get("AnatomicRegionSequence") or [{}])[0]
    for modifiers in (
        kind.get("SegmentedPropertyTypeModifierCodeSequence"),
        description.get("SegmentedPropertyTypeModifierCodeSequence"),
        region.get("AnatomicRegionModifierSequence"),
    ):
        for modifier in modifiers or []:
            name = named_with_side(name, modifier.get("CodeValue"), modifier.get("CodingSchemeDesignator"))
    return name


def _code(description: Any) -> str:
    kind = description.segmented_property_type
    code = snomed_of(kind.value, kind.scheme_designator)
    regions = description.get("AnatomicRegionSequence") or []
    if not code and regions:
        code = snomed_of(regions[0].get("CodeValue"), regions[0].get("CodingSchemeDesignator"))
    return code


def _colour(description: Any) -> tuple[float, float, float]:
    value = description.get("RecommendedDisplayCIELabValue")
    if value is None:
        return 0.5, 0.5, 0.5
    try:
        r, g, b = (float(c) / 255 for c in _highdicom().color.CIELabColor.from_dicom_value(list(value)).to_rgb())
    except (AttributeError, TypeError, ValueError):
        return 0.5, 0.5, 0.5
    return r, g, b


def write_dicom_seg(
    path: str | os.PathLike[str],
    labels: LabelMap,
    reference: ImageVolume,
    *,
    deidentify: bool,
    algorithm: str = "SynthDose",
    description: str = "SynthDose segmentation",
) -> None:
    """Write a label map as DICOM SEG (binary), in the study and frame of reference of a DICOM image.

    Parameters
    ----------
    path : path-like
        Written to a temporary name and renamed.
    labels : LabelMap
        On any grid in the frame of reference of `reference`. Empty organs are left out: SEG has no empty segments.
    reference : ImageVolume
        Read from DICOM; patient and study are taken from its files.
    deidentify : bool
        Whether to leave out who the patient is, in names of organs as well; an explicit choice. UIDs are kept, so that it
        still refers to its images.
    algorithm, description : str
        What made the segmentation; series description.

    Raises
    ------
    SynthDoseError
        If every organ is empty, `reference` is not DICOM, or the file cannot be written.
    """
    highdicom = _highdicom()
    counts = labels.voxel_counts()
    organs = [o for o in labels.organs if counts[o.name]]
    if not organs:
        raise SynthDoseError("The label map is empty: there is no segment to write as DICOM SEG.")
    with lenient():
        headers = [with_required_tags(h) for h in reference_headers(reference)]
        if deidentify:
            labels = without_identity(labels, identity_of_headers(headers))
            organs = [o for o in labels.organs if o.index in {organ.index for organ in organs}]
            headers = [place_of(h) for h in headers]
    numbers = np.zeros(max(o.index for o in labels.organs) + 1, np.uint8 if len(organs) < 256 else np.uint16)
    for number, organ in enumerate(organs, start=1):
        numbers[organ.index] = number
    matrix = lps_matrix(labels.grid)[:, [2, 1, 0, 3]]
    frame = frame_of_reference(reference, headers)
    with lenient():
        volume = highdicom.Volume(numbers[labels.labels], matrix, "PATIENT", frame_of_reference_uid=frame or None)
        dataset = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=volume,
            segmentation_type="BINARY",
            segment_descriptions=[_description(highdicom, n, o, algorithm) for n, o in enumerate(organs, start=1)],
            series_instance_uid=new_uid(),
            series_number=series_number_after(headers[0], "SEG"),
            sop_instance_uid=new_uid(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=__version__,
            device_serial_number="0",
            content_label="SYNTHDOSE",
            content_description=clean_text(description),
            series_description=clean_text(description),
        )
        # what made the image is in its own header
        dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
        dataset.SoftwareVersions = __version__
        if deidentify:
            strip_identity(dataset)
        with writing(path) as temporary:
            save_dataset(dataset, temporary)


def _description(highdicom: Any, number: int, organ: Organ, algorithm: str) -> Any:
    coded = highdicom.sr.CodedConcept
    category = coded(*TISSUE)
    kind, modifier = organ_concept(organ.name, organ.snomed_code)
    # a family is required; what made a segmentation that was read from a file is not known
    identification = highdicom.AlgorithmIdentificationSequence(
        name=clean_text(algorithm) or MAKER,
        family=coded("unspecified", "99SYNTHDOSE", "Not specified"),
        version=__version__,
    )
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=clean_text(organ.name),
        segmented_property_category=category,
        segmented_property_type=coded(*kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        tracking_uid=new_uid(),
        tracking_id=clean_text(organ.name),
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * min(1.0, max(0.0, c))) for c in organ.colour)),
    )
    if modifier is not None:
        item = description.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [coded(*modifier)]
    return description
