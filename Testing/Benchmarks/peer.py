"""PenRed as a peer: turns a phantom, a source and emissions into jobs for `penred_process`, and reads the answers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission, Material, VoxelPhantom, atomic_number
from SynthDoseLib.transport import BeamSource, OrganSource, PointSource, VolumeSource
from SynthDoseLib.transport.sources import Source

EV_PER_G_IN_GY = 1.602176634e-16
NAMES = {"photon": "gamma", "electron": "electron", "positron": "positron"}
POINT_SIZE_CM = 1e-5


@dataclass(frozen=True)
class PeerSettings:
    """C1 = C2, and cut-offs, eV; as in ../shared/reference unless given."""

    c1_c2: float = 0.05
    electron_cut_eV: float = 1e4
    photon_cut_eV: float = 2e3
    wcc_eV: float = 5e3
    wcr_eV: float = 5e3


REFERENCE_SETTINGS = PeerSettings()
FAST_SETTINGS = PeerSettings(c1_c2=0.1, electron_cut_eV=5e4, wcc_eV=2.5e4, wcr_eV=2.5e4)
BEAM_SETTINGS = PeerSettings(electron_cut_eV=2e5, photon_cut_eV=1e4, wcc_eV=5e4, wcr_eV=1e4)
FAST_BEAM_SETTINGS = PeerSettings(c1_c2=0.1, electron_cut_eV=2e5, photon_cut_eV=1e4, wcc_eV=5e4, wcr_eV=1e4)


@dataclass(frozen=True, eq=False)
class PeerResult:
    """What PenRed found, per emitted particle.

    Attributes
    ----------
    dose_Gy, sigma_Gy : ndarray of float64, (nk, nj, ni)
    organs : dict of str to (float, float)
        Mean dose and its standard error, Gy, of the organs asked for.
    histories : int
    cpu_s : float
        Of the histories alone.
    mean_excitation_eV : dict of int to float
        By the phantom's material index: what PenRed makes of the composition.
    """

    dose_Gy: NDArray[np.float64]
    sigma_Gy: NDArray[np.float64]
    organs: dict[str, tuple[float, float]]
    histories: int
    cpu_s: float
    mean_excitation_eV: dict[int, float]


def available() -> bool:
    """Is pyPenred installed."""
    return importlib.util.find_spec("pyPenred") is not None


class PenRed:
    """Runs jobs; material files are kept as long as this object lives."""

    def __init__(self) -> None:
        self._materials = tempfile.TemporaryDirectory()

    def run(
        self,
        phantom: VoxelPhantom,
        source: Source,
        emissions: Sequence[Emission],
        organs: Sequence[str],
        histories: int,
        *,
        settings: PeerSettings = REFERENCE_SETTINGS,
        seed: int = 3,
    ) -> PeerResult:
        """Run emissions of one particle; `organs` get a mean dose with its standard error."""
        place = _source_organ(source, phantom)
        numbers, kinds = _numbered(phantom, list(dict.fromkeys([*organs, *([place] if place else [])])))
        density = np.array([phantom.materials[material].density_g_cm3 for _, material in kinds])[numbers - 1]
        job: dict[str, Any] = {
            "shape": list(phantom.grid.shape[::-1]),
            "voxel_cm": [size / 10 for size in phantom.grid.spacing_mm],
            "materials": [self._material(phantom.materials[material]) for _, material in kinds],
            "materials_folder": self._materials.name,
            "particle": NAMES[emissions[0].particle],
            "spectrum_eV": spectrum_rows(emissions),
            "histories": histories,
            "seed": seed,
            "c1_c2": settings.c1_c2,
            "wcc_eV": settings.wcc_eV,
            "wcr_eV": settings.wcr_eV,
            "cuts_eV": {
                "electron": settings.electron_cut_eV,
                "positron": settings.electron_cut_eV,
                "gamma": settings.photon_cut_eV,
            },
        }
        job |= _source(source, phantom)
        if place:
            job["source_material"] = [label for label, _ in kinds].index(phantom.labels.organ(place).index) + 1
        with tempfile.TemporaryDirectory() as folder:
            found, cpu_s = _run_process(job, numbers, phantom.density_g_cm3 / density, Path(folder))
        shape = phantom.grid.shape
        masses, means = phantom.mass_g(), {}
        for name in organs:
            chosen = [n for n, (label, _) in enumerate(kinds) if label == phantom.labels.organ(name).index]
            energy, error = found["energy_eV"][chosen].sum(), np.sqrt((found["energy_sigma"][chosen] ** 2).sum())
            means[name] = (energy * EV_PER_G_IN_GY / masses[name], error * EV_PER_G_IN_GY / masses[name])
        dose, sigma = (np.asarray(found[key], dtype=np.float64).reshape(shape) * EV_PER_G_IN_GY for key in ("dose", "sigma"))
        excitation = {kind[1]: float(eV) for kind, eV in zip(kinds, found["mean_excitation_eV"], strict=True)}
        return PeerResult(dose, sigma, means, histories, cpu_s, excitation)

    @staticmethod
    def _material(material: Material) -> dict[str, Any]:
        fractions = {str(atomic_number(symbol)): share for symbol, share in material.mass_fractions.items()}
        text = json.dumps([fractions, material.density_g_cm3])
        key = "m" + hashlib.sha256(text.encode()).hexdigest()[:12]
        return {"key": key, "density_g_cm3": material.density_g_cm3, "mass_fractions_Z": fractions}


def spectrum_rows(emissions: Sequence[Emission]) -> list[list[float]]:
    """Rows of lower edge, eV, and probability, in order; lines become bins of 2 eV. The last one has a negative probability."""
    bins = []
    for emission in emissions:
        for low, high, share in zip(emission.edges_MeV, emission.edges_MeV[1:], emission.probability, strict=False):
            if share > 0:
                low_eV, high_eV = (1e6 * low, 1e6 * high) if high > low else (1e6 * low - 1, 1e6 * low + 1)
                bins.append([low_eV, high_eV, share * emission.yield_per_decay])
    bins.sort()
    rows: list[list[float]] = []
    end = 0.0
    for low_eV, high_eV, share in bins:
        if rows and low_eV > end:
            rows.append([end, 0.0])
        rows.append([float(max(low_eV, end)), float(share)])
        end = max(float(high_eV), rows[-1][0] + 1)
    return [*rows, [end, -1.0]]


def _numbered(phantom: VoxelPhantom, organs: Sequence[str]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """PenRed's material of every voxel, and (label, material) of each: organs asked for have materials of their own."""
    labels = phantom.labels.labels.astype(np.int64)
    wanted = [phantom.labels.organ(name).index for name in organs]
    key = np.where(np.isin(labels, wanted), labels, 0) * 1000 + phantom.material_index
    kinds, place = np.unique(key, return_inverse=True)
    return place.reshape(labels.shape) + 1, [(int(kind // 1000), int(kind % 1000)) for kind in kinds]


def _active(source: OrganSource | VolumeSource, phantom: VoxelPhantom) -> NDArray[np.bool_]:
    """Voxels that hold activity, the same in each."""
    weights = source.as_volume(phantom.labels).weights if isinstance(source, OrganSource) else source.weights
    active = np.asarray(weights > 0)
    if weights.shape != phantom.grid.shape or np.ptp(weights[active]) > 1e-6 * weights.max():
        raise ValueError("PenRed is given uniform sources on the phantom's grid only.")
    return active


def _bounds(active: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.argwhere(active)[:, ::-1]
    return places.min(axis=0), places.max(axis=0) + 1


def _source_organ(source: Source, phantom: VoxelPhantom) -> str | None:
    """Organ that is the source, None where a box does."""
    if not isinstance(source, OrganSource | VolumeSource):
        return None
    active = _active(source, phantom)
    low, high = _bounds(active)
    if active.sum() == np.prod(high - low):
        return None
    return next(organ.name for organ in phantom.labels.organs if np.array_equal(phantom.labels.mask(organ.name), active))


def _source(source: Source, phantom: VoxelPhantom) -> dict[str, Any]:
    grid = phantom.grid
    spacing = np.asarray(grid.spacing_mm) / 10
    if isinstance(source, OrganSource | VolumeSource):
        low, high = _bounds(_active(source, phantom))
        centre, size = (low + high) / 2 * spacing, (high - low) * spacing
        return {"centre_cm": centre.tolist(), "size_cm": size.tolist(), "direction": None, "source_material": 0}
    if isinstance(source, PointSource):
        centre = (grid.to_ijk(source.position_mm_ras) + 0.5) * spacing
        return {"centre_cm": centre.tolist(), "size_cm": [POINT_SIZE_CM] * 3, "direction": None, "source_material": 0}
    if not isinstance(source, BeamSource) or source.source_distance_mm is not None:
        raise ValueError("PenRed is given points, boxes, organs and parallel beams only.")
    direction = grid.directions.T @ np.asarray(source.direction_ras, dtype=np.float64)
    direction /= np.linalg.norm(direction)
    axis = int(np.argmax(np.abs(direction)))
    centre = (grid.to_ijk(source.centre_mm_ras) + 0.5) * spacing
    edge = 0.0 if direction[axis] > 0 else grid.shape[::-1][axis] * spacing[axis]
    centre[axis] = edge + np.sign(direction[axis]) * POINT_SIZE_CM
    size = np.full(3, max(source.size_mm) / 10)
    size[axis] = 0.0
    return {"centre_cm": centre.tolist(), "size_cm": size.tolist(), "direction": direction.tolist(), "source_material": 0}


def _run_process(
    job: dict[str, Any], numbers: NDArray[np.int64], factor: NDArray[np.floating[Any]], folder: Path
) -> tuple[dict[str, NDArray[Any]], float]:
    files = {name: str(folder / f"{name}.npy") for name in ("indices", "density_factor")}
    np.save(files["indices"], numbers)
    np.save(files["density_factor"], factor)
    result = str(folder / "result.npz")
    whole = {**job, **files, "folder": str(folder), "result": result}
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("penred_process.py"))], input=json.dumps(whole), text=True, check=False,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seconds = re.search(r"Simulation user time: ([0-9.eE+-]+) s", process.stdout)
    if process.returncode or seconds is None:
        raise RuntimeError(f"PenRed failed: {process.stdout[-1000:]} {process.stderr[-1000:]}")
    with np.load(result) as data:
        return dict(data), float(seconds[1])


def with_excitation(phantom: VoxelPhantom, mean_excitation_eV: Mapping[int, float]) -> VoxelPhantom:
    """The phantom with PenRed's mean excitation energies by material index; see `PeerResult`.

    PenRed adds them up from those of elements, which makes them about 8 % less than those of ICRU 37.
    """
    materials = tuple(
        replace(material, mean_excitation_eV=mean_excitation_eV.get(number))
        for number, material in enumerate(phantom.materials)
    )
    return replace(phantom, materials=materials)
