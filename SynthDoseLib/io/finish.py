"""The last steps of every image reader: offset, padding, checks, right-handed grid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, SynthDoseError
from .geometry import grid_of, right_handed

AIR_HU = -1000.0
# scanners write -1024 (12 bit, air) at least; interpolation undershoots by some hundred, padding starts at -2000
PADDING_BELOW_HU = -1500.0


def replace_padding(values: NDArray[np.float32], padded: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
    """Set the padding of a CT in HU to air, in place, and return a note with the count; nothing if there is none."""
    mask = values < PADDING_BELOW_HU
    if padded is not None:
        mask |= padded
    count = int(mask.sum())
    if not count:
        return ()
    low, high = float(values[mask].min()), float(values[mask].max())
    found = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
    values[mask] = AIR_HU
    return (f"{count} of {values.size} voxels held padding ({found} HU) and were set to air ({AIR_HU:.0f} HU).",)


def finish_image(
    path: Path,
    values: NDArray[Any],
    ijk_to_ras: NDArray[np.float64],
    *,
    modality: str = "",
    unit: str = "",
    hu_offset: float = 0.0,
    acquired_at: datetime | None = None,
    metadata: Mapping[str, Any] | None = None,
    source_files: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    padded: NDArray[np.bool_] | None = None,
) -> ImageVolume:
    """Build the image; refuse values that are not finite and axes that are not orthogonal, naming the file.

    `values` is taken over: it may be changed in place.
    """
    if not np.isfinite(hu_offset):
        raise SynthDoseError(f"hu_offset = {hu_offset} is not a number that can be added to the image.")
    array = np.asarray(values, dtype=np.float32)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise SynthDoseError(
            f"{path}: {bad} of {array.size} values are not finite numbers (NaN or infinite). "
            "Export the image again, or replace them with the value of air or of no activity."
        )
    remarks = list(notes)
    if hu_offset:
        array += np.float32(hu_offset)
        remarks.append(f"{hu_offset:+g} was added to every value of the file, as asked.")
    if modality == "CT":
        remarks += replace_padding(array, padded)
    array, matrix, note = right_handed(array, ijk_to_ras)
    return ImageVolume(
        grid_of(path, array, matrix),
        array,
        modality=modality,
        unit=unit,
        acquired_at=acquired_at,
        metadata=dict(metadata or {}),
        source_files=source_files or (str(path),),
        notes=(*remarks, *note),
    )
