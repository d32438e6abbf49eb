"""Interfile 3.3: a text header and a raw data file beside it.

The format leaves the place in the patient open and its sizes are often wrong in the wild (a slice thickness "in
pixels" that is in mm), so orientation and, unless all three spacings are given in mm, spacing come from the caller.

References
----------
Todd-Pokropek, Cradduck & Deconinck, Nucl. Med. Commun. 13 (1992) 673-699 (keys).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core import SynthDoseError
from .plain import PlainImage, file_beside

_TYPES = {
    "unsigned integer": "u",
    "signed integer": "i",
    "short float": "f",
    "long float": "f",
    "float": "f",
}
_HEADER_LIMIT = 1 << 20


def read_interfile(path: Path) -> PlainImage:
    """Read an Interfile header and its data.

    Raises
    ------
    SynthDoseError
        If a key is missing or not supported, or the data file is too short or not beside the header.
    """
    header = _header(path)
    if header.get("data compression", "none").lower() not in ("none", "") or header.get("data encode", "none").lower() not in (
        "none",
        "",
    ):
        raise SynthDoseError(f"{path}: compressed or encoded Interfile data is not read. Export it without compression.")
    shape = _shape(path, header)
    dtype = _dtype(path, header)
    data_file = file_beside(path, header.get("name of data file", ""))
    offset = _integer(path, header, "data offset in bytes", 0) or 2048 * _integer(path, header, "data starting block", 0)
    needed = int(np.prod(shape)) * dtype.itemsize
    held = os.path.getsize(data_file) - offset
    if held < needed:
        raise SynthDoseError(
            f"{path} declares {shape[2]} x {shape[1]} x {shape[0]} values of {dtype.itemsize} bytes ({needed} bytes), but "
            f"{data_file.name} holds {max(held, 0)}. The data file is incomplete, or the header is of another file."
        )
    values = np.fromfile(data_file, dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
    spacing, missing = _spacing(header)
    notes = []
    if held > needed:
        notes.append(f"{data_file.name} holds {held - needed} bytes more than its header declares; they were not read.")
    factor = header.get("quantification units", "1")
    if re.fullmatch(r"[-+0-9.eE]+", factor) and float(factor) != 1:
        values = values.astype(np.float32) * np.float32(factor)
        notes.append(f"Values were multiplied by the header's 'quantification units' of {float(factor):g}.")
    return PlainImage(values, spacing, None, missing, header, tuple(notes))


def _header(path: Path) -> dict[str, str]:
    with open(path, "rb") as stream:
        text = stream.read(_HEADER_LIMIT).decode("latin-1")
    keys: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":=")
        key = re.sub(r"\s+", " ", key.strip().lstrip("!").strip().lower())
        key = re.sub(r" ?\[ ?(\d) ?\]", r" [\1]", key)
        if key == "end of interfile":
            break
        if separator and key and not key.startswith(";"):
            keys[key] = value.split(";")[0].strip()
    if "interfile" not in keys:
        raise SynthDoseError(f"{path} is not an Interfile header: its first line has to be '!INTERFILE :='.")
    return keys


def _integer(path: Path, header: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = header.get(key, "")
    if not text and default is not None:
        return default
    if not re.fullmatch(r"\d{1,9}", text):
        found = f"is '{text[:40]}'" if text else "is missing"
        raise SynthDoseError(f"{path}: the header key '{key}' {found}; a whole number is needed. Correct the header.")
    return int(text)


def _shape(path: Path, header: Mapping[str, str]) -> tuple[int, int, int]:
    ni, nj = (_integer(path, header, f"matrix size [{n}]") for n in (1, 2))
    slices = {
        key: _integer(path, header, key)
        for key in ("matrix size [3]", "number of slices", "total number of images")
        if header.get(key)
    }
    if len(set(slices.values())) != 1 or min(ni, nj, *slices.values()) < 1:
        found = ", ".join(f"'{key}' = {value}" for key, value in slices.items()) or "none of them"
        raise SynthDoseError(
            f"{path}: the number of slices has to be given, and once: by 'matrix size [3]', 'number of slices' or "
            f"'total number of images'; found {found}. Several volumes in one file are not read."
        )
    return next(iter(slices.values())), nj, ni


def _dtype(path: Path, header: Mapping[str, str]) -> np.dtype:
    kind = _TYPES.get(header.get("number format", "").lower())
    size = _integer(path, header, "number of bytes per pixel")
    allowed = {"u": (1, 2, 4), "i": (1, 2, 4), "f": (4, 8)}
    if kind is None or size not in allowed[kind]:
        raise SynthDoseError(
            f"{path}: 'number format' = '{header.get('number format', '')[:40]}' with {size} bytes per pixel is not read. "
            f"Known formats: {', '.join(_TYPES)}."
        )
    order = re.sub(r"[\s_-]", "", header.get("imagedata byte order", header.get("image data byte order", ""))).lower()
    if order not in ("littleendian", "bigendian", ""):
        raise SynthDoseError(f"{path}: 'imagedata byte order' = '{order[:40]}' is neither LITTLEENDIAN nor BIGENDIAN.")
    # the standard's default is big endian
    return np.dtype(f"{'<' if order == 'littleendian' else '>'}{kind}{size}")


def _number(header: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(header.get(key, ""))
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _spacing(header: Mapping[str, str]) -> tuple[tuple[float, float, float] | None, str]:
    i, j, k = (_number(header, f"scaling factor (mm/pixel) [{n}]") for n in (1, 2, 3))
    if i and j and k:
        return (i, j, k), "Interfile does not say how the patient lies in the image"
    missing = "Interfile does not say how the patient lies in the image, and this header does not give all spacings in mm"
    thickness = _number(header, "slice thickness (pixels)") or _number(header, "centre-centre slice separation (pixels)")
    if i and j and thickness:
        missing += (
            f" (columns {i:g} mm, rows {j:g} mm; slices '{thickness:g} pixels', which is {thickness * i:.4g} mm if in pixels "
            f"as the standard has it, {thickness:g} mm if it was written in mm)"
        )
    return None, missing
