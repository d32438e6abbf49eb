"""Images as DICOM series: CT and PET with one file per slice, SPECT as one multi-frame file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..core import ImageVolume, SynthDoseError, VoxelGrid
from .dicom_common import NOTICE, decimal, decimals, new_object, new_uid, with_required_tags
from .dicom_files import lenient, save_dataset
from .dicom_metadata import nuclide_name
from .folder import atomic_folder
from .geometry import lps_matrix
from .text import clean_text

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
NM_STORAGE = "1.2.840.10008.5.1.4.1.1.20"
_UNITS = {"Bq/ml": "BQML", "g/ml": "GML", "counts": "CNTS"}


@dataclass(frozen=True)
class DicomStudy:
    """Whom and what written series belong to: those of one visit share it, and with it their frame of reference.

    Attributes
    ----------
    patient_name, patient_id : str
        By default a name that nobody takes for a real patient's.
    patient_sex : str
        "M", "F", "O" or "".
    patient_weight_kg, patient_height_m : float or None
    description : str
        Of the study.
    started_at : datetime or None
    study_uid, frame_of_reference_uid : str
        Made anew unless given.
    """

    patient_name: str = "SynthDose^Synthetic"
    patient_id: str = "SYNTHDOSE-SYNTHETIC"
    patient_sex: str = ""
    patient_weight_kg: float | None = None
    patient_height_m: float | None = None
    description: str = "SynthDose synthetic patient"
    started_at: datetime | None = None
    study_uid: str = field(default_factory=new_uid)
    frame_of_reference_uid: str = field(default_factory=new_uid)


def write_dicom_series(
    folder: str | os.PathLike[str],
    image: ImageVolume,
    study: DicomStudy | None = None,
    *,
    modality: str | None = None,
    description: str = "",
    series_number: int = 1,
) -> list[Path]:
    """Write an image as a DICOM series.

    Parameters
    ----------
    folder : path-like
        Must not exist, or be empty. Filled under a temporary name and renamed.
    image : ImageVolume
        CT in HU: stored as whole numbers. MR, PT and NM: 16 bit with a slope per slice (PT) or for all (MR, NM);
        nuclide, injected activity, injection time and half-life are taken from `metadata`, the time from `acquired_at`.
    study : DicomStudy, optional
        A new synthetic one if not given.
    modality : str, optional
        "CT", "MR", "PT" or "NM"; the image's own if not given.
    description : str
        Series description.
    series_number : int

    Returns
    -------
    list of Path
        The files, in slice order.

    Raises
    ------
    SynthDoseError
        If the modality is not one of these, CT numbers do not fit 16 bit, activities are negative, or the folder cannot
        be written.
    """
    kind = (modality or image.modality).upper()
    writers = {"CT": _write_ct, "MR": _write_slices_with_slope, "PT": _write_slices_with_slope, "NM": _write_nm}
    if kind not in writers:
        raise SynthDoseError(f"A series of modality '{kind}' cannot be written. Known: {', '.join(writers)}.")
    if not np.isfinite(image.values).all():
        raise SynthDoseError("The image holds values that are not finite numbers; it is not written.")
    visit = study or DicomStudy(started_at=image.acquired_at)
    series = _Series(image, visit, kind, clean_text(description) or f"SynthDose {kind}", series_number, new_uid())
    with atomic_folder(folder) as temporary, lenient():
        names = [p.name for p in writers[kind](temporary, series)]
    return [Path(folder) / name for name in names]


@dataclass(frozen=True, eq=False)
class _Series:
    image: ImageVolume
    study: DicomStudy
    modality: str
    description: str
    number: int
    uid: str


def _base(series: _Series, sop_class: str, instance: int) -> Dataset:
    image, study = series.image, series.study
    dataset = new_object(sop_class, series.modality, series.description)
    dataset.SeriesInstanceUID = series.uid
    dataset.SeriesNumber, dataset.InstanceNumber = series.number, instance
    dataset.StudyInstanceUID = study.study_uid
    dataset.FrameOfReferenceUID = study.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.StudyDescription = clean_text(study.description)
    dataset.PatientName, dataset.PatientID = clean_text(study.patient_name), clean_text(study.patient_id)
    dataset.PatientSex = study.patient_sex
    if study.patient_weight_kg:
        dataset.PatientWeight = decimal(study.patient_weight_kg)
    if study.patient_height_m:
        dataset.PatientSize = decimal(study.patient_height_m)
    dataset.PatientComments = NOTICE
    dataset.Laterality = ""
    if series.modality in ("CT", "MR"):
        dataset.PatientPosition = "HFS"
    started = study.started_at or image.acquired_at
    acquired = image.acquired_at or started
    if started:
        dataset.StudyDate, dataset.StudyTime = _date(started), _time(started)
    if acquired:
        for prefix in ("Series", "Acquisition", "Content"):
            setattr(dataset, f"{prefix}Date", _date(acquired))
            setattr(dataset, f"{prefix}Time", _time(acquired))
    with_required_tags(dataset)
    return dataset


def _date(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _time(moment: datetime) -> str:
    return moment.strftime("%H%M%S.%f")


def _put_pixels(dataset: Dataset, stored: NDArray[Any], signed: bool) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def put_plane(dataset: Dataset, grid: VoxelGrid, k: int = 0) -> None:
    """Set position, orientation and pixel spacing of slice `k`."""
    matrix = lps_matrix(grid)
    i, j, step = grid.spacing_mm
    dataset.ImagePositionPatient = decimals((matrix @ (0, 0, k, 1))[:3])
    dataset.ImageOrientationPatient = decimals([*(matrix[:3, 0] / i), *(matrix[:3, 1] / j)])
    dataset.PixelSpacing = decimals((j, i))
    dataset.SliceThickness = decimal(step)


def _write_ct(folder: Path, series: _Series) -> list[Path]:
    hu = np.round(series.image.values)
    if hu.min() < -32768 or hu.max() > 32767:
        raise SynthDoseError(f"CT numbers from {hu.min():.0f} to {hu.max():.0f} HU do not fit the 16 bit of a CT series.")
    paths = []
    for k, plane in enumerate(hu):
        dataset = _base(series, CT_STORAGE, k + 1)
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        dataset.KVP = ""
        dataset.AcquisitionNumber = ""
        put_plane(dataset, series.image.grid, k)
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "HU"
        dataset.WindowCenter, dataset.WindowWidth = "40", "400"
        _put_pixels(dataset, plane, signed=True)
        paths.append(_save(dataset, folder / f"CT.{k + 1:04d}.dcm"))
    return paths


def _save(dataset: Dataset, path: Path) -> Path:
    save_dataset(dataset, path)
    return path


def _quantise(values: NDArray[np.float32]) -> tuple[NDArray[np.uint16], str]:
    """Store values from 0 up with 16 bit; the slope is the one that the file's decimal string says."""
    if float(values.min()) < 0:
        raise SynthDoseError(
            f"The image holds negative values (down to {float(values.min()):.4g}), which are not written as MR, PET or SPECT."
        )
    slope = decimal(max(float(values.max()), 1e-30) / 65535 * (1 + 1e-9))
    return np.minimum(np.round(values.astype(np.float64) / float(slope)), 65535).astype(np.uint16), slope


