"""What passes between the stages: images, labels, phantoms and doses, each with its place in the patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SynthDoseError
from .grid import VoxelGrid
from .materials import DENSEST_G_CM3, Material

GAS_G_CM3 = 0.1  # about -900 HU: air has 0.0012, inflated lung 0.26 (ICRU 44)
GAS_IN_LUNG_G_CM3 = 0.02  # emphysema is still tissue; large airways and bullae are not
_LUNG = re.compile(r"(^|_)lungs?(_|$)")


def require_shape(name: str, array: NDArray[Any], shape: tuple[int, int, int]) -> None:
    """Raise `SynthDoseError` unless `array` has `shape`."""
    if array.shape != shape:
        raise SynthDoseError(f"{name} has shape {array.shape}, its grid has {shape} (slices, rows, columns).")


def label_counts(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Voxels of every label from 0 to 65535; slab by slab, because counting turns labels into numbers of 8 bytes."""
    counts = np.zeros(np.iinfo(np.uint16).max + 1, np.int64)
    slabs = np.array_split(labels, max(1, labels.size >> 23)) if labels.size else ()
    for slab in slabs:
        found = np.bincount(slab.ravel())
        counts[: found.size] += found
    return counts


def _freeze(owner: object, name: str, dtype: type, shape: tuple[int, int, int]) -> None:
    given = np.asarray(getattr(owner, name))
    array: NDArray[Any] = np.ascontiguousarray(given, dtype=dtype)
    require_shape(name, array, shape)
    if array.dtype.kind == "u" and given.dtype != array.dtype and not np.array_equal(array, given):
        raise SynthDoseError(
            f"{name} has to hold whole numbers from 0 to {np.iinfo(dtype).max}; found {given.min()} to {given.max()}."
        )
    array = array.view()
    array.setflags(write=False)
    object.__setattr__(owner, name, array)


@dataclass(frozen=True, eq=False)
class ImageVolume:
    """An image on its grid. The array is taken over and becomes read-only.

    Attributes
    ----------
    grid : VoxelGrid
    values : ndarray of float32, (nk, nj, ni)
        In `unit`.
    modality : str
        DICOM modality: "CT", "MR", "PT", "NM"; "" if the file does not say.
    unit : str
        "HU", "Bq/ml", "counts", "g/ml" (SUV) or "" if the file does not say.
    acquired_at : datetime or None
        Start of the acquisition that the values refer to (for PET decay-corrected to the start: that start).
    metadata : mapping
        What the file said and later stages need, by plain names (``patient_weight_kg``, ``radionuclide``,
        ``injected_activity_MBq``, ``injected_at``, ``series_instance_uid`` …); absent if the file lacks it.
    source_files : tuple of str
        Files the image was read from, slice by slice for DICOM.
    notes : tuple of str
        What the reader did to the data or found remarkable, one sentence each, for the report.
    """

    grid: VoxelGrid
    values: NDArray[np.float32]
    modality: str = ""
    unit: str = ""
    acquired_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _freeze(self, "values", np.float32, self.grid.shape)


@dataclass(frozen=True)
class Organ:
    """One entry of a label table.

    Attributes
    ----------
    index : int
        Value in the label map, 1 or more.
    name : str
        Canonical organ name, lower case with underscores (``kidney_left``), or the user's own.
    snomed_code : str
        SNOMED CT code, "" if none is known.
    colour : tuple of 3 float
        RGB, 0 to 1.
    """

    index: int
    name: str
    snomed_code: str = ""
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One organ per voxel.

    Attributes
    ----------
    grid : VoxelGrid
    labels : ndarray of uint16, (nk, nj, ni)
        0 is background; every other value is in `organs`.
    organs : tuple of Organ
        Indices and names are unique. An organ may be empty.
    notes : tuple of str
        What the reader or segmenter did or found remarkable.
    """

    grid: VoxelGrid
    labels: NDArray[np.uint16]
    organs: tuple[Organ, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "organs", tuple(self.organs))
        _freeze(self, "labels", np.uint16, self.grid.shape)
        indices = [organ.index for organ in self.organs]
        names = [organ.name for organ in self.organs]
        if len(set(indices)) != len(indices) or len(set(names)) != len(names):
            raise SynthDoseError(f"Label indices and names have to be unique; found {list(zip(indices, names, strict=True))}.")
        if indices and min(indices) < 1:
            raise SynthDoseError("Label 0 is the background; organs start at 1.")
        found = np.flatnonzero(label_counts(self.labels))
        unlisted = sorted(set(found.tolist()) - set(indices) - {0})
        if unlisted:
            raise SynthDoseError(f"The label map holds values that its table does not list: {unlisted}. Add them to the table.")

    def organ(self, name: str) -> Organ:
        """Return the organ called `name`; raise `SynthDoseError` naming those there are."""
        for organ in self.organs:
            if organ.name == name:
                return organ
        raise SynthDoseError(f"There is no organ '{name}'. Organs: {', '.join(o.name for o in self.organs) or 'none'}.")

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Boolean array (nk, nj, ni) of the organ called `name`."""
        return np.asarray(self.labels == self.organ(name).index)

    def voxel_counts(self) -> dict[str, int]:
        """Number of voxels per organ name, 0 for an empty one."""
        counts = label_counts(self.labels)
        return {organ.name: int(counts[organ.index]) for organ in self.organs}


