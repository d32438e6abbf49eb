"""Where the frames of a DICOM file are and how their stored values are rescaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from ..core import SynthDoseError
from .dicom_files import DicomFile
from .dicom_metadata import UNITS, number
from .dicom_syntax import is_compressed, is_deflated
from .slices import Placement

# an empty slice of 512 x 512 in JPEG 2000 takes a hundred bytes and its header a thousand
_MOST_PIXELS_PER_BYTE = 5000
_UCUM = {"bq/ml": "Bq/ml", "{suvbw}g/ml": "g/ml", "g/ml{suvbw}": "g/ml", "g/ml": "g/ml", "[hnsf'u]": "HU"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where it is, and how stored values become values.

    Attributes
    ----------
    index : int
        Frame of the file, from 0.
    size : tuple of 2 int
        Rows, columns.
    thickness : float or None
        Slice thickness or spacing, mm.
    padding : tuple of 2 float or None
        Range of stored values that are padding.
    unit : str
        If the rescaling gives it, otherwise "".
    """

    file: DicomFile
    index: int
    placement: Placement
    size: tuple[int, int]
    slope: float
    intercept: float
    thickness: float | None
    padding: tuple[float, float] | None
    unit: str = ""


def frames_of(file: DicomFile) -> list[Frame]:
    """Return the frames of a file, or refuse one without a place in the patient."""
    header = file.header
    if header.get("ModalityLUTSequence"):
        raise SynthDoseError(
            f"{file.path}: values behind a lookup table (Modality LUT) are not read. Export with rescale slope."
        )
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise SynthDoseError(f"{file.path} is a colour image; CT, MR, PET and SPECT have one value per pixel.")
    require_declared_size(file)
    if "PerFrameFunctionalGroupsSequence" in header:
        return _enhanced(file)
    if file.modality == "NM":
        return _nuclear(file)
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise SynthDoseError(f"{file.path} has {header.NumberOfFrames} frames but does not say where they are.")
    position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    placement = _placement(file, position, orientation, header.get("PixelSpacing"), 0)
    thickness = number(header.get("SpacingBetweenSlices")) or number(header.get("SliceThickness"))
    return [_frame(file, 0, placement, *_rescale(file, header), thickness)]


def require_declared_size(file: DicomFile) -> None:
    """Refuse a header that declares more pixels than its file can hold, before memory is taken for them."""
    header = file.header
    frames = int(header.get("NumberOfFrames") or 1)
    declared = int(header.Rows) * int(header.Columns) * frames
    most = (
        _MOST_PIXELS_PER_BYTE
        if is_compressed(header) or is_deflated(header)
        else 8 / max(1, int(header.get("BitsAllocated") or 16))
    )
    held = file.path.stat().st_size
    if min(int(header.Rows), int(header.Columns), frames) < 1 or declared > held * most:
        raise SynthDoseError(
            f"{file.path} is damaged or incomplete: its header declares {declared} pixels, the file has {held} bytes. "
            "Copy or export it again."
        )


def _frame(
    file: DicomFile, index: int, placement: Placement, slope: float, intercept: float, unit: str, thickness: float | None
) -> Frame:
    header = file.header
    size = (int(header.Rows), int(header.Columns))
    padding = number(header.get("PixelPaddingValue"))
    limit = number(header.get("PixelPaddingRangeLimit"))
    other = padding if limit is None else limit
    both = None if padding is None or other is None else (min(padding, other), max(padding, other))
    return Frame(file, index, placement, size, slope, intercept, abs(thickness) if thickness else None, both, unit)


def _placement(file: DicomFile, position: object, orientation: object, spacing: object, index: int) -> Placement:
    name = file.path.name if index == 0 else f"{file.path.name} frame {index + 1}"
    try:
        x, y, z = (float(v) for v in position)  # type: ignore[attr-defined]
        cosines = [float(v) for v in orientation]  # type: ignore[attr-defined]
        between_rows, between_columns = (float(v) for v in spacing)  # type: ignore[attr-defined]
        if len(cosines) != 6 or not np.isfinite([x, y, z, *cosines]).all() or not min(between_rows, between_columns) > 0:
            raise ValueError
    except (TypeError, ValueError):
        raise SynthDoseError(
            f"{file.path}: the header does not say where the image is in the patient (ImagePositionPatient, "
            "ImageOrientationPatient, PixelSpacing). Export the original images, not screen captures or projections."
        ) from None
    number_text = str(file.header.get("InstanceNumber") or "")
    instance = int(number_text) if number_text.lstrip("-").isdigit() else None
    row = (cosines[0], cosines[1], cosines[2])
    column = (cosines[3], cosines[4], cosines[5])
    return Placement((x, y, z), row, column, (between_columns, between_rows), instance if index == 0 else None, name)