def _write_slices_with_slope(folder: Path, series: _Series) -> list[Path]:
    image, is_pet = series.image, series.modality == "PT"
    count = image.grid.shape[0]
    common = None if is_pet else _quantise(image.values)
    paths = []
    for k in range(count):
        dataset = _base(series, PET_STORAGE if is_pet else MR_STORAGE, k + 1)
        put_plane(dataset, image.grid, k)
        stored, slope = _quantise(image.values[k]) if common is None else (common[0][k], common[1])
        dataset.RescaleIntercept, dataset.RescaleSlope = "0", slope
        if is_pet:
            _put_pet(dataset, image, k, count)
        else:
            dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
            dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "RM", "NONE", ""
            dataset.ScanOptions = dataset.RepetitionTime = dataset.EchoTime = dataset.EchoTrainLength = ""
        _put_pixels(dataset, stored, signed=False)
        paths.append(_save(dataset, folder / f"{series.modality}.{k + 1:04d}.dcm"))
    return paths


def _put_pet(dataset: Dataset, image: ImageVolume, k: int, count: int) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SeriesType = ["STATIC", "IMAGE"]
    dataset.NumberOfSlices, dataset.ImageIndex = count, k + 1
    dataset.Units = _UNITS.get(image.unit, "NONE")
    dataset.CountsSource = "EMISSION"
    dataset.DecayCorrection = str(image.metadata.get("decay_correction") or "START")
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT"] if dataset.DecayCorrection != "NONE" else ["ATTN", "SCAT"]
    dataset.CollimatorType = "NONE"
    dataset.ReconstructionMethod = dataset.ActualFrameDuration = ""
    dataset.FrameReferenceTime, dataset.DecayFactor = "0", "1"
    if dataset.Units == "GML":
        dataset.SUVType = str(image.metadata.get("suv_type") or "BW")
    _put_nuclide(dataset, image)


