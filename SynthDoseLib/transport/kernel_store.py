"""Voxel S-kernels as values, and where they are kept: on disk, under a hash of everything that decides them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Emission, Material, SynthDoseError, atomic_path
from .cache import engine_hash, physics_hash, user_cache_folder
from .values import RunSettings

MEV_PER_G_IN_GY = 1.602176634e-10
FORMAT = 1


@dataclass(frozen=True, eq=False)
class VoxelKernel:
    """Dose per decay in the voxels around a source voxel; the arrays become read-only.

    Attributes
    ----------
    octant_Gy, octant_sigma_Gy : ndarray of float64, (nk + 1, nj + 1, ni + 1)
        Dose per decay and one standard error at offsets of 0 to n voxels along k, j, i; the other octants mirror this one.
    voxel_mm : tuple of 3 float
        Along i, j, k.
    material : Material
        Its density is that of the medium.
    provenance : mapping
        How it was made: engine, histories, seed, energies, what was emitted.
    """

    octant_Gy: NDArray[np.float64]
    octant_sigma_Gy: NDArray[np.float64]
    voxel_mm: tuple[float, float, float]
    material: Material
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("octant_Gy", "octant_sigma_Gy"):
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if (
                array.ndim != 3
                or array.shape != np.shape(self.octant_Gy)
                or not (np.isfinite(array).all() and array.min() >= 0)
            ):
                raise SynthDoseError(
                    "A voxel kernel has to be an array (k, j, i) of finite numbers of 0 or more, as its sigma."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def values_Gy(self) -> NDArray[np.float64]:
        """Dose per decay, (2 nk + 1, 2 nj + 1, 2 ni + 1), the source voxel in the middle."""
        return mirrored(self.octant_Gy)

    @property
    def sigma_Gy(self) -> NDArray[np.float64]:
        """One standard error of `values_Gy`."""
        return mirrored(self.octant_sigma_Gy)

    @property
    def energy_MeV(self) -> float:
        """Energy per decay that the whole kernel holds."""
        mass_g = float(np.prod(self.voxel_mm)) / 1000 * self.material.density_g_cm3
        return float(self.values_Gy.sum()) * mass_g / MEV_PER_G_IN_GY

    @property
    def absorbed_fraction(self) -> float:
        """Share of the emitted energy that the kernel holds (a positron counts 1.022 MeV more); the rest lies beyond it."""
        return self.energy_MeV / float(self.provenance["energy_emitted_MeV"])


def mirrored(octant: NDArray[Any]) -> NDArray[Any]:
    """The eight octants of an array of one."""
    places = [np.abs(np.arange(1 - n, n)) for n in octant.shape]
    return octant[np.ix_(*places)]


def _about_material(material: Material) -> dict[str, Any]:
    return {**asdict(material), "mass_fractions": dict(sorted(material.mass_fractions.items()))}


def kernel_recipe(
    emissions: Sequence[Emission], spacing: tuple[float, ...], material: Material, reach_mm: float, settings: RunSettings
) -> str:
    """Everything that decides a kernel, as text."""
    sent = [
        [e.particle, e.yield_per_decay, hashlib.sha256(e.edges_MeV.tobytes() + e.probability.tobytes()).hexdigest()[:16]]
        for e in emissions
    ]
    ignored = {"threads", "device", "organs"}
    return json.dumps(
        {
            "format": FORMAT, "engine": engine_hash(), "physics": physics_hash(), "voxel_mm": spacing, "radius_mm": reach_mm,
            "material": _about_material(material), "emissions": sent,
            "settings": {name: value for name, value in asdict(settings).items() if name not in ignored},
        }
    )  # fmt: skip


def keep_kernel(kernel: VoxelKernel, path: Path) -> None:
    """Write a kernel to the cache; a folder that cannot be written is no reason to lose it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_kernel(kernel, path)
    except (OSError, SynthDoseError):
        return


def kernel_path(recipe: str) -> Path:
    """Where the kernel of a recipe is kept."""
    return user_cache_folder() / "voxel-kernels" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.npz"


def write_kernel(kernel: VoxelKernel, path: Path) -> None:
    """Write a kernel as .npz (arrays and JSON text), all or nothing."""
    about = {
        "format": FORMAT, "voxel_mm": kernel.voxel_mm, "provenance": dict(kernel.provenance),
        "material": _about_material(kernel.material),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        np.savez(
            temporary, octant_Gy=kernel.octant_Gy, octant_sigma_Gy=kernel.octant_sigma_Gy, about=np.array(json.dumps(about))
        )


def read_kernel(path: Path, recipe: str | None = None) -> VoxelKernel | None:
    """Read a kernel that `write_kernel` wrote; None if there is none, it is damaged, or it was made by another recipe."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT or (recipe is not None and about["provenance"]["recipe"] != recipe):
                return None
            voxel = tuple(float(x) for x in about["voxel_mm"])
            material = Material(**about["material"])
            return VoxelKernel(
                arrays["octant_Gy"], arrays["octant_sigma_Gy"], (voxel[0], voxel[1], voxel[2]), material, about["provenance"]
            )
    except (OSError, KeyError, ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile, SynthDoseError):
        return None
