"""NRRD, NIfTI and MetaImage through SimpleITK, with the checks that ITK leaves to its callers.

ITK reads a truncated NIfTI as zeros, gives a file without orientation the identity, follows a header to data
files anywhere on the disk, and allocates what a header declares. Each of these is refused here.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ..core import SynthDoseError
from .geometry import LPS_TO_RAS, matrix_from
from .nifti import is_nifti2, raw_header, require_finite_floats, write_as_nifti1

# deflate cannot compress better than 1032 to 1, so a file that declares more is damaged or hostile
_DEFLATE_LIMIT = 1100
_HEADER_BYTES = 1 << 16
MAX_LABEL = 65535
_ANATOMICAL_SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior"}


@dataclass(frozen=True, eq=False)
class PlainImage:
    """What a file with one array and little else says.

    Attributes
    ----------
    values : ndarray, (nk, nj, ni) or (nk, nj, ni, components)
    spacing_mm : tuple of 3 float or None
        Along i, j, k; None if the file does not say.
    ijk_to_ras : ndarray (4, 4) or None
        None if the file does not say where it is in the patient.
    missing : str
        Why `ijk_to_ras` is None, as the middle of a sentence.
    header : mapping of str to str
        The file's own keys.
    """

    values: NDArray[Any]
    spacing_mm: tuple[float, float, float] | None
    ijk_to_ras: NDArray[np.float64] | None
    missing: str = ""
    header: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def read_plain(path: Path, *, components: bool = False) -> PlainImage:
    """Read an NRRD, NIfTI or MetaImage file.

    Parameters
    ----------
    path : Path
    components : bool
        Whether several values per voxel are allowed (layers of a segmentation).

    Raises
    ------
    SynthDoseError
        If the file is damaged, colour, a series in time, or its header points to files elsewhere.
    """
    if path.name.lower().endswith((".nii", ".nii.gz", ".hdr")) and is_nifti2(path):
        return _read_nifti2(path, components)
    data_file = _data_file(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    header = _information(reader, path)
    size = _require_volume(reader, path, components)
    # where a NIfTI has slope and intercept, ITK speaks of the type that it turns the stored values into
    item = int(header.get("bitpix") or 0) // 8 or np.dtype(_NUMPY_TYPE.get(reader.GetPixelID(), np.float64)).itemsize
    _require_data(path, data_file, int(np.prod(size)) * item * reader.GetNumberOfComponents(), header)
    if path.name.lower().endswith((".nii", ".nii.gz", ".hdr")):
        require_finite_floats(path, data_file, int(np.prod(size)))
    image = _execute(reader, path)
    values = SimpleITK.GetArrayFromImage(image)
    if reader.GetDimension() > 3:
        values = values.reshape(values.shape[reader.GetDimension() - 3 :])
    spacing = image.GetSpacing()[:3]
    dimension = image.GetDimension()
    directions = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    lps = matrix_from(directions, spacing, image.GetOrigin()[:3])
    missing, notes = _orientation(path, header, LPS_TO_RAS @ lps, size)
    # ITK gives 1 mm where the file gives nothing
    said = not missing or re.search(r"^(spacings:|ElementSpacing|ElementSize)", _header_text(path), re.M)
    return PlainImage(
        values,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])) if said or "pixdim[1]" in header else None,
        None if missing else LPS_TO_RAS @ lps,
        missing,
        header,
        notes,
    )


def _read_nifti2(path: Path, components: bool) -> PlainImage:
    """Read a NIfTI-2 file by way of a copy in the format that ITK knows."""
    with tempfile.TemporaryDirectory(prefix="synthdose-") as folder:
        copy = Path(folder) / "image.nii"
        write_as_nifti1(path, copy)
        try:
            return read_plain(copy, components=components)
        except SynthDoseError as error:
            raise SynthDoseError(str(error).replace(str(copy), str(path))) from error


def read_header(path: Path) -> dict[str, str]:
    """Return the file's own keys without reading its voxels."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    return _information(reader, path)


_NUMPY_TYPE = {
    SimpleITK.sitkInt8: np.int8,
    SimpleITK.sitkUInt8: np.uint8,
    SimpleITK.sitkInt16: np.int16,
    SimpleITK.sitkUInt16: np.uint16,
    SimpleITK.sitkInt32: np.int32,
    SimpleITK.sitkUInt32: np.uint32,
    SimpleITK.sitkInt64: np.int64,
    SimpleITK.sitkUInt64: np.uint64,
    SimpleITK.sitkFloat32: np.float32,
    SimpleITK.sitkFloat64: np.float64,
    SimpleITK.sitkVectorUInt8: np.uint8,
    SimpleITK.sitkVectorInt16: np.int16,
    SimpleITK.sitkVectorUInt16: np.uint16,
    SimpleITK.sitkVectorFloat32: np.float32,
}


