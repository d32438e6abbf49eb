"""The case file of ``synthdose simulate``: what the TOML says, and the phantom, source and emissions it stands for."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import (
    DENSEST_G_CM3,
    Emission,
    ImageVolume,
    LabelMap,
    Material,
    Organ,
    SynthDoseError,
    VoxelGrid,
    VoxelPhantom,
    resample,
    resample_labels,
)
from ..core.volumes import GAS_G_CM3
from ..dosimetry import bones_of
from ..io import read_phase_space, read_volume
from ..io.volumes import file_grid
from ..kinetics import from_map, tissue_share
from ..transport import (
    BeamSource,
    OrganSource,
    ParticleListSource,
    PointSource,
    RunSettings,
    Source,
    SphereSource,
    VolumeSource,
)
from .activity_plan import IN_GAS
from .engine_plan import ENGINES
from .nuclides import emissions_of
from .stations import members
from .toml_tables import nearest, read_table, read_toml

SCHEMA = 1
GAS_REMARKABLE = 1e-3  # of the activity
SOURCE_KEYS = {
    "volume": ("distribution", "activity_in_gas"),
    "organs": ("weights",),
    "point": ("position_mm_ras",),
    "sphere": ("centre_mm_ras", "radius_mm"),
    "beam": ("centre_mm_ras", "direction_ras", "size_mm", "up_ras", "source_distance_mm"),
    "phase-space": ("path", "origin_mm_ras", "x_axis_ras", "z_axis_ras", "original_histories", "exact"),
}
_OPTIONAL_KEYS = ("activity_in_gas", "up_ras", "source_distance_mm", "original_histories", "exact")
_COMMON_KEYS = ("kind", "nuclide", "progeny", "progeny_max_half_life_d", "emission")

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class MaterialTable:
    """``[[phantom.material]]``"""

    index: int
    name: str
    density_g_cm3: float
    mass_fractions: Mapping[str, float]
    mean_excitation_eV: float | None = None


@dataclass(frozen=True)
class OrganTable:
    """``[[phantom.organ]]``"""

    index: int
    name: str


@dataclass(frozen=True)
class PhantomTable:
    """``[phantom]``"""

    materials: Path
    material: tuple[MaterialTable, ...]
    density: Path | None = None
    organs: Path | None = None
    organ: tuple[OrganTable, ...] = ()


@dataclass(frozen=True)
class EmissionTable:
    """``[[source.emission]]``: one line, or the spectrum of a file."""

    particle: str
    yield_per_decay: float = 1.0
    energy_MeV: float | None = None
    spectrum: Path | None = None


@dataclass(frozen=True)
class SourceTable:
    """``[source]``: the keys of its kind, and either a nuclide or emissions (a phase space brings its own energies).

    `activity_in_gas` is "keep", as the file has it, or "move", into the tissue around, where blur brought it there.

    A phase space lies with its origin at `origin_mm_ras` and its x and z axes along `x_axis_ras` and `z_axis_ras`; see
    `io.read_phase_space` and `transport.ParticleListSource` for the files, `original_histories` and `exact`.
    """

    kind: str
    distribution: Path | None = None
    activity_in_gas: str = "keep"
    weights: Mapping[str, float] | None = None
    position_mm_ras: Vector | None = None
    centre_mm_ras: Vector | None = None
    radius_mm: float | None = None
    direction_ras: Vector | None = None
    up_ras: Vector | None = None
    size_mm: tuple[float, float] | None = None
    source_distance_mm: float | None = None
    path: Path | None = None
    origin_mm_ras: Vector | None = None
    x_axis_ras: Vector | None = None
    z_axis_ras: Vector | None = None
    original_histories: float | None = None
    exact: bool = False
    nuclide: str = ""
    progeny: str | Mapping[str, float] | None = None
    progeny_max_half_life_d: float = 10.0
    emission: tuple[EmissionTable, ...] = ()


@dataclass(frozen=True)
class RunTable:
    """``[run]``"""

    histories: int | None = None
    relative_sigma: float | None = None
    organs: tuple[str, ...] = ()
    max_seconds: float | None = None
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    estimator: str = "auto"
    components: bool = False
    s_values: bool = False
    marrow: bool = False
    compare: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseTable:
    """The whole file."""

    phantom: PhantomTable
    source: SourceTable
    run: RunTable = field(default_factory=RunTable)
    schema: int = SCHEMA


@dataclass(frozen=True, eq=False)
class Case:
    """A case ready to be simulated.

    Attributes
    ----------
    phantom : VoxelPhantom
    source : Source
    emissions : tuple of Emission
    settings : RunSettings
    s_values : bool
        Whether each organ in turn is to be the source.
    inputs : tuple of Path
        Files that were read.
    notes : tuple of str
    file_grid : VoxelGrid
        Of the file of materials in its own voxel order, which the results are written in.
    marrow : bool
        Whether red marrow and endosteum get rows of their own, from the doses of bones.
    compare : tuple of str
        Engines to stand beside the Monte Carlo: "kernel", "local".
    """

    phantom: VoxelPhantom
    source: Source
    emissions: tuple[Emission, ...]
    settings: RunSettings
    s_values: bool
    inputs: tuple[Path, ...]
    notes: tuple[str, ...]
    file_grid: VoxelGrid
    marrow: bool = False
    compare: tuple[str, ...] = ()


def read_case(path: str | Path) -> Case:
    """Read a case file and everything it refers to.

    Parameters
    ----------
    path : path-like
        TOML file; paths in it are relative to its folder.

    Raises
    ------
    SynthDoseError
        If a file cannot be read, a key or value is not valid, or the parts do not fit together; nothing is guessed.
    """
    path = Path(path)
    values = read_toml(path, "case file")
    table = read_table(CaseTable, values, "The case file")
    if table.schema != SCHEMA:
        raise SynthDoseError(f"The case file has schema = {table.schema}; this version of SynthDose reads schema = {SCHEMA}.")
    folder = path.parent
    _check_source(table.source, values["source"])
    settings = RunSettings(
        **{name: getattr(table.run, name) for name in RunSettings.__dataclass_fields__}  # the tables have the same keys
    )
    emissions, notes = _emissions(table.source, folder)
    phantom = _phantom(table.phantom, folder)
    named = dict.fromkeys(member for name in settings.organs for member in members(name, phantom.labels))
    settings = dataclasses.replace(settings, organs=tuple(named))
    source = _source(table.source, folder)
    source, said_of_gas = _gas_of_volume(table.source, source, phantom)
    files = [table.phantom.materials, table.phantom.density, table.phantom.organs, table.source.distribution, table.source.path]
    files += [e.spectrum for e in table.source.emission]
    inputs = (path, *(folder / file for file in files if file is not None))
    if table.run.s_values and not phantom.labels.organs:
        raise SynthDoseError("s_values = true needs [phantom] organs and [[phantom.organ]] entries.")
    for name in ("s_values", "components", "marrow"):
        if getattr(table.run, name) and isinstance(source, ParticleListSource):
            raise SynthDoseError(f"{name} = true needs a nuclide or emissions, which a phase space does not have.")
    if table.run.marrow:
        _check_marrow(phantom, emissions)
    _check_compare(table.run.compare, source)
    own_order = file_grid(folder / table.phantom.materials)
    said = (*notes, *phantom.labels.notes, *said_of_gas)
    run = table.run
    return Case(phantom, source, emissions, settings, run.s_values, inputs, said, own_order, run.marrow, run.compare)


def _check_compare(engines: tuple[str, ...], source: Source) -> None:
    others = [name for name in ENGINES if name != "monte-carlo"]
    for name in engines:
        if name not in others or engines.count(name) > 1:
            raise SynthDoseError(f"[run] compare takes {' and '.join(others)}, each once; found {', '.join(engines)}.")
    if engines and not isinstance(source, VolumeSource | OrganSource):
        raise SynthDoseError("[run] compare needs a source of kind 'volume' or 'organs': activity in voxels.")


def _check_marrow(phantom: VoxelPhantom, emissions: tuple[Emission, ...]) -> None:
    if not emissions:
        raise SynthDoseError("marrow = true needs a nuclide or emissions, which a phase space does not have.")
    if not any(bones_of(organ.name) for organ in phantom.labels.organs):
        raise SynthDoseError(
            "marrow = true needs bones among the organs: skeleton, or single ones such as vertebrae_L1, ribs, hip_left. "
            f"Organs: {', '.join(o.name for o in phantom.labels.organs) or 'none'}."
        )


def _check_source(source: SourceTable, given: Mapping[str, object]) -> None:
    if source.kind not in SOURCE_KEYS:
        raise SynthDoseError(
            f"[source] kind '{source.kind}' is not known.{nearest(source.kind, SOURCE_KEYS)} Allowed: {', '.join(SOURCE_KEYS)}."
        )
    keys = SOURCE_KEYS[source.kind]
    for key in given:
        if key not in keys and key not in _COMMON_KEYS:
            raise SynthDoseError(f"[source] {key} does not belong to kind '{source.kind}', which takes {', '.join(keys)}.")
    for key in keys:
        if key not in given and key not in _OPTIONAL_KEYS:
            raise SynthDoseError(f"[source] of kind '{source.kind}' lacks the key '{key}'.")
    if source.kind == "phase-space":
        extra = [name for name in _COMMON_KEYS[1:] if name in given]
        if extra:
            raise SynthDoseError(f"[source] {extra[0]} does not go with a phase space, which brings its own energies.")
        return
    if bool(source.nuclide) == bool(source.emission):
        found = "both" if source.nuclide else "neither"
        raise SynthDoseError(f"[source] takes either nuclide or [[source.emission]] entries; found {found}.")
    if source.emission and (source.progeny is not None or "progeny_max_half_life_d" in given):
        raise SynthDoseError("[source] progeny and progeny_max_half_life_d go with a nuclide, not with [[source.emission]].")


def _emissions(source: SourceTable, folder: Path) -> tuple[tuple[Emission, ...], tuple[str, ...]]:
    if source.nuclide:
        return emissions_of(source.nuclide, source.progeny, progeny_max_half_life_d=source.progeny_max_half_life_d)
    return tuple(_emission(entry, folder, n) for n, entry in enumerate(source.emission, start=1)), ()


def _emission(entry: EmissionTable, folder: Path, number: int) -> Emission:
    where = f"[[source.emission]] {number}"
    if (entry.energy_MeV is None) == (entry.spectrum is None):
        raise SynthDoseError(f"{where} takes either energy_MeV or spectrum.")
    try:
        if entry.energy_MeV is not None:
            return Emission.line(entry.particle, entry.energy_MeV, entry.yield_per_decay)
        edges, probability = _spectrum(folder / entry.spectrum) if entry.spectrum else (np.empty(0), np.empty(0))
        return Emission(entry.particle, entry.yield_per_decay, edges, probability)
    except SynthDoseError as error:
        raise SynthDoseError(f"{where}: {error}") from error


def _spectrum(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges and probabilities of a histogram with columns energy_MeV, probability: lower edges, the last an upper one."""
    columns = ["energy_MeV", "probability"]
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise SynthDoseError(f"Cannot read the spectrum {path}: {error}.") from error
    if not rows or [name.strip() for name in rows[0]] != columns:
        raise SynthDoseError(f"The spectrum {path} has to begin with the row {','.join(columns)}.")
    try:
        values = np.array([[float(cell) for cell in row] for row in rows[1:]])
    except ValueError as error:
        raise SynthDoseError(f"The spectrum {path} holds something that is not a number: {error}.") from error
    if values.ndim != 2 or values.shape[1] != 2 or len(values) < 2:
        raise SynthDoseError(f"The spectrum {path} needs two columns and at least two rows (a bin and its upper edge).")
    if values[-1, 1] != 0:
        raise SynthDoseError(
            f"The last row of the spectrum {path} is the upper edge of the last bin: its probability has to be 0, "
            f"found {values[-1, 1]:g}."
        )
    return values[:, 0], values[:-1, 1]


