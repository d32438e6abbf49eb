"""Absorbed dose as DICOM RTDOSE, written and read with pydicom."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..core import DoseMap, ImageVolume, SynthDoseError
from .dicom_common import NOTICE, decimal, decimals, object_of
from .dicom_files import guarded, lenient, read_dataset, save_dataset
from .dicom_images import decode
from .dicom_metadata import number, patient_metadata
from .dicom_write import put_plane
from .finish import finish_image
from .geometry import LPS_TO_RAS, matrix_from
from .slices import POSITION_TOLERANCE
from .text import clean_text
from .volumes import writing

RTDOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"
_TO_GY = {"GY": 1.0, "CGY": 0.01, "MGY": 0.001}
_FULL_SCALE = 2**32 - 1


def write_rtdose(
    path: str | os.PathLike[str],
    dose: DoseMap,
    reference: ImageVolume,
    *,
    deidentify: bool,
    description: str = "SynthDose absorbed dose",
) -> None:
    """Write an absolute dose as RTDOSE (GY, PHYSICAL, 32 bit) in the study and frame of reference of a DICOM image.

    Parameters
    ----------
    path : path-like
        Written to a temporary name and renamed.
    dose : DoseMap
        In Gy, not per decay; its uncertainty has no place in RTDOSE.
    reference : ImageVolume
        Read from DICOM; patient, study and frame of reference are its.
    deidentify : bool
        Whether to leave out who the patient is; an explicit choice. UIDs are kept, so that it
        still refers to its images.
    description : str
        Of the series.

    Raises
    ------
    SynthDoseError
        If the dose is per decay or negative, `reference` is not DICOM, or the file cannot be written.

    Notes
    -----
    The summation type is PLAN, which treatment planning systems expect, but there is no RTPLAN to refer to: a
    radionuclide therapy has none.
    """
    if dose.per:
        raise SynthDoseError(
            f"The dose is per {dose.per}; RTDOSE holds absolute dose in Gy. Multiply by the number of them first."
        )
    values = dose.dose_Gy
    if not np.isfinite(values).all() or float(values.min()) < 0:
        raise SynthDoseError(f"The dose holds negative or not finite values (lowest {float(values.min()):.4g} Gy).")
    dataset, _ = object_of(reference, RTDOSE_STORAGE, "RTDOSE", description, deidentify)
    grid = dose.grid
    put_plane(dataset, grid)
    count = grid.shape[0]
    dataset.NumberOfFrames, dataset.FrameIncrementPointer = count, 0x3004000C
    dataset.GridFrameOffsetVector = decimals(k * grid.spacing_mm[2] for k in range(count))
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    dataset.DoseComment = NOTICE
    dataset.TissueHeterogeneityCorrection = ["IMAGE"]
    scaling = decimal(max(float(values.max()), 1e-12) / _FULL_SCALE * (1 + 1e-8))
    dataset.DoseGridScaling = scaling
    stored = np.empty(grid.shape, "<u4")
    for k, plane in enumerate(values):
        stored[k] = np.minimum(np.round(plane.astype(np.float64) / float(scaling)), _FULL_SCALE)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = grid.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 0
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    with writing(path) as temporary, lenient():
        save_dataset(dataset, temporary)


def read_rtdose(path: str | os.PathLike[str]) -> ImageVolume:
    """Read an RTDOSE as an image in Gy; `metadata` holds ``dose_type`` and ``dose_summation_type``.

    Raises
    ------
    SynthDoseError
        If it is no RTDOSE, holds relative dose, or its planes are not evenly spaced.
    """
    source = Path(path)
    with guarded(source):
        return _read(source)


def _read(source: Path) -> ImageVolume:
    dataset = read_dataset(source)
    if clean_text(dataset.get("Modality")) != "RTDOSE":
        raise SynthDoseError(f"{source} is no RTDOSE (its modality is {clean_text(dataset.get('Modality')) or 'not stated'}).")
    unit = clean_text(dataset.get("DoseUnits")).upper()
    scaling = number(dataset.get("DoseGridScaling"))
    if unit not in _TO_GY or not scaling:
        raise SynthDoseError(f"{source} holds dose in '{unit}' with scaling {scaling}; absolute dose in GY is needed.")
    values = decode(dataset, source).astype(np.float64) * scaling * _TO_GY[unit]
    offsets = np.array([number(x) for x in np.atleast_1d(dataset.get("GridFrameOffsetVector") or [0.0])], dtype=np.float64)
    try:
        cosines = np.array([float(x) for x in dataset.ImageOrientationPatient]).reshape(2, 3)
        position = np.array([float(x) for x in dataset.ImagePositionPatient])
        between_rows, between_columns = (float(x) for x in dataset.PixelSpacing)
    except (AttributeError, TypeError, ValueError):
        raise SynthDoseError(f"{source} does not say where its dose is in the patient.") from None
    if len(offsets) != len(values) or not np.isfinite(offsets).all():
        raise SynthDoseError(f"{source} is damaged: {len(values)} planes, {len(offsets)} plane positions.")
    gaps = np.diff(offsets)
    step = float(gaps.mean()) if gaps.size else number(dataset.get("SliceThickness")) or 1.0
    if step == 0 or (gaps.size and np.abs(gaps - step).max() > POSITION_TOLERANCE * abs(step) + 1e-3):
        raise SynthDoseError(f"{source}: its planes are not evenly spaced ({gaps.min():.3f} to {gaps.max():.3f} mm).")
    normal = np.cross(cosines[0], cosines[1])
    # offsets that do not start at 0 are positions along z, allowed for transverse planes
    if abs(offsets[0]) > 1e-6 and abs(offsets[0] - position[2]) > 1e-3:
        position = position + normal * offsets[0]
    directions = np.stack([cosines[0], cosines[1], normal * np.sign(step)], axis=1)
    matrix = LPS_TO_RAS @ matrix_from(directions, (between_columns, between_rows, abs(step)), position)
    metadata = patient_metadata(dataset) | {
        "dose_type": clean_text(dataset.get("DoseType")),
        "dose_summation_type": clean_text(dataset.get("DoseSummationType")),
    }
    return finish_image(source, values, matrix, modality="RTDOSE", unit="Gy", metadata=metadata)
