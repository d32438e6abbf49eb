"""Absorbed dose as DICOM RTDOSE, written and read with pydicom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..core import DoseMap, ImageVolume, SynthDoseError
from .dicom_common import NOTICE, decimal, decimals, object_of
from .dicom_files import DicomFile, guarded, lenient, read_dataset, save_dataset, scan
from .dicom_frames import require_declared_size
from .dicom_images import decode
from .dicom_metadata import number, patient_metadata
from .dicom_write import put_plane
from .finish import finish_image
from .images import require_path
from .slices import Placement, regular_volume
from .text import clean_text
from .volumes import writing

RTDOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"
_TO_GY = {"GY": 1.0, "CGY": 0.01, "MGY": 0.001}
_FULL_SCALE = 2**32 - 1
_PARTS = {
    "BEAM": "one beam", "BEAM_SESSION": "beams of one session", "FRACTION": "one fraction", "CONTROL_POINT": "a control point",
    "FRACTION_SESSION": "one session of a fraction", "BRACHY": "one brachytherapy set-up", "CHANNEL": "one channel",
}  # fmt: skip


def write_rtdose(
    path: str | os.PathLike[str],
    dose: DoseMap,
    reference: ImageVolume,
    *,
    deidentify: bool,
    description: str = "SynthDose absorbed dose",
    gas: NDArray[np.bool_] | None = None,
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
    gas : ndarray of bool, (nk, nj, ni), optional
        Voxels of gas in the body. Energy per mass of gas is the dose to no tissue and, of a Monte Carlo, mostly noise; who
        reads the file cannot tell. It is written as 0 there, and the dose comment says so.

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
    comment = NOTICE
    if gas is not None and gas.any():
        values, comment = np.where(gas, np.float32(0), values), f"{NOTICE}; 0 in gas"
    dataset, _ = object_of(reference, RTDOSE_STORAGE, "RTDOSE", description, deidentify, only_first=True)
    grid = dose.grid
    put_plane(dataset, grid)
    count = grid.shape[0]
    dataset.NumberOfFrames, dataset.FrameIncrementPointer = count, 0x3004000C
    dataset.GridFrameOffsetVector = decimals(k * grid.spacing_mm[2] for k in range(count))
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    dataset.DoseComment = comment
    dataset.TissueHeterogeneityCorrection = ["IMAGE"]
    scaling = decimal((float(values.max()) or 1.0) / _FULL_SCALE * (1 + 1e-8))
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
    """Read the absorbed dose of an RTDOSE, of any planning system, as an image in Gy.

    Parameters
    ----------
    path : path-like
        File, or folder in which one file is an RTDOSE.

    Returns
    -------
    ImageVolume
        On a right-handed RAS grid; planes that are not evenly spaced are interpolated to even ones. `metadata` holds
        ``dose_type`` (PHYSICAL, EFFECTIVE, ERROR) and ``dose_summation_type`` (PLAN, BEAM, FRACTION …); `notes` say what of
        a treatment it is, where it is not all of it.

    Raises
    ------
    SynthDoseError
        If it is no RTDOSE, holds relative dose, does not say where its planes are, or is damaged.
    """
    source = _file(require_path(path))
    with guarded(source):
        return _read(source)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = [file.path for file in scan(path).files if file.modality == "RTDOSE"]
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:8])
        raise SynthDoseError(
            f"{path}: one RTDOSE is needed; found {len(found)}{f' ({listed})' if found else ''}. Give the path of the file; "
            "doses of several beams or plans are added one by one."
        )
    return found[0]


def _read(source: Path) -> ImageVolume:
    require_declared_size(DicomFile(source, _dose_header(source)))
    dataset = read_dataset(source)
    scaling = _gray_per_unit(source, dataset)
    values = decode(dataset, source).astype(np.float64) * scaling
    offsets, notes = _offsets(source, dataset, len(values))
    order = np.argsort(offsets, kind="stable")
    if (np.diff(offsets[order]) < 1e-3).any():
        raise SynthDoseError(f"{source} is damaged: two of its planes are at the same place.")
    placements = _placements(source, dataset, offsets[order])
    thickness = number(dataset.get("SliceThickness")) or 0.0
    if len(values) == 1 and thickness <= 0:
        thickness = placements[0].spacing[0]
        notes.append(f"The dose is one plane of unknown thickness; {thickness:g} mm, the width of its pixels, were taken.")
    stack, matrix, remarks = regular_volume(values[order].astype(np.float32), placements, thickness, 0.0)
    metadata = patient_metadata(dataset) | {
        "dose_type": clean_text(dataset.get("DoseType")).upper(),
        "dose_summation_type": clean_text(dataset.get("DoseSummationType")).upper(),
    }
    return finish_image(
        source,
        stack,
        matrix,
        modality="RTDOSE",
        unit="Gy",
        metadata=metadata,
        notes=(*notes, *remarks, *_kind_notes(source, metadata)),
    )


def _dose_header(source: Path) -> Dataset:
    header = read_dataset(source, pixels=False)
    modality = clean_text(header.get("Modality"))
    if modality != "RTDOSE":
        raise SynthDoseError(f"{source} is no RTDOSE (its modality is {modality or 'not stated'}).")
    if "Rows" not in header or "Columns" not in header:
        raise SynthDoseError(f"{source} holds no dose map; an RTDOSE with nothing but histograms or points cannot be added up.")
    return header


def _gray_per_unit(source: Path, dataset: Dataset) -> float:
    unit = clean_text(dataset.get("DoseUnits")).upper()
    if unit == "RELATIVE":
        raise SynthDoseError(
            f"{source} holds dose in 'RELATIVE' units, a percentage of a dose that it does not say. Export it in Gy."
        )
    if unit not in _TO_GY:
        raise SynthDoseError(f"{source} holds dose in '{unit}'; absolute dose in GY is needed.")
    scaling = number(dataset.get("DoseGridScaling"))
    if not scaling or scaling < 0:
        stated = clean_text(dataset.get("DoseGridScaling"), 20) or "missing"
        raise SynthDoseError(
            f"{source}: its DoseGridScaling, which makes Gy of what is stored, is {stated}; it has to be above 0."
        )
    return scaling * _TO_GY[unit]


def _offsets(source: Path, dataset: Dataset, count: int) -> tuple[NDArray[np.float64], list[str]]:
    """Distance of every plane from the first one along the normal, mm, and notes."""
    stated = dataset.get("GridFrameOffsetVector")
    listed = [] if stated in (None, "") else [number(x) for x in np.atleast_1d(np.asarray(stated, dtype=object))]
    if count == 1:
        # a plane on its own is where its position says, whatever frames the header speaks of
        return np.zeros(1, np.float64), []
    if not listed:
        thickness = number(dataset.get("SliceThickness")) or number(dataset.get("SpacingBetweenSlices"))
        if not thickness:
            raise SynthDoseError(
                f"{source} does not say where its {count} planes are (GridFrameOffsetVector and SliceThickness are missing)."
            )
        note = f"The file does not say where its planes are (GridFrameOffsetVector); they were put {abs(thickness):g} mm apart."
        return np.arange(count, dtype=np.float64) * np.float64(thickness), [note]
    if len(listed) != count or None in listed:
        raise SynthDoseError(f"{source} is damaged: {count} planes, {len(listed)} plane positions (GridFrameOffsetVector).")
    offsets = np.array(listed, dtype=np.float64)
    first = offsets[0]
    if abs(first) > 1e-6:
        # the other way that the standard allows: positions along z, of transverse planes
        cosines = np.array([float(x) for x in dataset.ImageOrientationPatient])
        along, begins = float(np.cross(cosines[:3], cosines[3:])[2]), float(dataset.ImagePositionPatient[2])
        if abs(abs(along) - 1) > 1e-3 or abs(first - begins) > 0.01:
            raise SynthDoseError(
                f"{source} contradicts itself: its planes begin at {first:g} mm (GridFrameOffsetVector), where neither 0 nor "
                f"the position of the first plane ({begins:g} mm along z) is meant. Export it again."
            )
        offsets = (offsets - first) * np.sign(along)
    return offsets, []


def _placements(source: Path, dataset: Dataset, offsets: NDArray[np.float64]) -> list[Placement]:
    try:
        a, b, c, d, e, f = (float(x) for x in dataset.ImageOrientationPatient)
        position = np.array([float(x) for x in dataset.ImagePositionPatient]).reshape(3)
        between_rows, between_columns = (float(x) for x in dataset.PixelSpacing)
    except (AttributeError, TypeError, ValueError):
        raise SynthDoseError(f"{source} does not say where its dose is in the patient.") from None
    row, column = (a, b, c), (d, e, f)
    if not np.isfinite([*row, *column, *position]).all() or not 0 < between_rows < np.inf or not 0 < between_columns < np.inf:
        raise SynthDoseError(
            f"{source} is damaged: position {position.tolist()}, pixel spacing {between_rows:g} x {between_columns:g} mm."
        )
    normal = np.cross(row, column)
    places = position + offsets[:, None] * normal
    spacing = (between_columns, between_rows)
    return [
        Placement((x, y, z), row, column, spacing, None, f"plane {n} of {source.name}") for n, (x, y, z) in enumerate(places, 1)
    ]


def _kind_notes(source: Path, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a treatment a dose is, where it is not all of it."""
    kind, summed = metadata["dose_type"], metadata["dose_summation_type"]
    notes = []
    if kind == "EFFECTIVE":
        notes.append(f"{source.name} is effective dose: physical dose times the RBE that its planning system assumed.")
    elif kind == "ERROR":
        notes.append(f"{source.name} is a difference of doses, not a dose.")
    if summed in _PARTS:
        notes.append(f"{source.name} is the dose of {_PARTS[summed]} ({summed}), not of a whole treatment.")
    return tuple(notes)
