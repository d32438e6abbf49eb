"""What ITK's NIfTI reader hides: it turns values that are not finite into zeros while reading."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from ..core import SynthDoseError

_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI datatype codes of float32 and float64
_BLOCK = 1 << 22


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

    References
    ----------
    nifti1.h and nifti2.h of the NIfTI Data Format Working Group: sizeof_hdr, datatype, vox_offset.
    """
    with _open(header) as stream:
        start = stream.read(200)
    for order in "<>":
        (length,) = struct.unpack_from(f"{order}i", start, 0)
        if length == 348:
            (kind,) = struct.unpack_from(f"{order}h", start, 70)
            offset = int(struct.unpack_from(f"{order}f", start, 108)[0])
            break
        if length == 540:
            (kind,) = struct.unpack_from(f"{order}h", start, 12)
            (offset,) = struct.unpack_from(f"{order}q", start, 168)
            break
    else:
        return  # not NIfTI: the reader has said so, or it is another format of the same suffix
    if kind not in _FLOAT_TYPES:
        return
    number = np.dtype(order + _FLOAT_TYPES[kind])
    bad, left = 0, count * number.itemsize
    with _open(data_file) as stream:
        stream.read(max(offset, 0))
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
