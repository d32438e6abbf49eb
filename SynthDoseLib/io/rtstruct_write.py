"""Labels to DICOM RTSTRUCT: one closed planar contour per piece and slice, holes joined by a channel."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from ..core import ImageVolume, LabelMap, Organ, VoxelGrid
from .coding import organ_concept
from .dicom_common import object_of
from .dicom_files import lenient, save_dataset
from .geometry import LPS_TO_RAS
from .identity import identity_of_headers, without_identity
from .polygons import outline_mask
from .text import clean_text
from .volumes import writing

CONTOUR_DATA = Tag(0x3006, 0x0050)
RTSTRUCT_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"


def write_rtstruct(
    path: str | os.PathLike[str],
    labels: LabelMap,
    reference: ImageVolume,
    *,
    deidentify: bool,
    description: str = "SynthDose structures",
) -> None:
    """Write a label map as RTSTRUCT, in the study and frame of reference of a DICOM image.

    Parameters
    ----------
    path : path-like
        Written to a temporary name and renamed.
    labels : LabelMap
        In the frame of reference of `reference`; contours lie on its slices. Read back, they give the same mask.
        Empty organs are listed without contours.
    reference : ImageVolume
        Read from DICOM.
    deidentify : bool
        Whether to leave out who the patient is, in names of organs as well; an explicit choice. UIDs are kept, so that it
        still refers to its images.
    description : str
        Of the series.

    Raises
    ------
    SynthDoseError
        If `reference` is not DICOM, or the file cannot be written.
    """
    # a contour of some thousand points is longer than the 64 kB that explicit little endian gives a value
    dataset, headers = object_of(reference, RTSTRUCT_STORAGE, "RTSTRUCT", description, deidentify, ImplicitVRLittleEndian)
    if deidentify:
        labels = without_identity(labels, identity_of_headers(headers))
    frame = str(dataset.FrameOfReferenceUID)
    dataset.StructureSetLabel = "SYNTHDOSE"
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.InstanceCreationDate, dataset.InstanceCreationTime
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(headers, frame)]
    boxes = _boxes(labels)
    rois, contours, observations = [], [], []
    for n, organ in enumerate(labels.organs, start=1):
        rois.append(_roi(n, organ, frame))
        contours.append(_contours(n, organ, labels, boxes[organ.index]))
        observations.append(_observation(n, organ))
    dataset.StructureSetROISequence = rois
    dataset.ROIContourSequence = contours
    dataset.RTROIObservationsSequence = observations
    with writing(path) as temporary, lenient():
        save_dataset(dataset, temporary)


def _referenced_frame(headers: list[Dataset], frame: str) -> Dataset:
    images = []
    for header in headers:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        images.append(item)
    series = Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = headers[0].SeriesInstanceUID, images
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_COMPONENT, headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    result = Dataset()
    result.FrameOfReferenceUID, result.RTReferencedStudySequence = frame, [study]
    return result


def _boxes(labels: LabelMap) -> dict[int, tuple[slice, ...] | None]:
    from scipy import ndimage

    highest = max((o.index for o in labels.organs), default=0)
    boxes = ndimage.find_objects(np.asarray(labels.labels, dtype=np.int32), max_label=highest)
    return {o.index: boxes[o.index - 1] for o in labels.organs}


def _roi(n: int, organ: Organ, frame: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = n, clean_text(organ.name)
    item.ReferencedFrameOfReferenceUID, item.ROIGenerationAlgorithm = frame, ""
    return item


def _observation(n: int, organ: Organ) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = n
    item.RTROIInterpretedType, item.ROIInterpreter = "ORGAN", ""
    if organ.snomed_code:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = organ_concept(organ.name, organ.snomed_code)[0]
        item.RTROIIdentificationCodeSequence = [code]
    return item


def _contours(n: int, organ: Organ, labels: LabelMap, box: tuple[slice, ...] | None) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = n
    item.ROIDisplayColor = [round(255 * min(1.0, max(0.0, c))) for c in organ.colour]
    pieces: list[Dataset] = []
    if box is not None:
        part = labels.labels[box] == organ.index
        start = np.array([box[2].start, box[1].start], dtype=np.float64)
        for k, plane in enumerate(part, start=box[0].start):
            pieces += [
                _contour(outline + start, k, labels.grid, len(pieces) + m) for m, outline in enumerate(_outlines(plane), 1)
            ]
    # an empty sequence is not allowed; an organ without voxels has none
    if pieces:
        item.ContourSequence = pieces
    return item


def _outlines(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    return outline_mask(plane) if plane.any() else []


def _contour(outline: NDArray[np.float64], k: int, grid: VoxelGrid, contour_number: int) -> Dataset:
    ijk = np.column_stack([outline, np.full(len(outline), float(k))])
    lps = grid.to_ras(ijk) @ LPS_TO_RAS[:3, :3]
    item = Dataset()
    item.ContourNumber, item.ContourGeometricType = contour_number, "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(lps)
    # 0.1 µm, far below any voxel
    # as bytes that are said to be encoded like the file: pydicom makes an object of every number it reads, which takes long
    text = "\\".join([f"{x:.4f}" for x in lps.ravel().tolist()]).encode("ascii")
    text += b" " * (len(text) % 2)
    item[CONTOUR_DATA] = RawDataElement(CONTOUR_DATA, "DS", len(text), text, 0, True, True)
    item.set_original_encoding(True, True, default_encoding)
    return item
