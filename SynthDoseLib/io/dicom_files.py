"""Finding DICOM files, grouping them into series, choosing one; and what pydicom 2.4 and 3.0 do differently."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from ..core import SynthDoseError
from .text import clean_text

IMAGE_MODALITIES = ("CT", "MR", "PT", "NM")
_NAMED = 5  # files in a note

_DAMAGE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A file and its header, without pixels."""

    path: Path
    header: Dataset

    @property
    def modality(self) -> str:
        """The header's modality, cleaned."""
        return clean_text(self.header.get("Modality"), 16).upper()


@contextmanager
def lenient() -> Iterator[None]:
    """Real files break the rules on lengths and characters; pydicom's warnings about that help no user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what pydicom raises on damaged values, which it only looks at when they are asked for, into one message."""
    try:
        with lenient():
            yield
    except _DAMAGE as error:
        raise SynthDoseError(f"{path}: a DICOM header is damaged or incomplete ({clean_text(error, 160)}).") from error


def read_dataset(path: Path, *, pixels: bool = True) -> FileDataset:
    """Read a DICOM file, also one without the 128-byte preamble.

    Raises
    ------
    SynthDoseError
        If it is no DICOM file or damaged.
    """
    try:
        with lenient():
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
            except InvalidDicomError:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
                if "SOPClassUID" not in dataset:
                    raise
                if "TransferSyntaxUID" not in dataset.file_meta:
                    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    except InvalidDicomError as error:
        raise SynthDoseError(f"{path} is not a DICOM file.") from error
    except _DAMAGE as error:
        raise SynthDoseError(f"{path} is damaged or incomplete and cannot be read ({clean_text(error, 160)}).") from error
    return dataset


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, with or without preamble."""
    with open(path, "rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM":
        return True
    # without a preamble the first element is of group 2 or 8, which no text and few other files begin with
    if head[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    try:
        read_dataset(path, pixels=False)
    except SynthDoseError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Scan:
    """What a folder holds: DICOM files, and files that seem to belong to them but cannot be used, with the reason."""

    files: list[DicomFile]
    skipped: list[tuple[Path, str]]

    def notes(self) -> tuple[str, ...]:
        """How many files were left out, which, and why; nothing if there are none."""
        if not self.skipped:
            return ()
        listed = "; ".join(f"{path.name} {why}" for path, why in self.skipped[:_NAMED])
        more = f"; and {len(self.skipped) - _NAMED} more" if len(self.skipped) > _NAMED else ""
        which = "1 file that cannot be used was" if len(self.skipped) == 1 else f"{len(self.skipped)} unusable files were"
        return (f"{which} left out: {listed}{more}. Copy or export the series again if it should hold more.",)


def scan(path: Path) -> Scan:
    """Read the headers of a DICOM file, or of all DICOM files in a folder and its subfolders.

    Files of other kinds are ignored. What is empty, damaged, or has the suffix of DICOM files beside it but is none, is listed.
    """
    if path.is_file():
        return Scan([DicomFile(path, read_dataset(path, pixels=False))], [])
    found: list[DicomFile] = []
    skipped: list[tuple[Path, str]] = []
    others: list[tuple[Path, str]] = []
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        for name in sorted(names):
            candidate = Path(folder) / name
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if not candidate.is_file():
                others.append((candidate, "(a link that leads nowhere)"))
                continue
            try:
                if not is_dicom_file(candidate):
                    others.append((candidate, "(no DICOM file)" if candidate.stat().st_size else "(0 bytes)"))
                    continue
                file = DicomFile(candidate, read_dataset(candidate, pixels=False))
            except OSError as error:
                raise SynthDoseError(f"{candidate} cannot be read: {error.strerror or error}.") from error
            except SynthDoseError:
                skipped.append((candidate, "(its header is damaged)"))
                continue
            if file.modality in ("", *IMAGE_MODALITIES) and "Rows" not in file.header:
                skipped.append((candidate, "(no image in it, or it ends within its header)"))
            else:
                found.append(file)
    kinds = {(file.path.parent, file.path.suffix.lower()) for file in found}
    skipped += [(other, why) for other, why in others if (other.parent, other.suffix.lower()) in kinds]
    return Scan(found, sorted(skipped))


def series_uid(file: DicomFile) -> str:
    """SeriesInstanceUID, cleaned."""
    return clean_text(file.header.get("SeriesInstanceUID"))


def describe_series(files: Sequence[DicomFile]) -> str:
    """One line on a series for messages."""
    first = files[0]
    count = len(files)
    text = clean_text(first.header.get("SeriesDescription")) or "no description"
    return f"{first.modality or '?'} '{text}', {count} file{'s' if count > 1 else ''}, series {series_uid(first)}"


def choose_series(path: Path, modality: str | None, series: str | None) -> tuple[list[DicomFile], tuple[str, ...]]:
    """Return the files of the one image series under `path`, or of the one asked for, and notes on what was left out.

    Raises
    ------
    SynthDoseError
        If there is no such series, or more than one.
    """
    scanned = scan(path)
    said = "".join(f" {note}" for note in scanned.notes())
    if not scanned.files:
        raise SynthDoseError(f"{path} holds no DICOM file that can be used, so no CT, MR, PET or SPECT. Check the path.{said}")
    groups: dict[str, list[DicomFile]] = {}
    for file in scanned.files:
        groups.setdefault(series_uid(file), []).append(file)
    images = {
        uid: group for uid, group in groups.items() if group[0].modality in IMAGE_MODALITIES and "Rows" in group[0].header
    }
    wanted = modality.strip().upper() if modality else None
    if wanted is not None and wanted not in IMAGE_MODALITIES:
        raise SynthDoseError(f"modality = '{modality}' is not known. Known: {', '.join(IMAGE_MODALITIES)}.")
    chosen = {uid: g for uid, g in images.items() if wanted in (None, g[0].modality) and (series is None or uid == series)}
    if len(chosen) > 1:
        # a scout view beside the series is no second choice
        chosen = {uid: g for uid, g in chosen.items() if not all(is_localizer(f) for f in g)} or chosen
    what = f"{wanted} series" if wanted else "CT, MR, PET or SPECT series"
    if not chosen:
        listed = "; ".join(describe_series(g) for g in list(groups.values())[:8])
        asked = f" with SeriesInstanceUID {clean_text(series)}" if series else ""
        raise SynthDoseError(f"{path} holds no {what}{asked}. It holds: {listed}.{said}")
    if len(chosen) > 1:
        listed = "; ".join(describe_series(g) for g in list(chosen.values())[:12])
        raise SynthDoseError(
            f"{path} holds {len(chosen)} series: {listed}. Give the folder of one of them, "
            "or choose by modality or SeriesInstanceUID (series)."
        )
    return next(iter(chosen.values())), scanned.notes()


def is_localizer(file: DicomFile) -> bool:
    """Whether the image is a scout view."""
    return "LOCALIZER" in [str(t).upper() for t in file.header.get("ImageType") or ()]


def save_dataset(dataset: Dataset, path: Path) -> None:
    """Write a complete DICOM file (preamble and file meta), with either pydicom."""
    # by way of memory: pydicom hides from a full disk's error what kind it was
    stream = io.BytesIO()
    if int(pydicom.__version__.split(".")[0]) >= 3:
        dataset.save_as(stream, enforce_file_format=True)
    else:
        dataset.save_as(stream, write_like_original=False)
    path.write_bytes(stream.getbuffer())
