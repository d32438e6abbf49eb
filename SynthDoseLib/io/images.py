"""One door for all images: `read_image`."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import ImageVolume, SynthDoseError
from .finish import finish_image
from .geometry import centred_matrix, orientation_of, require_spacing
from .interfile import read_interfile
from .plain import PlainImage, read_plain
from .text import clean_text

UNIT_KEY = "SynthDose_unit"
NOTE_KEY = "SynthDose_notes"
FORMATS = "a DICOM folder or file, NRRD (.nrrd, .nhdr), NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), Interfile (.h33, .hdr)"
_UNIT_OF_MODALITY = {"CT": "HU"}


def read_image(
    path: str | os.PathLike[str],
    *,
    spacing_mm: Sequence[float] | None = None,
    orientation: str | None = None,
    hu_offset: float = 0.0,
    modality: str | None = None,
    unit: str | None = None,
    series: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ImageVolume:
    """Read one image volume, whatever the format: it is recognised by its content.

    Parameters
    ----------
    path : path-like
        A DICOM folder or file, NRRD, NIfTI, MetaImage or Interfile header.
    spacing_mm : sequence of 3 float, optional
        Between columns, rows and slices, mm; only for files that do not say.
    orientation : str, optional
        Three letters, towards where columns, rows and slices increase ("LPS", "RAS" …); only for files that
        do not say.
    hu_offset : float
        Added to every value: -1000 for density-like values in which water is 1000.
    modality : str, optional
        "CT", "MR", "PT" or "NM". With DICOM it chooses among the series; other formats do not say it.
    unit : str, optional
        Of the values, for files that do not say or hold counts: "HU", "Bq/ml", "g/ml".
    series : str, optional
        SeriesInstanceUID, when a DICOM folder holds several.
    overrides : mapping, optional
        Metadata by the names below (also ``acquired_at``) that replace what the header says, before anything is
        computed from it.
    defaults : mapping, optional
        Metadata for what the header does not say.

    Returns
    -------
    ImageVolume
        On a right-handed RAS grid. What was resampled, re-ordered or replaced is told in `notes`.

    Raises
    ------
    SynthDoseError
        If there is no image, or several; if slices are missing or twice; if the place in the patient is not
        known; if values are not finite; if the file is damaged.

    Notes
    -----
    For DICOM, `metadata` may hold: ``patient_id``, ``patient_weight_kg``, ``patient_height_m``,
    ``patient_sex``, ``patient_age``,
    ``patient_age_years``, ``radionuclide`` ("Lu-177"), ``half_life_s``, ``injected_activity_MBq``, ``injected_at``,
    ``decay_correction`` ("START", "ADMIN", "NONE": of the values as they are handed out; if the reader changed it,
    ``decay_correction_header`` is what the file said), ``duration_s``, ``timezone_offset``, ``corrections``,
    ``activity_factor_Bq_ml``, ``suv_factor``, ``suv_type``, ``units``, ``study_instance_uid``,
    ``series_instance_uid``, ``series_description``, ``frame_of_reference_uid``, ``manufacturer``.
    """
    source = require_path(path)
    kind = detect_format(source)
    if kind == "dicom":
        from .dicom_files import guarded
        from .dicom_images import read_dicom_image

        _require_silence(source, spacing_mm, orientation)
        with guarded(source):
            image = read_dicom_image(
                source, modality=modality, series=series, hu_offset=hu_offset, overrides=overrides, defaults=defaults
            )
        return _with_unit(source, image, unit)
    plain = read_interfile(source) if kind == "interfile" else read_plain(source)
    matrix, notes = place(source, plain, spacing_mm, orientation)
    header = plain.header or {}
    said_modality = "CT" if header.get("exam type", "").upper() == "CT" else ""
    chosen = (modality or said_modality).upper()
    said_unit = clean_text(header.get(UNIT_KEY, ""))
    if hu_offset and not chosen:
        chosen = "CT"
    return finish_image(
        source,
        plain.values,
        matrix,
        modality=chosen,
        unit=unit or said_unit or _UNIT_OF_MODALITY.get(chosen, ""),
        hu_offset=hu_offset,
        acquired_at=(overrides or {}).get("acquired_at"),
        metadata={**(defaults or {}), **(overrides or {})},
        notes=(*plain.notes, *notes),
    )


def _require_silence(path: Path, spacing_mm: Sequence[float] | None, orientation: str | None) -> None:
    given = [name for name, value in (("spacing_mm", spacing_mm), ("orientation", orientation)) if value is not None]
    if given:
        raise SynthDoseError(f"{path} is DICOM, which says its place itself. Leave {' and '.join(given)} out.")


def _with_unit(path: Path, image: ImageVolume, unit: str | None) -> ImageVolume:
    """Give counts the unit that the caller knows; refuse one that contradicts the file."""
    if unit is None or unit == image.unit:
        return image
    if image.unit not in ("", "counts"):
        raise SynthDoseError(f"{path} says that its values are in {image.unit}, but unit = '{unit}' was given. Leave unit out.")
    note = f"The values were taken as {unit}, as stated by the user; the file says {image.unit or 'nothing'}."
    return replace(image, unit=unit, notes=(*image.notes, note))


def require_path(path: str | os.PathLike[str]) -> Path:
    """Return the path; raise `SynthDoseError` if nothing readable is there."""
    source = Path(path)
    try:
        if not source.exists():
            raise SynthDoseError(f"{source} does not exist. Give {FORMATS}.")
        if source.is_file():
            with open(source, "rb"):
                pass
        else:
            os.listdir(source)
    except OSError as error:
        raise SynthDoseError(f"{source} cannot be read: {error.strerror or error}. Check its permissions.") from error
    if source.is_file() and source.stat().st_size == 0:
        raise SynthDoseError(f"{source} is empty (0 bytes). Copy or export it again.")
    return source


def detect_format(path: Path) -> str:
    """Return "dicom", "nrrd", "nifti", "meta" or "interfile" by the content of a file; a folder is "dicom".

    Raises
    ------
    SynthDoseError
        If it is none of them.
    """
    if path.is_dir():
        return "dicom"
    head = _head(path)
    text = head.decode("latin-1")
    name = path.name.lower()
    if head[128:132] == b"DICM":
        return "dicom"
    if text.startswith("NRRD000"):
        return "nrrd"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if "!INTERFILE" in text[:512].upper().replace(" ", ""):
        return "interfile"
    if name.endswith((".mha", ".mhd")) or text.startswith(("ObjectType", "NDims")):
        return "meta"
    if name.endswith((".hdr", ".img")):
        raise SynthDoseError(
            f"{path} is neither Interfile nor NIfTI; Analyze 7.5 does not say left from right. Convert it to NIfTI."
        )
    if name.endswith((".i33", ".a00", ".v", ".raw", ".bin")):
        raise SynthDoseError(f"{path} is raw data. Give its Interfile or MetaImage header instead.")
    if name.endswith((".zip", ".xz", ".gz", ".tar", ".tgz", ".7z", ".bz2")):
        raise SynthDoseError(f"{path} is an archive. Unpack it and give the folder or file inside.")
    from .dicom_files import is_dicom_file

    if is_dicom_file(path):
        return "dicom"
    raise SynthDoseError(f"{path} is not an image format that is read. Give {FORMATS}.")


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        head = stream.read(1024)
    if head[:2] != b"\x1f\x8b" or not path.name.lower().endswith(".nii.gz"):
        return head
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read(1024)
    except (EOFError, OSError, zlib.error) as error:
        raise SynthDoseError(f"{path} is damaged or incomplete: it cannot be unpacked. Copy or export it again.") from error


def place(
    path: Path, image: PlainImage, spacing_mm: Sequence[float] | None, orientation: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the ``ijk_to_ras`` matrix of a file, with what the caller states where the file is silent, and notes."""
    shape = image.values.shape[:3]
    if image.ijk_to_ras is not None:
        said = orientation_of(image.ijk_to_ras)
        if orientation is not None and orientation.strip().upper() != said:
            raise SynthDoseError(
                f"{path} says that its orientation is {said}, but orientation = '{orientation}' was given. "
                "Leave orientation out: it is only for files that do not say."
            )
        if spacing_mm is not None and not np.allclose(require_spacing(spacing_mm), image.spacing_mm or (), rtol=1e-3):
            raise SynthDoseError(
                f"{path} says that its spacing is {image.spacing_mm} mm, but spacing_mm = {tuple(spacing_mm)} was given. "
                "Leave spacing_mm out: it is only for files that do not say."
            )
        return image.ijk_to_ras, ()
    spacing = image.spacing_mm if spacing_mm is None else require_spacing(spacing_mm)
    if orientation is None or spacing is None:
        needed = ["orientation (three letters: towards where columns, rows and slices increase, such as 'LPS')"] * (
            orientation is None
        ) + ["spacing_mm (between columns, rows and slices)"] * (spacing is None)
        raise SynthDoseError(f"{path}: {image.missing}. State {' and '.join(needed)}.")
    matrix = centred_matrix((shape[0], shape[1], shape[2]), spacing, orientation)
    sizes = " x ".join(f"{s:g}" for s in spacing)
    note = (
        f"Orientation {orientation.strip().upper()} and spacing {sizes} mm were stated by the user, not by the file; "
        "the middle of the image was put at RAS (0, 0, 0)."
    )
    return matrix, (note,)