def _phantom(table: PhantomTable, folder: Path) -> VoxelPhantom:
    indices, grid = _read_indices(folder / table.materials, "[phantom] materials")
    listed = [entry.index for entry in table.material]
    if not listed:
        raise SynthDoseError("[phantom] lists no materials. Add [[phantom.material]] entries.")
    if len(set(listed)) != len(listed):
        raise SynthDoseError(f"[[phantom.material]] indices have to be unique; found {listed}.")
    if len(listed) > 255:
        raise SynthDoseError(f"A phantom has at most 255 materials; found {len(listed)}.")
    used = np.unique(indices)
    unlisted = sorted(set(used.tolist()) - set(listed))
    if unlisted:
        raise SynthDoseError(
            f"{table.materials} holds material indices that no [[phantom.material]] lists: {unlisted}. "
            f"Listed: {sorted(listed)}."
        )
    place = np.array([listed.index(index) for index in used.tolist()], np.uint8)
    material_index = place[np.searchsorted(used, indices)]
    materials = tuple(
        Material(entry.name, entry.density_g_cm3, entry.mass_fractions, entry.mean_excitation_eV) for entry in table.material
    )
    if table.density is None:
        density = np.array([m.density_g_cm3 for m in materials], np.float32)[material_index]
    else:
        values, density_grid, _ = read_volume(folder / table.density)
        if not density_grid.matches(grid):
            raise SynthDoseError("[phantom] density is on another grid than materials; they have to agree voxel by voxel.")
        density = np.asarray(values, np.float32)
    if float(density.max()) > DENSEST_G_CM3:
        raise SynthDoseError(
            f"[phantom] density reaches {density.max():g} g/cm3; at most {DENSEST_G_CM3:g} g/cm3 are allowed. Is it in kg/m3?"
        )
    return VoxelPhantom(grid, material_index, density, materials, _labels(table, folder, grid))


