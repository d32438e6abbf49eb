"""What all written DICOM objects share: patient, study, equipment, identifiers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from .. import __version__
from ..core import ImageVolume, SynthDoseError
from .dicom_files import lenient, read_dataset
from .text import clean_text

MAKER = "SynthDose"
NOTICE = "Research software, not for clinical use"
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "StudyDescription")
# type 2: has to be there, may be empty
_EMPTY = (*_PATIENT, "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
# of the basic profile of PS3.15, what highdicom or this module copies from the reference
_IDENTIFYING = (
    *_PATIENT, *_STUDY, "PatientAge", "PatientSize", "PatientWeight", "OtherPatientIDs", "EthnicGroup", "PatientComments",
    "InstitutionName", "StationName", "OperatorsName", "PerformingPhysicianName", "AdditionalPatientHistory",
    "ClinicalTrialSubjectID", "PatientBirthTime", "Occupation", "ContentCreatorName", "InstitutionAddress",
    "InstitutionalDepartmentName", "PositionReferenceIndicator", "DeviceSerialNumber",
)  # fmt: skip
# what a derived object has to know of its image: where it is and which it is, not whose
_PLACE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "ImageType",
    "SeriesNumber", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionOrganizationSequence", "DimensionIndexSequence",
)  # fmt: skip


def new_uid() -> str:
    """Return a fresh identifier from the root for UUIDs (2.25), which needs no registration."""
    return str(generate_uid(prefix=None))


def reference_headers(image: ImageVolume, *, only_first: bool = False) -> list[Dataset]:
    """Headers, without pixels, of the DICOM files an image was read from, or of the first one.

    Raises
    ------
    SynthDoseError
        If it was not read from DICOM, or the files are gone.
    """
    if not image.metadata.get("study_instance_uid") or not image.source_files:
        raise SynthDoseError(
            "Export to DICOM needs the DICOM series it belongs to, but the image was not read from DICOM. "
            "Give the DICOM folder of the CT as image."
        )
    files = image.source_files[:1] if only_first else image.source_files
    return [read_dataset(Path(name), pixels=False) for name in files]


def with_required_tags(header: Dataset) -> Dataset:
    """Add the empty patient and study elements that a de-identified header may lack, in place."""
    for keyword in _EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def place_of(header: Dataset) -> Dataset:
    """A header with nothing in it but which image it is and where, so that nothing else can be copied from it."""
    kept = Dataset()
    for keyword in _PLACE:
        if keyword in header:
            kept[keyword] = header[keyword]
    kept.file_meta = header.file_meta
    return with_required_tags(kept)


def strip_identity(dataset: Dataset) -> None:
    """Blank who the patient is and when the study was, in place; UIDs are kept, so that it still refers to its images."""
    for keyword in _IDENTIFYING:
        if keyword in dataset:
            if keyword in _EMPTY:
                setattr(dataset, keyword, "")
            else:
                delattr(dataset, keyword)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 basic profile, UIDs kept"
    items = []
    for value, meaning in (
        ("113100", "Basic Application Confidentiality Profile"),
        ("113110", "Retain UIDs Option"),
    ):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        items.append(code)
    dataset.DeidentificationMethodCodeSequence = items


def new_object(sop_class_uid: str, modality: str, description: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Return a dataset with its file meta, identifiers, equipment and times; patient and study are still missing."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    dataset.Modality = modality
    dataset.SeriesDescription = clean_text(description)
    dataset.Manufacturer = MAKER
    dataset.ManufacturerModelName = MAKER
    dataset.SoftwareVersions = __version__
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.file_meta = file_meta(dataset, syntax)
    return dataset


def file_meta(dataset: Dataset, syntax: str) -> FileMetaDataset:
    """File meta information of an object to be written."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationVersionName = MAKER.upper()
    return meta


def copy_study(dataset: Dataset, header: Dataset, deidentify: bool) -> None:
    """Make `dataset` part of the patient and study of `header`, with or without who that is."""
    with lenient():
        if "SpecificCharacterSet" in header:
            dataset.SpecificCharacterSet = header.SpecificCharacterSet
        for keyword in (*_PATIENT, *_STUDY):
            if keyword in header:
                setattr(dataset, keyword, header[keyword].value)
        with_required_tags(dataset)
        dataset.StudyInstanceUID = header.StudyInstanceUID
    if deidentify:
        strip_identity(dataset)


def object_of(
    image: ImageVolume,
    sop_class_uid: str,
    modality: str,
    description: str,
    deidentify: bool,
    syntax: str = ExplicitVRLittleEndian,
    *,
    only_first: bool = False,
) -> tuple[Dataset, list[Dataset]]:
    """Return a new object in the study and frame of reference of a DICOM image, and the headers of that image or its first.

    Raises
    ------
    SynthDoseError
        If the image was not read from DICOM, or does not name its frame of reference.
    """
    headers = reference_headers(image, only_first=only_first)
    frame = frame_of_reference(image, headers)
    if not frame:
        raise SynthDoseError(f"The {image.modality} does not name its frame of reference, so that nothing can be placed in it.")
    dataset = new_object(sop_class_uid, modality, description, syntax)
    copy_study(dataset, headers[0], deidentify)
    dataset.SeriesNumber, dataset.InstanceNumber = series_number_after(headers[0], modality), 1
    dataset.OperatorsName = ""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame, ""
    return dataset, headers


def frame_of_reference(image: ImageVolume, headers: list[Dataset]) -> str:
    """Frame of reference of a DICOM image, "" if it names none."""
    return clean_text(headers[0].get("FrameOfReferenceUID") or image.metadata.get("frame_of_reference_uid"))


def series_number_after(header: Dataset, modality: str) -> int:
    """A series number of our own that does not hide among the scanner's."""
    text = str(header.get("SeriesNumber") or "0")
    step = ("RTDOSE", "SEG", "RTSTRUCT").index(modality) + 1
    return 9000 + step + (int(text) % 1000 * 10 if text.isdigit() else 0)


def decimal(value: float) -> str:
    """A number as DICOM's decimal string, which has at most 16 characters."""
    return str(format_number_as_ds(float(value)))


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers as decimal strings."""
    return [decimal(v) for v in values]
