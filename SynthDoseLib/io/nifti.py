"""What ITK's NIfTI reader hides: values that are not finite become zeros, and the sign of the third axis is not passed on."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core import SynthDoseError

_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI datatype codes of float32 and float64
_BLOCK = 1 << 22
_DEFLATE_LIMIT = 1100  # deflate makes nothing smaller than by 1032
_MOST_BEFORE_VOXELS = 1 << 24  # header and extensions
_NIFTI2_LENGTH = {order: struct.pack(f"{order}i", 540) for order in "<>"}


class RawHeader(NamedTuple):
    """Fields of a NIfTI header as they are in the file.

    Attributes
    ----------
    order : str
        "<" or ">".
    kind, bits : int
        Type of the stored values and their size; a reader may turn them into others by slope and intercept.
    offset : int
        Of the values in their file, bytes.
    qfac : float
        -1 where the third axis of the qform is to be turned round.
    """

    order: str
    kind: int
    bits: int
    offset: int
    qfac: float


def raw_header(path: Path) -> RawHeader | None:
    """Read the header of a NIfTI-1 or NIfTI-2 file, which may be compressed; None for other formats of the same suffix.

    References
    ----------
    nifti1.h and nifti2.h of the NIfTI Data Format Working Group: sizeof_hdr, datatype, bitpix, vox_offset, pixdim[0].
    """
    try:
        with _open(path) as stream:
            start = stream.read(200)
    except (EOFError, OSError, zlib.error):
        return None
    for order in "<>" if len(start) == 200 else "":
        (length,) = struct.unpack_from(f"{order}i", start, 0)
        if length == 348:
            kind, bits = struct.unpack_from(f"{order}2h", start, 70)
            qfac, offset = struct.unpack_from(f"{order}f", start, 76)[0], int(struct.unpack_from(f"{order}f", start, 108)[0])
            return RawHeader(order, kind, bits, offset, -1.0 if qfac < 0 else 1.0)
        if length == 540:
            kind, bits = struct.unpack_from(f"{order}2h", start, 12)
            qfac, offset = struct.unpack_from(f"{order}d", start, 104)[0], struct.unpack_from(f"{order}q", start, 168)[0]
            return RawHeader(order, kind, bits, offset, -1.0 if qfac < 0 else 1.0)
    return None


def is_nifti2(path: Path) -> bool:
    """Whether a file, which may be compressed, begins as NIfTI-2 does."""
    try:
        with _open(path) as stream:
            start = stream.read(8)
    except (EOFError, OSError, zlib.error):
        return False
    return start[:4] in _NIFTI2_LENGTH.values() and start[4:7] in (b"n+2", b"ni2")


def write_as_nifti1(path: Path, target: Path) -> None:
    """Write a NIfTI-2 file as NIfTI-1, which ITK reads: the same voxels, the header's numbers in fewer digits.

    Raises
    ------
    SynthDoseError
        If it is one of a pair of files, has axes that NIfTI-1 cannot hold, or is incomplete.

    References
    ----------
    nifti1.h and nifti2.h of the NIfTI Data Format Working Group.
    """
    try:
        with _open(path) as stream, open(target, "wb") as written:
            old = stream.read(540)
            if old[4:7] != b"n+2" or len(old) < 540:
                raise SynthDoseError(
                    f"{path} is the header of a NIfTI-2 pair (.hdr and .img), which is not read. Convert it to one file (.nii)."
                )
            order = next(order for order, length in _NIFTI2_LENGTH.items() if old[:4] == length)
            dimensions = struct.unpack_from(f"{order}8q", old, 16)
            offset = struct.unpack_from(f"{order}q", old, 168)[0]
            bits = struct.unpack_from(f"{order}h", old, 14)[0]
            axes = dimensions[1 : dimensions[0] + 1] if 1 <= dimensions[0] <= 7 else ()
            if not axes or min(axes) < 1 or max(axes) > 32767 or not 540 <= offset <= _MOST_BEFORE_VOXELS or bits < 1:
                raise SynthDoseError(f"{path}: its NIfTI-2 header is damaged, or an axis has more than 32767 voxels.")
            left = math.prod(axes) * bits // 8
            if left > path.stat().st_size * _DEFLATE_LIMIT:
                raise SynthDoseError(f"{path} is incomplete: its header declares {left / 1e6:.0f} MB of voxels. Copy it again.")
            try:
                written.write(_nifti1_header(old, order, dimensions))
            except OverflowError as error:
                raise SynthDoseError(f"{path}: its NIfTI-2 header is damaged ({error}). Copy or export it again.") from error
            stream.read(offset - 540)
            while left > 0 and (block := stream.read(min(_BLOCK, left))):
                written.write(block)
                left -= len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise SynthDoseError(f"{path} is damaged or incomplete: it cannot be unpacked. Copy or export it again.") from error


def _nifti1_header(old: bytes, order: str, dimensions: tuple[int, ...]) -> bytes:
    def numbers(kind: str, offset: int) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{kind}", old, offset)

    new = bytearray(352)

    def put(kind: str, offset: int, *values: float) -> None:
        struct.pack_into(f"{order}{kind}", new, offset, *values)

    put("i", 0, 348)
    put("8h", 40, *(n if 0 < n <= 32767 else 1 for n in dimensions))
    put("2h", 70, *numbers("2h", 12))
    put("8f", 76, *numbers("8d", 104))
    put("f", 108, 352)
    put("2f", 112, *numbers("2d", 176))
    put("b", 123, int(numbers("i", 500)[0]) & 0x7F)
    put("2h", 252, *(int(code) for code in numbers("2i", 344)))
    put("6f", 256, *numbers("6d", 352))
    put("12f", 280, *numbers("12d", 400))
    new[344:348] = b"n+1\0"
    return bytes(new)


def require_finite_floats(header: Path, data_file: Path, count: int) -> None:
    """Refuse a NIfTI file of floats that holds NaN or infinity.

    Parameters
    ----------
    header, data_file : Path
        The same file, or the pair of ``.hdr`` and ``.img``; either may be compressed.
    count : int
        Number of voxels.

    Raises
    ------
    SynthDoseError
        Says how many values are not finite.
    """
    said = raw_header(header)
    if said is None or said.kind not in _FLOAT_TYPES:
        return  # the reader has said so if it is no NIfTI
    number = np.dtype(said.order + _FLOAT_TYPES[said.kind])
    bad, left = 0, count * number.itemsize
    with _open(data_file) as stream:
        stream.read(max(said.offset, 0))
        while left > 0 and (block := stream.read(min(_BLOCK, left))):
            left -= len(block)
            values = np.frombuffer(block[: len(block) // number.itemsize * number.itemsize], number)
            bad += values.size - int(np.isfinite(values).sum())
    if bad:
        raise SynthDoseError(
            f"{header}: {bad} of {count} values are not finite numbers (NaN or infinite). "
            "Replace them by what they stand for, or export the image again."
        )


def _open(path: Path) -> gzip.GzipFile:
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")  # type: ignore[return-value]