def _information(reader: SimpleITK.ImageFileReader, path: Path) -> dict[str, str]:
    text = _header_text(path)
    if (
        text.startswith("NRRD")
        and re.search(r"^space directions:", text, re.M)
        and not re.search(r"^space( dimension)?:", text, re.M)
    ):
        raise SynthDoseError(
            f"{path} has no 'space' field, so that left is not told from right. Add it to the header "
            "('space: left-posterior-superior' or 'space: right-anterior-superior', whichever the directions are in)."
        )
    try:
        with _Quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise SynthDoseError(_damaged(path, error)) from error
    # some numbers of NIfTI headers come as raw bytes that are no text
    keys: dict[str, str] = {}
    for key in reader.GetMetaDataKeys():
        try:
            keys[key] = reader.GetMetaData(key)
        except (RuntimeError, TypeError, UnicodeDecodeError):
            continue
    return keys


def _execute(reader: SimpleITK.ImageFileReader, path: Path) -> SimpleITK.Image:
    try:
        with _Quiet():
            return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise SynthDoseError(_damaged(path, error)) from error


class _Quiet:
    """ITK's warnings go to stderr past Python; what matters in them is checked here."""

    def __enter__(self) -> None:
        self.before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)

    def __exit__(self, *_: object) -> None:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(self.before)