@dataclass(frozen=True, eq=False)
class VoxelPhantom:
    """A computational phantom: what every voxel is made of, how dense it is, and which organ it belongs to.

    Attributes
    ----------
    grid : VoxelGrid
    material_index : ndarray of uint8, (nk, nj, ni)
        Place in `materials`.
    density_g_cm3 : ndarray of float32, (nk, nj, ni)
        0 is vacuum.
    materials : tuple of Material
    labels : LabelMap
        On the same grid; voxels outside every organ are 0.
    notes : tuple of str
        What the builder did or found remarkable, one sentence each, for the report.
    """

    grid: VoxelGrid
    material_index: NDArray[np.uint8]
    density_g_cm3: NDArray[np.float32]
    materials: tuple[Material, ...]
    labels: LabelMap
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "materials", tuple(self.materials))
        _freeze(self, "material_index", np.uint8, self.grid.shape)
        _freeze(self, "density_g_cm3", np.float32, self.grid.shape)
        if not self.grid.matches(self.labels.grid):
            raise SynthDoseError("The phantom's label map is on another grid than its densities.")
        if not self.materials or int(self.material_index.max()) >= len(self.materials):
            raise SynthDoseError(
                f"The phantom uses material index {int(self.material_index.max())}, but has {len(self.materials)} materials."
            )
        lowest, highest = float(self.density_g_cm3.min()), float(self.density_g_cm3.max())
        if not (lowest >= 0 and highest < np.inf):
            raise SynthDoseError(f"Densities have to be finite and not negative; found {lowest:g} to {highest:g} g/cm3.")
        if highest > DENSEST_G_CM3:
            raise SynthDoseError(
                f"Densities reach {highest:g} g/cm3; no matter has more than {DENSEST_G_CM3:g}. Are they in kg/m3?"
            )

    def mass_g(self) -> dict[str, float]:
        """Mass per organ name, g."""
        sums = np.bincount(
            self.labels.labels.ravel(),
            weights=self.density_g_cm3.ravel().astype(np.float64),
            minlength=max((o.index for o in self.labels.organs), default=0) + 1,
        )
        return {o.name: float(sums[o.index]) * self.grid.voxel_volume_ml for o in self.labels.organs}

    def lungs(self) -> NDArray[np.bool_]:
        """Boolean array (nk, nj, ni) of all organs that are called lung."""
        return _lungs(self.labels)

    def gas(self) -> NDArray[np.bool_]:
        """Boolean array (nk, nj, ni) of the voxels of the body that are gas; see `gas_voxels`."""
        return gas_voxels(self.density_g_cm3, self.labels)


def gas_voxels(density_g_cm3: NDArray[np.floating[Any]], labels: LabelMap | None = None) -> NDArray[np.bool_]:
    """Boolean array (nk, nj, ni) of the voxels of the body that are gas, whose dose is none to tissue.

    Gas is what is lighter than 0.1 g/cm3, in lungs than 0.02 g/cm3; the vacuum outside the body is not. Lungs that no label
    names (lung_left, lungs …) lose what is lighter than a third of inflated lung. Without labels everything may be lung.
    """
    if labels is None:
        return np.asarray((density_g_cm3 > 0) & (density_g_cm3 < GAS_IN_LUNG_G_CM3))
    gas = np.asarray((density_g_cm3 > 0) & (density_g_cm3 < GAS_G_CM3))
    return gas & ~((density_g_cm3 >= GAS_IN_LUNG_G_CM3) & _lungs(labels)) if gas.any() else gas


def _lungs(labels: LabelMap) -> NDArray[np.bool_]:
    return np.isin(labels.labels, [organ.index for organ in labels.organs if _LUNG.search(organ.name)])


@dataclass(frozen=True, eq=False)
class DoseMap:
    """Absorbed dose and its Monte Carlo standard error on one grid; see `unit` for what it is per.

    Attributes
    ----------
    grid : VoxelGrid
    dose_Gy, sigma_Gy : ndarray of float32, (nk, nj, ni)
        Absorbed dose and one standard error, absolute.
    per : str
        "" for an absolute dose, "decay" or "particle" for a simulation's result.
    """

    grid: VoxelGrid
    dose_Gy: NDArray[np.float32]
    sigma_Gy: NDArray[np.float32]
    per: str = ""

    def __post_init__(self) -> None:
        _freeze(self, "dose_Gy", np.float32, self.grid.shape)
        _freeze(self, "sigma_Gy", np.float32, self.grid.shape)


@dataclass(frozen=True)
class OrganDose:
    """Mean absorbed dose of one organ: energy imparted over mass.

    Attributes
    ----------
    organ : str
    mass_g, dose_Gy, sigma_Gy : float
        `sigma_Gy` is one standard error of the Monte Carlo estimate.
    """

    organ: str
    mass_g: float
    dose_Gy: float
    sigma_Gy: float


def organ_table(names: Iterable[str]) -> tuple[Organ, ...]:
    """Number organ names from 1 in the order given."""
    return tuple(Organ(index, name) for index, name in enumerate(names, start=1))
