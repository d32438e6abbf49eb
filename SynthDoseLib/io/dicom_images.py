"""CT, MR, PET and SPECT from DICOM: one file per slice, or multi-frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..core import ImageVolume, SynthDoseError
from .dicom_files import DicomFile, choose_series, is_localizer, lenient, read_dataset
from .dicom_frames import Frame, frames_of
from .dicom_metadata import (
    UNITS,
    acquisition_moment,
    nuclide_metadata,
    number,
    patient_metadata,
    philips_factors,
    reference_moment,
    seconds_between,
)
from .dicom_syntax import is_compressed, require_decoder, syntax_name
from .finish import AIR_HU, finish_image
from .slices import Placement, order_slices, regular_volume, require_no_gap
from .text import clean_text

# 12-bit scanners: everything outside is no CT number of tissue or air
_CT_RANGE_HU = (-1024.0, 3071.0)


@dataclass(frozen=True, eq=False)
class _Stack:
    values: NDArray[np.float32]
    padded: NDArray[np.bool_] | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class NativeSlices:
    """The slices of one DICOM series in their order, as they are stored: in their unit, but on no common grid.

    Attributes
    ----------
    values : ndarray of float32, (n, rows, columns)
        In `unit`; activities of PET refer to `acquired_at`.
    placements : tuple of Placement
        Where each slice is, LPS, mm.
    modality, unit : str
    acquired_at : datetime or None
    metadata : mapping
        As of `ImageVolume`.
    thickness_mm : float or None
    padded : ndarray of bool or None
        Where a CT holds padding.
    source_files, notes : tuple of str
    """

    values: NDArray[np.float32]
    placements: tuple[Placement, ...]
    modality: str
    unit: str
    acquired_at: datetime | None
    metadata: Mapping[str, Any]
    thickness_mm: float | None
    padded: NDArray[np.bool_] | None
    source_files: tuple[str, ...]
    notes: tuple[str, ...]


def read_dicom_image(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    hu_offset: float = 0.0,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ImageVolume:
    """Read one series of a DICOM folder or file; see `read_image`."""
    native = read_native_slices(path, modality=modality, series=series, overrides=overrides, defaults=defaults)
    fill = AIR_HU if native.modality == "CT" else 0.0
    if len(native.placements) == 1 and native.thickness_mm is None:
        raise SynthDoseError(f"{path}: the only slice does not say how thick it is (SliceThickness). Give the whole series.")
    values = native.values
    if native.padded is not None:
        values[native.padded] = fill
    values, matrix, grid_notes = regular_volume(values, native.placements, native.thickness_mm or 1.0, fill)
    return finish_image(
        path,
        values,
        matrix,
        modality=native.modality,
        unit=native.unit,
        hu_offset=hu_offset,
        acquired_at=native.acquired_at,
        metadata=native.metadata,
        source_files=native.source_files,
        notes=(*native.notes, *grid_notes),
    )


def read_native_slices(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> NativeSlices:
    """Read the slices of one DICOM series without bringing them to a regular grid; arguments as of `read_image`.

    Raises
    ------
    SynthDoseError
        As `read_image` does.
    """
    files, left_out = choose_series(path, modality, series)
    notes = list(left_out)
    slices = [f for f in files if not is_localizer(f)]
    if slices and len(slices) < len(files):
        notes.append(f"{len(files) - len(slices)} scout view(s) in the series were left out.")
        files = slices
    kind = files[0].modality
    frames = [frame for file in files for frame in frames_of(file)]
    placements = [f.placement for f in frames]
    if len({f.size for f in frames}) > 1:
        sizes = sorted({f"{f.size[1]} x {f.size[0]}" for f in frames})
        raise SynthDoseError(
            f"{path}: the slices have different numbers of pixels ({', '.join(sizes)}). Keep those of one size."
        )
    order = order_slices(path, placements)
    try:
        require_no_gap(path, placements, order)
    except SynthDoseError as error:
        raise SynthDoseError(" ".join([str(error), *left_out])) from error
    frames = [frames[n] for n in order]
    headers = [f.header for f in files]
    if path.is_file() and len(frames) == 1:
        notes.append("One file with one slice was read; give the folder to read the whole series.")
    declared = number(headers[0].get("NumberOfSlices") if kind == "PT" else headers[0].get("ImagesInAcquisition"))
    if declared is not None and 1 < len(frames) < declared:
        notes.append(f"The header speaks of {declared:.0f} slices, {len(frames)} are there: the ends may be missing.")
    notes += _numbering(frames)
    given = dict(overrides or {})
    acquired_at, time_notes = reference_moment(headers, kind)
    acquired_at = given.get("acquired_at", acquired_at)
    nuclide, nuclide_notes = nuclide_metadata(headers[0], acquired_at)
    metadata = {**(defaults or {}), **patient_metadata(headers[0]), **nuclide, **given}
    stack = _load(path, files, frames, kind)
    unit, values, unit_notes = _unit(headers[0], kind, frames, stack.values)
    unit = given.get("unit", unit)
    if kind == "PT" and not any(f.unit for f in frames) and "PerFrameFunctionalGroupsSequence" not in headers[0]:
        lacking = sum("RescaleSlope" not in header for header in headers)
        notes += [f"{lacking} of {len(headers)} files have no rescale slope: their stored values were taken as they are."] * (
            lacking > 0
        )
    values, decay_notes = _refer_to_start(path, values, kind, unit, frames, metadata, acquired_at)
    return NativeSlices(
        values,
        tuple(f.placement for f in frames),
        kind,
        unit,
        acquired_at,
        metadata,
        frames[0].thickness,
        stack.padded,
        tuple(dict.fromkeys(str(f.file.path) for f in frames)),
        (*notes, *time_notes, *nuclide_notes, *unit_notes, *stack.notes, *decay_notes),
    )


def _numbering(frames: Sequence[Frame]) -> list[str]:
    """A note if images that are numbered one after the other do not begin with 1: those before may be missing."""
    numbers = sorted(f.placement.number or 0 for f in frames)
    if len(frames) < 2 or numbers[0] < 2 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return []
    return [
        f"The slices are numbered {numbers[0]} to {numbers[-1]}: if the series began with 1, {numbers[0] - 1} of one end are "
        "missing."
    ]


def _load(path: Path, files: Sequence[DicomFile], frames: Sequence[Frame], kind: str) -> _Stack:
    """Decode the pixels of all frames, rescaled; for CT also where padding is."""
    rows, columns = frames[0].size
    values = np.empty((len(frames), rows, columns), np.float32)
    padded = np.zeros(values.shape, bool) if kind == "CT" else None
    inside: set[float] = set()
    where: dict[Path, list[int]] = {}
    for n, frame in enumerate(frames):
        where.setdefault(frame.file.path, []).append(n)
    for file_path, places in where.items():
        dataset = read_dataset(file_path)
        stored = decode(dataset, file_path)
        for n in places:
            frame = frames[n]
            plane = stored[frame.index].astype(np.float32)
            if padded is not None and frame.padding is not None:
                hu = tuple(p * frame.slope + frame.intercept for p in frame.padding)
                if hu[1] < _CT_RANGE_HU[0] or hu[0] > _CT_RANGE_HU[1]:
                    padded[n] = (plane >= frame.padding[0]) & (plane <= frame.padding[1])
                elif hu[1] > AIR_HU:
                    inside.add(hu[0])
            values[n] = plane * np.float32(frame.slope) + np.float32(frame.intercept)
    notes: list[str] = []
    if inside:
        notes.append(f"The file's padding value is a CT number of tissue ({min(inside):.0f} HU); it was not replaced.")
    count = int(padded.sum()) if padded is not None else 0
    if padded is not None and count:
        padding = np.unique(values[padded])
        notes.append(
            f"{count} of {values.size} voxels held the file's padding value ({padding[0]:.0f} HU) "
            f"and were set to air ({AIR_HU:.0f} HU)."
        )
    return _Stack(values, padded if count else None, tuple(notes))


def decode(dataset: Dataset, path: Path) -> NDArray[Any]:
    """Return the stored values of a file, (frames, rows, columns), whatever the compression.

    Raises
    ------
    SynthDoseError
        If the pixels are incomplete, colour, or compressed in a way that no installed decoder knows.
    """
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise SynthDoseError(f"{path} is a colour image; CT, MR, PET and SPECT have one value per pixel.")
    declared = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    compressed = is_compressed(dataset)
    held = len(dataset.get("PixelData") or b"") * 8 // max(1, int(dataset.get("BitsAllocated") or 16))
    if held == 0 or (not compressed and held < declared):
        raise SynthDoseError(
            f"{path} is incomplete: its header declares {declared} pixels, the file holds {held}. Copy or export it again."
        )
    require_decoder(dataset, path)
    try:
        with lenient():
            array = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise whatever they like
        raise SynthDoseError(
            f"{path}: the pixels ({syntax_name(dataset)}) cannot be decoded; they are damaged or incomplete "
            f"({clean_text(error, 160)}). Copy or export it again."
        ) from error
    return array if array.ndim == 3 else array[None]


def _unit(
    header: Dataset, kind: str, frames: Sequence[Frame], values: NDArray[np.float32]
) -> tuple[str, NDArray[np.float32], tuple[str, ...]]:
    """Return the unit of the values, converted from counts where the file gives the factor."""
    if kind == "CT":
        return "HU", values, ()
    units = {f.unit for f in frames}
    if units != {""}:
        return next(iter(units - {""})), values, ()
    if kind == "MR":
        return "", values, ()
    stated = str(header.get("Units") or "").strip().upper()
    unit = UNITS.get(stated, stated if kind == "PT" else stated or "counts")
    normalised = clean_text(header.get("SUVType"), 16).upper()
    if unit == "g/ml" and normalised not in ("", "BW"):
        # lean body mass and others are in g/ml too, and must not be taken for body weight
        unit = f"g/ml ({normalised})"
    if unit == "counts" and (factors := philips_factors(header)):
        # private elements of Philips: counts to Bq/ml, or where that is missing, to body-weight SUV
        meant, factor = next(iter(factors.items()))
        return (
            meant,
            values * np.float32(factor),
            (f"Counts were converted with the file's factor of {factor:g} {meant} each.",),
        )
    return unit, values, ()


def _refer_to_start(
    path: Path,
    values: NDArray[np.float32],
    kind: str,
    unit: str,
    frames: Sequence[Frame],
    metadata: dict[str, Any],
    acquired_at: datetime | None,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Make the activities of a PET refer to `acquired_at`, whatever the scanner corrected them to, and say so in `metadata`.

    SUV stays as it is: by its definition it does not depend on when it is taken.
    """
    if kind != "PT" or unit != "Bq/ml":
        return values, ()
    correction = metadata.get("decay_correction", "")
    half_life = metadata.get("half_life_s")
    if correction == "ADMIN":
        injected = metadata.get("injected_at")
        missing = [
            name
            for name, value in (("half-life", half_life), ("injection time", injected), ("acquisition time", acquired_at))
            if value is None
        ]
        if missing or half_life is None or injected is None or acquired_at is None:
            raise SynthDoseError(
                f"{path}: the PET is decay-corrected to the injection, but lacks its {', '.join(missing)}: the activity "
                "at the scan is not known. Export it corrected to the start of the scan, or add what is missing."
            )
        seconds = seconds_between(injected, acquired_at, metadata.get("timezone_offset", ""))
        if seconds is None:
            raise SynthDoseError(
                f"{path}: the PET is decay-corrected to the injection, whose time has a time zone ({injected}) while that "
                "of the scan has none. Write administered_at without its zone."
            )
        note = f"The PET was decay-corrected to the injection; it was brought to the start of the scan, {seconds:.0f} s later."
        metadata |= {"decay_correction": "START", "decay_correction_header": "ADMIN"}  # nobody takes it back twice
        return values * np.float32(0.5 ** (seconds / half_life)), (note,)
    if correction == "NONE" and acquired_at is not None and half_life is not None:
        times = [acquisition_moment(f.file.header) for f in frames]
        late = np.array([(t - acquired_at).total_seconds() if t else 0.0 for t in times])
        if late.max() > 0.002 * half_life:
            factors = (2.0 ** (late / half_life)).astype(np.float32)
            note = (
                f"The PET is not decay-corrected; its slices, up to {late.max():.0f} s apart, were corrected to the first one."
            )
            metadata |= {"decay_correction": "START", "decay_correction_header": "NONE"}
            return values * factors[:, None, None], (note,)
    if not correction:
        return values, (
            "The header does not say what time the activities were decay-corrected to (DecayCorrection): the start of the scan "
            "was taken.",
        )
    return values, ()