def _labels(table: PhantomTable, folder: Path, grid: VoxelGrid) -> LabelMap:
    if table.organs is None:
        if table.organ:
            raise SynthDoseError("[[phantom.organ]] entries need [phantom] organs, the label map they belong to.")
        return LabelMap(grid, np.zeros(grid.shape, np.uint16), ())
    values, label_grid = _read_indices(folder / table.organs, "[phantom] organs")
    if values.max() > np.iinfo(np.uint16).max:
        raise SynthDoseError(f"{table.organs} holds the label {values.max()}; labels go up to {np.iinfo(np.uint16).max}.")
    organs = tuple(Organ(entry.index, entry.name) for entry in table.organ)
    labels = resample_labels(LabelMap(label_grid, values.astype(np.uint16), organs), grid)
    empty = [name for name, count in labels.voxel_counts().items() if count == 0]
    if empty:
        raise SynthDoseError(
            f"No voxel of {table.organs} belongs to {', '.join(repr(name) for name in empty)}. "
            "Correct the index or remove the entry."
        )
    return labels


def _read_indices(path: Path, what: str) -> tuple[NDArray[np.int64], VoxelGrid]:
    values, grid, _ = read_volume(path)
    whole = np.asarray(values).astype(np.int64)
    if not np.array_equal(whole, values) or whole.min() < 0:
        raise SynthDoseError(f"{what} has to hold whole numbers of 0 or more; {path} does not.")
    return whole, grid


