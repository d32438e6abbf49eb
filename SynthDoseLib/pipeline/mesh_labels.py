"""Organ surfaces as a segmentation: one mesh file per organ, named like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, SynthDoseError, VoxelGrid, organ_table
from ..io.overlap import combine
from ..phantom.meshes import SUFFIXES, mesh_mask, read_mesh


def mesh_files(path: Path) -> list[Path]:
    """Mesh files that a path means: itself, or those in a folder that holds nothing else; none if it is something else."""
    if path.suffix.lower() in SUFFIXES:
        return [path]
    if not path.is_dir():
        return []
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    meshes = [entry for entry in files if entry.suffix.lower() in SUFFIXES]
    return meshes if meshes and len(meshes) == len(files) else []


def read_mesh_labels(files: Sequence[Path], grid: VoxelGrid) -> LabelMap:
    """Label the voxels of a grid whose centres lie inside closed meshes; where meshes overlap, the smaller organ is kept.

    Parameters
    ----------
    files : sequence of Path
        STL, VTP, PLY or OBJ, mm, LPS unless they say otherwise; an organ is called like its file.
    grid : VoxelGrid

    Raises
    ------
    SynthDoseError
        If a mesh is not closed or not manifold, lies outside the grid, or two files have one name.
    """
    names = [file.stem for file in files]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SynthDoseError(f"Two meshes are called {', '.join(doubled)}. Give each organ one mesh.")
    organs = organ_table(names)
    notes: list[str] = []

    def masks() -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for organ, file in zip(organs, files, strict=True):
            mesh = read_mesh(file)
            notes.extend(mesh.notes)
            try:
                yield organ.index, mesh_mask(mesh, grid)
            except SynthDoseError as error:
                raise SynthDoseError(f"{file.name}: {error}") from error

    labels, overlaps = combine(masks(), organs, grid)
    return LabelMap(grid, labels, organs, (f"Organs are the insides of {len(files)} meshes.", *notes, *overlaps))