def _rescale(file: DicomFile, item: Dataset) -> tuple[float, float, str]:
    """Slope, intercept and unit: of the real-world mapping if it gives activity, otherwise the modality's."""
    for mapping in item.get("RealWorldValueMappingSequence") or []:
        code = (mapping.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
        unit = _UCUM.get(str(code.get("CodeValue", "")).replace(" ", "").lower(), "")
        slope, intercept = number(mapping.get("RealWorldValueSlope")), number(mapping.get("RealWorldValueIntercept"))
        if unit and slope is not None and intercept is not None:
            return slope, intercept, unit
    slope_text, intercept_text = item.get("RescaleSlope"), item.get("RescaleIntercept")
    slope = 1.0 if slope_text in (None, "") else number(slope_text)
    intercept = 0.0 if intercept_text in (None, "") else number(intercept_text)
    if slope is None or intercept is None or slope == 0:
        raise SynthDoseError(f"{file.path}: rescale slope '{slope_text}' and intercept '{intercept_text}' cannot be used.")
    return slope, intercept, ""


def _group(shared: Dataset, own: Dataset, keyword: str) -> Dataset:
    for groups in (own, shared):
        items = groups.get(keyword)
        if items:
            return items[0]
    return Dataset()


def _enhanced(file: DicomFile) -> list[Frame]:
    header = file.header
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = []
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):
        measures = _group(shared, own, "PixelMeasuresSequence")
        placement = _placement(
            file,
            _group(shared, own, "PlanePositionSequence").get("ImagePositionPatient"),
            _group(shared, own, "PlaneOrientationSequence").get("ImageOrientationPatient"),
            measures.get("PixelSpacing"),
            index,
        )
        mapped = own if own.get("RealWorldValueMappingSequence") else shared
        slope, intercept, unit = _rescale(file, mapped) if mapped.get("RealWorldValueMappingSequence") else (1.0, 0.0, "")
        if not unit:
            slope, intercept, unit = _rescale(file, _group(shared, own, "PixelValueTransformationSequence"))
        thickness = number(measures.get("SpacingBetweenSlices")) or number(measures.get("SliceThickness"))
        frames.append(_frame(file, index, placement, slope, intercept, unit, thickness))
    if len(frames) != int(header.get("NumberOfFrames") or 1):
        raise SynthDoseError(
            f"{file.path} is damaged: it declares {header.get('NumberOfFrames')} frames and describes {len(frames)}."
        )
    return frames


def _nuclear(file: DicomFile) -> list[Frame]:
    """Return the slices of a reconstructed SPECT: one position, then steps along the normal with the spacing's sign."""
    header = file.header
    kind = [str(t).upper() for t in header.get("ImageType") or ()]
    what = kind[2] if len(kind) > 2 else ""
    count = int(header.get("NumberOfFrames") or 1)
    if what and "RECON" not in what:
        raise SynthDoseError(
            f"{file.path} is no reconstructed SPECT (image type {what[:20]}). Give the reconstructed slices (RECON TOMO)."
        )
    declared = int(header.get("NumberOfSlices") or count)
    if count != declared:
        raise SynthDoseError(
            f"{file.path} holds {count} frames for {declared} slices: several energy windows, gates or time points together. "
            "Export the reconstruction of one of them."
        )
    detector = (header.get("DetectorInformationSequence") or [Dataset()])[0]
    position = detector.get("ImagePositionPatient") or header.get("ImagePositionPatient")
    orientation = detector.get("ImageOrientationPatient") or header.get("ImageOrientationPatient")
    first = _placement(file, position, orientation, header.get("PixelSpacing"), 0)
    step = number(header.get("SpacingBetweenSlices"))
    thickness = number(header.get("SliceThickness"))
    if step is None and count > 1:
        step = thickness
    if count > 1 and not step:
        raise SynthDoseError(f"{file.path}: the header does not say how far apart the slices are (SpacingBetweenSlices).")
    numbers = [int(n) for n in np.atleast_1d(header.get("SliceVector") or np.arange(1, count + 1))]
    if sorted(numbers) != list(range(1, count + 1)):
        raise SynthDoseError(f"{file.path}: its SliceVector does not number {count} slices once each.")
    normal = np.cross(first.row, first.column)
    slope, intercept, unit = _rescale(file, header)
    unit = unit or UNITS.get(str(header.get("Units") or "").strip().upper(), "")
    frames = []
    for index in range(count):
        x, y, z = np.asarray(first.position) + normal * (step or 0.0) * (numbers[index] - 1)
        name = f"{file.path.name} frame {index + 1}"
        placement = Placement((float(x), float(y), float(z)), first.row, first.column, first.spacing, None, name)
        frames.append(_frame(file, index, placement, slope, intercept, unit, step or thickness))
    return frames
