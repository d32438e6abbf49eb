"""Where decays happen, or where a beam comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom
from .particle_lists import COLUMNS, ParticleListSource, build_list, rays_meet_box

VOLUME, POINT, SPHERE, BEAM, LIST = 0, 1, 2, 3, 4
_OUTSIDE_TOLERANCE = 1e-6  # share of the activity that float32 maps may leave outside by their tails
_MOST_ORDERED = 1 << 20  # cells; putting more in order takes longer than it spares


@dataclass(frozen=True, eq=False)
class VolumeSource:
    """Relative activity per voxel of its own grid; decays are uniform inside each voxel, directions isotropic.

    Parameters
    ----------
    grid : VoxelGrid
        May differ from the phantom's in spacing, direction and extent.
    weights : ndarray, (nk, nj, ni) of `grid`
        Decays per voxel, in any unit.

    Raises
    ------
    SynthDoseError
        If a weight is negative or not finite, or all are zero.
    """

    grid: VoxelGrid
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        if weights.shape != self.grid.shape:
            raise SynthDoseError(f"The source has shape {weights.shape}, its grid {self.grid.shape} (slices, rows, columns).")
        if not np.isfinite(weights).all():
            raise SynthDoseError("The activity map holds values that are not finite (NaN or infinite). Repair the map first.")
        lowest = float(weights.min())
        if lowest < 0:
            raise SynthDoseError(
                f"The activity map holds negative values (lowest {lowest:g}). Activity cannot be negative: clip the map first."
            )
        if not weights.any():
            raise SynthDoseError("The activity map is zero everywhere: there is no source.")
        object.__setattr__(self, "weights", weights)


@dataclass(frozen=True, eq=False)
class OrganSource:
    """Decays shared among organs and uniform in the volume of each.

    Parameters
    ----------
    weights : mapping of str to float
        Organ name to its relative number of decays.
    """

    weights: Mapping[str, float]

    def as_volume(self, labels: LabelMap) -> VolumeSource:
        """Return the voxel source on the grid of `labels`.

        Raises
        ------
        SynthDoseError
            If an organ is unknown or empty, or a weight is negative or not finite.
        """
        if not self.weights:
            raise SynthDoseError("The organ source names no organ. Give weights, for example { kidneys = 1 }.")
        values = np.zeros(labels.grid.shape, np.float32)
        for name, weight in self.weights.items():
            if not (np.isfinite(weight) and weight >= 0):
                raise SynthDoseError(f"The source weight of '{name}' has to be 0 or more; found {weight}.")
            mask = labels.mask(name)
            count = int(mask.sum())
            if count == 0:
                raise SynthDoseError(f"The source organ '{name}' is empty: no voxel of the label map has its index.")
            values[mask] = weight / count
        return VolumeSource(labels.grid, values)


@dataclass(frozen=True)
class PointSource:
    """Isotropic point at `position_mm_ras` (3,)."""

    position_mm_ras: tuple[float, float, float]


@dataclass(frozen=True)
class SphereSource:
    """Uniform, isotropic sphere around `centre_mm_ras` (3,) with `radius_mm`."""

    centre_mm_ras: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True)
class BeamSource:
    """Rectangular beam that starts in the plane through `centre_mm_ras`.

    Attributes
    ----------
    centre_mm_ras, direction_ras : tuple of 3 float
        Middle of the field, and where the beam goes (any length).
    size_mm : tuple of 2 float
        Field size in the plane, along `up_ras` and across it.
    up_ras : tuple of 3 float, optional
        Made perpendicular to the direction; if not given, the patient axis (A, S, R) most nearly perpendicular to it.
    source_distance_mm : float, optional
        Distance of an isotropic focus behind the plane; parallel if not given.
    """

    centre_mm_ras: tuple[float, float, float]
    direction_ras: tuple[float, float, float]
    size_mm: tuple[float, float]
    up_ras: tuple[float, float, float] | None = None
    source_distance_mm: float | None = None


Source = VolumeSource | OrganSource | PointSource | SphereSource | BeamSource | ParticleListSource


class SourceTables(NamedTuple):
    """A source as the kernels see it; see `sampling.start_particle`.

    Attributes
    ----------
    kind : int
    numbers : ndarray of float64
        Frame of the grid, cm. Volume: 3 x 3 matrix of the cell axes (rows x, y, z) and the corner of cell 0. Point and sphere:
        position, radius. Beam: centre, direction, up, across (unit vectors), half sizes, focus distance (0: parallel).
    shape : ndarray of int64, (2,)
        ni, nj of the activity grid. List: number of entries and how often each is used (0: in a circle).
    cell, alias : ndarray of int32; keep : ndarray of float32
        Cells that hold activity (see `z_order`), and the alias table to choose among them. List: `ListTables.first_row` and
        `order`.
    particles : ndarray of float32, (n, COLUMNS)
        `ListTables.rows`.
    """

    kind: int
    numbers: NDArray[np.float64]
    shape: NDArray[np.int64]
    cell: NDArray[np.int32]
    keep: NDArray[np.float32]
    alias: NDArray[np.int32]
    particles: NDArray[np.float32]


def build_source(source: Source, phantom: VoxelPhantom, seed: int = 0) -> SourceTables:
    """Check a source against its phantom and turn it into tables for the kernels; the seed shuffles a list of particles.

    Raises
    ------
    SynthDoseError
        If decays would happen outside the phantom's grid or in vacuum, a beam or list misses the grid, or the source is not a
        source.
    """
    if isinstance(source, ParticleListSource):
        built = build_list(source, phantom, seed)
        shape = np.array([built.order.size, 0 if source.cyclic else 1], np.int64)
        return SourceTables(LIST, np.zeros(1), shape, built.first_row, np.ones(1, np.float32), built.order, built.rows)
    if isinstance(source, OrganSource):
        source = source.as_volume(phantom.labels)
    if isinstance(source, VolumeSource):
        return _build_volume(source, phantom)
    if isinstance(source, PointSource):
        position = _vector("position_mm_ras", source.position_mm_ras)
        _require_matter(phantom, position, "The point source")
        return _tables(POINT, [*_to_frame(phantom.grid, position), 0.0])
    if isinstance(source, SphereSource):
        centre = _vector("centre_mm_ras", source.centre_mm_ras)
        if not (np.isfinite(source.radius_mm) and source.radius_mm > 0):
            raise SynthDoseError(f"radius_mm of the sphere has to be positive; found {source.radius_mm}.")
        _require_sphere_in_matter(phantom, centre, source.radius_mm)
        return _tables(SPHERE, [*_to_frame(phantom.grid, centre), source.radius_mm / 10])
    if not isinstance(source, BeamSource):
        raise SynthDoseError(
            f"A source is one of transport.Source (VolumeSource, OrganSource …); found {type(source).__name__}."
        )
    return _build_beam(source, phantom.grid)


def _tables(kind: int, numbers: list[float]) -> SourceTables:
    none = np.zeros(1, np.int32)
    shape, keep = np.ones(2, np.int64), np.ones(1, np.float32)
    return SourceTables(kind, np.array(numbers, np.float64), shape, none, keep, none, _no_particles())


def _no_particles() -> NDArray[np.float32]:
    return np.zeros((1, COLUMNS), np.float32)


def _vector(name: str, value: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise SynthDoseError(f"{name} has to be three finite numbers (R, A, S in mm); found {value!r}.")
    return vector


def _to_frame(grid: VoxelGrid, ras_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return (grid.to_ijk(ras_mm) + 0.5) * np.asarray(grid.spacing_mm) / 10


def _require_matter(phantom: VoxelPhantom, ras_mm: NDArray[np.float64], what: str) -> None:
    index = np.floor(phantom.grid.to_ijk(ras_mm) + 0.5).astype(int)
    place = tuple(float(round(x, 3)) for x in ras_mm)
    if (index < 0).any() or (index >= np.asarray(phantom.grid.shape[::-1])).any():
        raise SynthDoseError(f"{what} reaches outside the phantom: RAS {place} mm is not in its grid.")
    if phantom.density_g_cm3[tuple(index[::-1])] <= 0:
        raise SynthDoseError(f"{what} lies in vacuum: the density at RAS {place} mm is 0. Place it inside the body.")


def _require_sphere_in_matter(phantom: VoxelPhantom, centre: NDArray[np.float64], radius_mm: float) -> None:
    grid = phantom.grid
    axes = grid.directions.T  # along these a sphere reaches farthest towards the faces of the grid
    for offset in np.vstack([np.zeros(3), axes, -axes]) * radius_mm:
        _require_matter(phantom, centre + offset, "The sphere source")
    middle, reach = grid.to_ijk(centre), radius_mm / np.asarray(grid.spacing_mm)
    low = np.maximum(np.ceil(middle - reach).astype(int), 0)
    high = np.minimum(np.floor(middle + reach).astype(int) + 1, grid.shape[::-1])
    spans = [np.arange(first, last) - place for first, last, place in zip(low, high, middle, strict=True)]
    i, j, k = (span * size for span, size in zip(spans, grid.spacing_mm, strict=True))
    inside = k[:, None, None] ** 2 + j[None, :, None] ** 2 + i[None, None, :] ** 2 <= radius_mm**2
    density = phantom.density_g_cm3[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    empty = int(np.count_nonzero(inside & (density <= 0)))
    if empty:
        raise SynthDoseError(
            f"The sphere source holds {empty} voxels of zero density (vacuum). Make it smaller or place it inside the body."
        )


def _build_volume(source: VolumeSource, phantom: VoxelPhantom) -> SourceTables:
    from .sampling import build_alias

    grid, target = source.grid, phantom.grid
    flat = source.weights.ravel()
    cell = np.flatnonzero(flat)
    nj, ni = grid.shape[1:]
    weights = flat[cell].astype(np.float64)
    if grid.matches(target):
        inside: NDArray[np.bool_] = np.ones(cell.size, bool)
        density = phantom.density_g_cm3.ravel()[cell]
    else:
        ijk = np.stack([cell % ni, cell // ni % nj, cell // (ni * nj)], axis=-1)
        index = np.floor(target.to_ijk(grid.to_ras(ijk)) + 0.5).astype(np.int64)
        size = np.asarray(target.shape[::-1])
        inside = np.asarray(((index >= 0) & (index < size)).all(axis=-1))
        index = np.clip(index, 0, size - 1)
        density = phantom.density_g_cm3[index[:, 2], index[:, 1], index[:, 0]]
    total = weights.sum()
    outside_share = weights[~inside].sum() / total
    vacuum_share = weights[inside & (density <= 0)].sum() / total
    if outside_share > _OUTSIDE_TOLERANCE:
        raise SynthDoseError(
            f"{100 * outside_share:.3g} % of the source activity lies outside the phantom's grid. Crop the activity map to the "
            "phantom, or check that both are in the same frame (RAS mm)."
        )
    if vacuum_share > _OUTSIDE_TOLERANCE:
        raise SynthDoseError(
            f"{100 * vacuum_share:.3g} % of the source activity lies in voxels of zero density (vacuum). "
            "Set it to zero there, or check the density map."
        )
    usable = inside & (density > 0)
    cell, weights = cell[usable], weights[usable]
    if cell.size <= _MOST_ORDERED:
        order = z_order(cell % ni, cell // ni % nj, cell // (ni * nj))
        cell, weights = cell[order], weights[order]
    keep, alias = build_alias(weights)
    axes = target.directions.T @ grid.ijk_to_ras[:3, :3] / 10
    corner = _to_frame(target, grid.to_ras((-0.5, -0.5, -0.5)))
    numbers = np.concatenate([axes.ravel(), corner])
    return SourceTables(VOLUME, numbers, np.array([ni, nj], np.int64), cell.astype(np.int32), keep, alias, _no_particles())


def z_order(i: NDArray[np.int64], j: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order of cells along Morton's curve, on which neighbours in space are mostly neighbours.

    One number of the lattice chooses the cell (`random.lattice_point`): what depends smoothly on the place then mostly depends
    smoothly on the number, and the lattice evens it out; in the order of the array it changes from one kidney to the other and
    back in every row. Photons from the kidneys: the variance of the mean of the liver falls by a fifth, of spine and spleen by
    a tenth.

    References
    ----------
    G. M. Morton, A computer oriented geodetic data base and a new technique in file sequencing, IBM (1966).
    """
    places = np.arange(max(int(axis.max()) for axis in (i, j, k)) + 1)
    spread = np.zeros(places.size, np.int64)  # the binary digits of a place, two zeros between each two
    for digit in range(int(places[-1]).bit_length()):
        spread |= (places >> digit & 1) << 3 * digit
    return np.argsort(spread[i] | spread[j] << 1 | spread[k] << 2, kind="stable")