def _damaged(path: Path, error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if "orthonormal" in str(error):
        return (
            f"{path}: the image axes are sheared or not orthogonal, which this format's reader does not accept. "
            "Resample the image to a regular grid first."
        )
    text = re.sub(r"^ITK ERROR: \w+\(0x[0-9a-f]+\): ", "", text)
    return f"{path} cannot be read; it is damaged, incomplete, or not what its name says ({text[:200]})."


def _require_volume(reader: SimpleITK.ImageFileReader, path: Path, components: bool) -> tuple[int, int, int]:
    size = tuple(int(n) for n in reader.GetSize())
    if reader.GetNumberOfComponents() > 1 and not components:
        raise SynthDoseError(
            f"{path} has {reader.GetNumberOfComponents()} values per voxel (colour, vectors or several layers). "
            "An image with one value per voxel is needed."
        )
    if reader.GetPixelID() in (SimpleITK.sitkComplexFloat32, SimpleITK.sitkComplexFloat64):
        raise SynthDoseError(f"{path} holds complex numbers. Save the magnitude as an image of its own.")
    if len(size) > 3 and max(size[3:]) > 1:
        raise SynthDoseError(
            f"{path} holds {int(np.prod(size[3:]))} volumes ({' x '.join(map(str, size))}). "
            "One volume per file is needed: split the time points or echoes into files of their own."
        )
    if len(size) < 3:
        raise SynthDoseError(f"{path} is a flat image ({' x '.join(map(str, size))}); a volume of slices is needed.")
    return size[0], size[1], size[2]


def _header_text(path: Path) -> str:
    """Lines of a text header, without the voxels behind it."""
    with open(path, "rb") as stream:
        text = stream.read(_HEADER_BYTES).decode("latin-1")
    if text.startswith("NRRD"):
        return re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return text.split("ElementDataFile", 1)[0] + re.sub(r"(?s)^.*?(ElementDataFile[^\n]*).*$|^.*$", r"\1", text)


def _data_file(path: Path) -> Path:
    """Return the file with the voxels: the same one, or a bare name beside the header."""
    text = _header_text(path)
    if text.startswith("NRRD"):
        found = re.search(r"^data ?file:[ \t]*(.*?)[ \t]*\r?$", text, re.M | re.I)
        name = found.group(1) if found else ""
    elif path.suffix.lower() in (".mha", ".mhd"):
        found = re.search(r"^ElementDataFile[ \t]*=[ \t]*(.*?)[ \t]*\r?$", text, re.M)
        name = found.group(1) if found and found.group(1).upper() != "LOCAL" else ""
    elif path.suffix.lower() == ".hdr":
        name = path.with_suffix(".img").name
    else:
        name = ""
    if not name:
        return path
    return file_beside(path, name)


def file_beside(header: Path, name: str) -> Path:
    """Path of a data file that a header names: only a bare name in the header's own folder is followed.

    Raises
    ------
    SynthDoseError
        If the name holds a folder, or there is no such file.
    """
    if not name or any(c in name for c in "/\\:%\0") or name in (".", "..") or name.upper().startswith("LIST"):
        raise SynthDoseError(
            f"{header} names its data file as '{name[:80]}'. Only the bare name of one file in the same folder is followed: "
            "put the data beside the header and correct the name."
        )
    target = header.parent / name
    if not target.is_file():
        raise SynthDoseError(f"{header} names the data file '{name[:80]}', which is not in {header.parent}. Copy it there.")
    return target


def _require_data(path: Path, data_file: Path, declared_bytes: int, header: Mapping[str, str]) -> None:
    held = os.path.getsize(data_file)
    if declared_bytes > held * _DEFLATE_LIMIT:
        raise SynthDoseError(
            f"{path} declares {declared_bytes / 1e6:.0f} MB of voxels, but the file has only {held / 1e6:.3f} MB. "
            "It is damaged or incomplete; copy or export it again."
        )
    if "vox_offset" not in header:
        return
    offset = int(float(header["vox_offset"] or 0))
    if path.name.lower().endswith(".gz"):
        held = _unpacked_size(path, declared_bytes + offset)
    if held < declared_bytes + offset:
        raise SynthDoseError(
            f"{path} is incomplete: its header declares {declared_bytes} bytes of voxels, {max(0, held - offset)} are there. "
            "Copy or export it again."
        )


def _unpacked_size(path: Path, enough: int) -> int:
    """Count the bytes of a gzip file, reading no further than `enough`; a damaged one gives what could be read."""
    total = 0
    try:
        with gzip.open(path, "rb") as stream:
            while total < enough and (block := stream.read(1 << 20)):
                total += len(block)
    except (EOFError, OSError, zlib.error):
        # a block that fails its check loses at most its own bytes: the count is then too small, which is the point
        return min(total, enough - 1)
    return total


def _orientation(
    path: Path, header: Mapping[str, str], ijk_to_ras: NDArray[np.float64], size: tuple[int, int, int]
) -> tuple[str, tuple[str, ...]]:
    """Return why the file's orientation is unknown, or "", and notes."""
    if "qform_code" in header:
        return _nifti_orientation(path, header, ijk_to_ras, size)
    if header.get("ITK_InputFilterName") == "NrrdImageIO" or path.suffix.lower() in (".nrrd", ".nhdr"):
        space = header.get("NRRD_space", "")
        if space in _ANATOMICAL_SPACES and re.search(r"^space directions:", _header_text(path), re.M):
            return "", ()
        if space in _ANATOMICAL_SPACES:
            return "it has no 'space directions' field", ()
        if space:
            return f"its space is '{space[:40]}', which does not say how the patient lies in it", ()
        return "it has no 'space' field", ()
    if re.search(r"^(TransformMatrix|Rotation|Orientation)[ \t]*=", _header_text(path), re.M):
        return "", ()
    return "it has no TransformMatrix", ()


def _nifti_orientation(
    path: Path, header: Mapping[str, str], ijk_to_ras: NDArray[np.float64], size: tuple[int, int, int]
) -> tuple[str, tuple[str, ...]]:
    codes = [int(float(header.get(key) or 0)) for key in ("qform_code", "sform_code")]
    if not any(codes):
        return "both its qform and sform codes are 0", ()
    sform = np.array([[float(x) for x in header[f"srow_{axis}"].split()] for axis in "xyz"])
    sizes = np.array([float(header[f"pixdim[{n}]"]) for n in (1, 2, 3)])
    if codes[1] and not np.allclose(np.linalg.norm(sform[:, :3], axis=0), sizes, rtol=0.01):
        found = " and ".join(" x ".join(f"{s:.4g}" for s in edges) for edges in (np.linalg.norm(sform[:, :3], axis=0), sizes))
        raise SynthDoseError(
            f"{path}: the voxel sizes in the NIfTI header's sform and pixdim are not the same ({found} mm). "
            "Correct the header so that both agree."
        )
    if not all(codes):
        return "", ()
    corners = np.array([(i, j, k, 1.0) for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])]).T
    raw = raw_header(path)
    qform = _qform(header, raw.qfac if raw else 1.0)
    apart = float(np.abs((qform - sform) @ corners).max())
    voxel = float(np.linalg.norm(ijk_to_ras[:3, :3], axis=0).max())
    # both are printed with 6 digits, so that far from the origin they agree to about 0.01 mm
    if apart <= 0.05 + 0.01 * voxel:
        return "", ()
    if apart > voxel:
        raise SynthDoseError(
            f"{path}: the two orientations in the NIfTI header (qform and sform) put the image up to {apart:.1f} mm apart. "
            "Correct the header so that both agree, or set the code of the wrong one to 0."
        )
    return "", (f"The two orientations in the NIfTI header differ by up to {apart:.2f} mm; ITK's choice was used.",)


def _qform(header: Mapping[str, str], qfac: float) -> NDArray[np.float64]:
    b, c, d = (float(header[f"quatern_{x}"]) for x in "bcd")
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    spacing = [float(header[f"pixdim[{n}]"]) for n in (1, 2, 3)]
    spacing[2] *= qfac  # ITK has 0 for pixdim[0], where the file keeps it
    offset = [[float(header[f"qoffset_{x}"])] for x in "xyz"]
    return np.hstack([rotation * spacing, offset])


def whole_labels(path: Path, values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return label values as uint16; refuse what is no label."""
    if not np.issubdtype(values.dtype, np.integer):
        whole = np.isfinite(values).all() and bool((values == np.round(values)).all())
        if not whole:
            raise SynthDoseError(
                f"{path} holds values that are not whole numbers, so it is no label map; perhaps an image or a probability map."
            )
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > MAX_LABEL:
        raise SynthDoseError(
            f"{path} holds label values from {low:g} to {high:g}; allowed are 0 (background) to {MAX_LABEL}. "
            "Is it a label map, not an image?"
        )
    return values.astype(np.uint16)
