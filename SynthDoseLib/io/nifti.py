"""What ITK's NIfTI reader hides: values that are not finite become zeros, and the sign of the third axis is not passed on."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core import SynthDoseError

_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI datatype codes of float32 and float64
_BLOCK = 1 << 22


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