def _build_beam(source: BeamSource, grid: VoxelGrid) -> SourceTables:
    centre = _vector("centre_mm_ras", source.centre_mm_ras)
    direction = _vector("direction_ras", source.direction_ras)
    if not direction.any():
        raise SynthDoseError("direction_ras of the beam has no length.")
    direction /= np.linalg.norm(direction)
    if source.up_ras is None:
        axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float64)
        up = axes[np.argmin(np.abs(axes @ direction).round(6))]
    else:
        up = _vector("up_ras", source.up_ras)
    up = up - (up @ direction) * direction
    if np.linalg.norm(up) < 1e-6:
        raise SynthDoseError("up_ras of the beam is parallel to its direction; give one across it.")
    up /= np.linalg.norm(up)
    size = np.asarray(source.size_mm, dtype=np.float64)
    if size.shape != (2,) or not np.isfinite(size).all() or size.min() < 0:
        raise SynthDoseError(f"size_mm of the beam has to be two lengths of 0 or more; found {source.size_mm}.")
    distance = source.source_distance_mm
    if distance is not None and not (np.isfinite(distance) and distance > 0):
        raise SynthDoseError(f"source_distance_mm has to be positive; found {distance}. Leave it out for a parallel beam.")
    turn = grid.directions.T
    vectors = [_to_frame(grid, centre), turn @ direction, turn @ up, turn @ np.cross(direction, up)]
    _require_hit(vectors, size / 20, (distance or 0.0) / 10, np.asarray(grid.shape[::-1]) * grid.spacing_mm / 10)
    return _tables(BEAM, [*np.concatenate(vectors), *(size / 20), (distance or 0.0) / 10])