def _source(table: SourceTable, folder: Path) -> Source:
    if table.kind == "volume" and table.distribution is not None:
        values, grid, _ = read_volume(folder / table.distribution)
        return VolumeSource(grid, np.asarray(values, np.float32))
    if table.kind == "organs" and table.weights is not None:
        return OrganSource(dict(table.weights))
    if table.kind == "point" and table.position_mm_ras is not None:
        return PointSource(table.position_mm_ras)
    if table.path is not None:
        return _particle_list(table, folder / table.path)
    if table.centre_mm_ras is not None and table.radius_mm is not None:
        return SphereSource(table.centre_mm_ras, table.radius_mm)
    if table.centre_mm_ras is not None and table.direction_ras is not None and table.size_mm is not None:
        return BeamSource(table.centre_mm_ras, table.direction_ras, table.size_mm, table.up_ras, table.source_distance_mm)
    raise SynthDoseError(f"[source] of kind '{table.kind}' is incomplete.")


def _gas_of_volume(table: SourceTable, source: Source, phantom: VoxelPhantom) -> tuple[Source, tuple[str, ...]]:
    """The source without activity in gas if the case wants that, and what is remarkable about it."""
    if table.activity_in_gas not in IN_GAS:
        raise SynthDoseError(f"[source] activity_in_gas is '{table.activity_in_gas}'. Allowed: {', '.join(IN_GAS)}.")
    gas = phantom.gas()
    if not isinstance(source, VolumeSource) or not gas.any():
        return source, ()
    if table.activity_in_gas == "move":
        image = ImageVolume(source.grid, source.weights, unit="MBq*s")
        moved = from_map(image, phantom.labels, body=phantom.density_g_cm3 > 0, tissue=tissue_share(phantom))
        return VolumeSource(moved.grid, moved.tia_MBq_s), moved.notes
    seen = resample(gas.astype(np.float32), phantom.grid, source.grid, linear=False)
    share = float((source.weights * seen).sum(dtype=np.float64)) / float(source.weights.sum(dtype=np.float64))
    if share < GAS_REMARKABLE:
        return source, ()
    return source, (
        f"{share:.2%} of the activity lies in gas (below {GAS_G_CM3:g} g/cm3), whose single voxels then get a very high dose. "
        'If a scanner\'s blur brought it there, [source] activity_in_gas = "move" takes it to the tissue around.',
    )


def _particle_list(table: SourceTable, path: Path) -> Source:
    if table.origin_mm_ras is None or table.x_axis_ras is None or table.z_axis_ras is None:
        raise SynthDoseError("[source] of kind 'phase-space' is incomplete.")
    particles = read_phase_space(path, original_histories=table.original_histories)
    return ParticleListSource(particles, table.origin_mm_ras, table.x_axis_ras, table.z_axis_ras, table.exact)