def _coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def _nuclide_code(name: str) -> list[Dataset]:
    """Code of a nuclide from DICOM's context group 18; a private one for those it lacks."""
    from pydicom.sr.codedict import codes

    group = codes.cid18
    for keyword in dir(group):
        code = getattr(group, keyword)
        if hasattr(code, "meaning") and nuclide_name(code.meaning) == name:
            return _coded(code.value, code.scheme_designator, code.meaning)
    return _coded(name, "99SYNTHDOSE", name)


def _put_nuclide(dataset: Dataset, image: ImageVolume) -> None:
    says = image.metadata
    item = Dataset()
    name = clean_text(says.get("radionuclide"))
    item.Radiopharmaceutical = clean_text(says.get("radiopharmaceutical")) or name
    if name:
        item.RadionuclideCodeSequence = _nuclide_code(name)
    if says.get("injected_activity_MBq"):
        # PET says Bq, NM says MBq
        scale = 1e6 if dataset.Modality == "PT" else 1.0
        item.RadionuclideTotalDose = decimal(says["injected_activity_MBq"] * scale)
    if says.get("half_life_s"):
        item.RadionuclideHalfLife = decimal(says["half_life_s"])
    if isinstance(says.get("injected_at"), datetime):
        item.RadiopharmaceuticalStartTime = _time(says["injected_at"])
        item.RadiopharmaceuticalStartDateTime = _date(says["injected_at"]) + _time(says["injected_at"])
    dataset.RadiopharmaceuticalInformationSequence = [item]
    dataset.PatientOrientationCodeSequence = _coded("102538003", "SCT", "recumbent")
    dataset.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = _coded("40199007", "SCT", "supine")
    dataset.PatientGantryRelationshipCodeSequence = _coded("102540008", "SCT", "headfirst")


def _write_nm(folder: Path, series: _Series) -> list[Path]:
    image = series.image
    count = image.grid.shape[0]
    stored, slope = _quantise(image.values)
    dataset = _base(series, NM_STORAGE, 1)
    dataset.ImageType = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    put_plane(dataset, image.grid)
    detector = Dataset()
    detector.CollimatorType, detector.FocalDistance, detector.FieldOfViewShape = "PARA", "", "RECTANGLE"
    detector.StartAngle = "0"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        setattr(detector, keyword, dataset[keyword].value)
        delattr(dataset, keyword)
    dataset.NumberOfDetectors, dataset.DetectorInformationSequence = 1, [detector]
    dataset.SpacingBetweenSlices = decimal(image.grid.spacing_mm[2])
    dataset.NumberOfFrames = dataset.NumberOfSlices = count
    dataset.FrameIncrementPointer = 0x00540080
    dataset.SliceVector = list(range(1, count + 1))
    dataset.NumberOfEnergyWindows = 1
    dataset.EnergyWindowInformationSequence = [Dataset()]
    rotation = Dataset()
    rotation.StartAngle, rotation.AngularStep, rotation.RotationDirection, rotation.ScanArc = "0", "3", "CW", "360"
    rotation.ActualFrameDuration, rotation.RadialPosition, rotation.NumberOfFramesInRotation = 20000, "250", 120
    dataset.NumberOfRotations, dataset.RotationInformationSequence = 1, [rotation]
    dataset.AcquisitionTerminationCondition = dataset.CountsAccumulated = ""
    _put_nuclide(dataset, image)
    # readers that know no real-world mapping take the slope of the modality, as scanners write it
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", slope
    if image.unit in _UNITS:
        dataset.Units = _UNITS[image.unit]
    if image.unit == "Bq/ml":
        mapping = Dataset()
        mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 65535
        for keyword in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
            mapping[keyword].VR = "US"
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = float(slope), 0.0
        mapping.LUTExplanation, mapping.LUTLabel = "Activity concentration", "BQML"
        mapping.MeasurementUnitsCodeSequence = _coded("Bq/ml", "UCUM", "Becquerels/milliliter")
        dataset.RealWorldValueMappingSequence = [mapping]
    _put_pixels(dataset, stored, signed=False)
    return [_save(dataset, folder / "NM.0001.dcm")]
