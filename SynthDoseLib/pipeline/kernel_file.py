"""``synthdose kernel``: the voxel S-kernel of a nuclide, written to a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core import Progress, SynthDoseError, atomic_path, silent
from ..physics import get_material
from ..transport import VoxelKernel, voxel_s_kernel, write_kernel
from .nuclides import emissions_of
from .run_folder import require_writable

MGY_PER_MBQ_S = 1e9  # in one Gy per decay
FORMATS = (".csv", ".npz")


def nuclide_kernel(
    nuclide: str,
    voxel_mm: tuple[float, float, float],
    material: str = "soft_tissue",
    *,
    density_g_cm3: float | None = None,
    progeny: str | Mapping[str, float] | None = None,
    progeny_max_half_life_d: float = 10.0,
    radius_mm: float | None = None,
    relative_sigma: float = 0.005,
    seed: int = 1,
    threads: int = 0,
    progress: Progress = silent,
) -> tuple[VoxelKernel, tuple[str, ...]]:
    """Return the voxel S-kernel of a nuclide in a named material, and notes on progeny that was left out.

    See `transport.voxel_s_kernel` for the numbers, `emissions_of` for `progeny`; made once, then read from the user's cache.

    Examples
    --------
    >>> kernel, _ = nuclide_kernel("Y-90", (3.0, 3.0, 3.0), relative_sigma=0.02, progeny="none")
    >>> bool(1.4e-9 < kernel.octant_Gy[0, 0, 0] < 1.8e-9)
    True
    """
    emissions, notes = emissions_of(nuclide, progeny, progeny_max_half_life_d=progeny_max_half_life_d)
    kernel = voxel_s_kernel(
        emissions, voxel_mm, get_material(material), density_g_cm3=density_g_cm3, radius_mm=radius_mm,
        relative_sigma=relative_sigma, seed=seed, threads=threads, progress=progress,
    )  # fmt: skip
    return kernel, notes


def write_kernel_file(kernel: VoxelKernel, path: str | os.PathLike[str]) -> None:
    """Write a kernel: ``.csv`` with one row per voxel of an octant (mGy per MBq s), or ``.npz`` with its provenance.

    Raises
    ------
    SynthDoseError
        If the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise SynthDoseError(f"A kernel is written as {' or '.join(FORMATS)}; found '{path.name}'.")
    require_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npz":
        write_kernel(kernel, path)
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["i", "j", "k", "s_mGy_per_MBq_s", "sigma_mGy_per_MBq_s"])
        for (k, j, i), value in np.ndenumerate(kernel.octant_Gy):
            sigma = kernel.octant_sigma_Gy[k, j, i]
            writer.writerow([i, j, k, f"{MGY_PER_MBQ_S * value:.6g}", f"{MGY_PER_MBQ_S * sigma:.3g}"])


def describe_kernel(kernel: VoxelKernel, notes: tuple[str, ...]) -> str:
    """A few lines for people: the nearest values, and how much of the energy the kernel holds."""
    octant, sigma = kernel.octant_Gy, kernel.octant_sigma_Gy
    size = " x ".join(f"{x:g}" for x in kernel.voxel_mm)
    lines = [f"{size} mm voxels of {kernel.material.name}, {kernel.material.density_g_cm3:g} g/cm3; mGy/(MBq s)"]
    for k, j, i in ((0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)):
        if k < octant.shape[0] and j < octant.shape[1] and i < octant.shape[2]:
            value, error = MGY_PER_MBQ_S * octant[k, j, i], MGY_PER_MBQ_S * sigma[k, j, i]
            lines.append(f"S({i}, {j}, {k}) = {value:.5g} ± {error:.2g}")
    radius = float(kernel.provenance["radius_mm"])
    lines.append(f"{100 * kernel.absorbed_fraction:.2f} % of the emitted energy stays within {radius:.4g} mm.")
    return "\n".join([*lines, *notes])
