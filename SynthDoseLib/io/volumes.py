"""Volumes of results as NRRD: compressed, in LPS as ITK and Slicer write it, with their unit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import ArrayLike, NDArray

from ..core import SynthDoseError, VoxelGrid, atomic_path
from ..core.volumes import require_shape
from .geometry import grid_of, lps_matrix, right_handed
from .images import NOTE_KEY, UNIT_KEY, detect_format, place, require_path
from .plain import read_plain
from .text import clean_text

_COMPRESSION_LEVEL = 1  # dose and activity maps shrink as much with 1 as with 9, ten times as fast


def write_volume(
    path: str | os.PathLike[str], values: ArrayLike, grid: VoxelGrid, *, unit: str = "", notes: Iterable[str] = ()
) -> None:
    """Write an array with its geometry as NRRD (gzip), or in the format of the suffix.

    Parameters
    ----------
    path : path-like
        ``.nrrd``, ``.nii.gz`` or ``.mha``; the folder has to exist. Written to a temporary name and renamed.
    values : array_like, (nk, nj, ni)
        float32 unless it is an array of integers; those are kept (bool becomes uint8).
    grid : VoxelGrid
    unit : str
        Kept in the header of NRRD (`SynthDose_unit`); `read_image` and `read_volume` give it back.
    notes : iterable of str
        Kept in the header of NRRD.

    Raises
    ------
    SynthDoseError
        If the shape is not the grid's, or the file cannot be written.
    """
    image = itk_image(np.asarray(values), grid)
    if unit:
        image.SetMetaData(UNIT_KEY, clean_text(unit))
    lines = [clean_text(note, 500) for note in notes]
    if lines:
        image.SetMetaData(NOTE_KEY, " | ".join(lines))
    save_itk(image, path)


def read_volume(path: str | os.PathLike[str]) -> tuple[NDArray[Any], VoxelGrid, str]:
    """Read what `write_volume` wrote: the array with its own type, the grid, the unit.

    Unlike `read_image` it keeps integers and takes the values as they are (material indices, dose, density).

    Raises
    ------
    SynthDoseError
        If the file is damaged, or does not say where it is in the patient.
    """
    source = require_path(path)
    if detect_format(source) not in ("nrrd", "nifti", "meta"):
        raise SynthDoseError(f"{source} is not an NRRD, NIfTI or MetaImage volume.")
    image = read_plain(source)
    matrix, _ = place(source, image, None, None)
    values, matrix, _ = right_handed(image.values, matrix)
    grid = grid_of(source, values, matrix)
    return values, grid, clean_text((image.header or {}).get(UNIT_KEY, ""))


def file_grid(path: str | os.PathLike[str]) -> VoxelGrid:
    """Grid of an NRRD, NIfTI or MetaImage file in the file's own voxel order, which may be left-handed.

    `read_volume` hands out right-handed grids; results that have to line up with the file voxel by voxel go back to this one
    (`core.resample` between the two only re-orders).
    """
    source = require_path(path)
    image = read_plain(source)
    matrix, _ = place(source, image, None, None)
    return grid_of(source, image.values, matrix)


def itk_image(values: NDArray[Any], grid: VoxelGrid) -> SimpleITK.Image:
    """SimpleITK image (LPS) of an array (nk, nj, ni); float64 becomes float32, bool uint8."""
    require_shape("The volume to write", values, grid.shape)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    elif not np.issubdtype(values.dtype, np.integer):
        values = values.astype(np.float32)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values))
    matrix = lps_matrix(grid)
    spacing = np.asarray(grid.spacing_mm)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection([float(x) for x in (matrix[:3, :3] / spacing).ravel()])
    image.SetOrigin([float(x) for x in matrix[:3, 3]])
    return image


def save_itk(image: SimpleITK.Image, path: str | os.PathLike[str]) -> None:
    """Write an ITK image atomically; a full disk or a missing permission becomes `SynthDoseError`."""
    with writing(path) as temporary:
        SimpleITK.WriteImage(image, str(temporary), True, _COMPRESSION_LEVEL)
        if temporary.name.lower().endswith((".nii", ".nii.gz")):
            # ITK's NIfTI writer does not notice a full disk
            try:
                read_plain(temporary)
            except SynthDoseError as error:
                raise SynthDoseError(f"Cannot write {path}: the disk is full, or the file was changed meanwhile.") from error


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`atomic_path` for writers that raise RuntimeError: ITK does not say why a file cannot be written.

    Raises
    ------
    SynthDoseError
        If the folder is missing, may not be written to, or the disk is full.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise SynthDoseError(f"Cannot write {target}: the folder {target.parent} does not exist. Make it first.")
    try:
        with atomic_path(target) as temporary:
            yield temporary
            _require_written(temporary)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = clean_text(lines[-1] if lines else error, 200)
        raise SynthDoseError(
            f"Cannot write {target}: {reason}. Check the free space and the permissions of the folder."
        ) from error


def _require_written(temporary: Path) -> None:
    """Some writers end without an error on a full disk; what the system could not take shows when it is synced."""
    with open(temporary, "rb+") as stream:
        os.fsync(stream.fileno())