def _require_hit(
    vectors: list[NDArray[np.float64]], half: NDArray[np.float64], focus_cm: float, grid_cm: NDArray[np.float64]
) -> None:
    """Raise `SynthDoseError` unless a beam (centre, direction, up, across; cm, frame of the grid) meets the grid."""
    centre, direction, up, across = vectors
    field = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * half
    start = centre + field[:, :1] * up + field[:, 1:] * across
    rays = np.broadcast_to(direction, start.shape) if focus_cm <= 0 else start - (centre - focus_cm * direction)
    if rays_meet_box(start, rays, grid_cm).any():
        return
    from scipy.optimize import linprog  # takes a third of a second to load, and is hardly ever needed

    # the grid may still lie between the rays of centre and corners: is there a point in the grid and in the beam?
    widening = half / focus_cm if focus_cm > 0 else np.zeros(2)
    rows, limits = [-direction], [-direction @ centre]
    for axis, width, slope in ((up, half[0], widening[0]), (across, half[1], widening[1])):
        for sign in (1.0, -1.0):
            normal = sign * axis - slope * direction
            rows.append(normal)
            limits.append(width + normal @ centre)
    found = linprog(np.zeros(3), A_ub=np.array(rows), b_ub=np.array(limits), bounds=[(0.0, edge) for edge in grid_cm])
    if found.status == 2:
        raise SynthDoseError(
            "The beam misses the phantom: no ray of its field meets the grid. Check centre_mm_ras, direction_ras and size_mm."
        )
