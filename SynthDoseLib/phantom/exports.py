"""Phantoms as other Monte Carlo codes read them: GATE/Geant4 and PENELOPE/PenRed voxel geometries."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Material, SynthDoseError, VoxelGrid, VoxelPhantom, atomic_number
from SynthDoseLib.physics import atomic_weights, mean_excitation_energy

DENSITY_STEP = 0.02  # relative width of the density classes: voxels are off by 1 % at most, class means by nothing
VACUUM_G_CM3 = 1e-9
LARGEST_INDEX = np.iinfo(np.int16).max
PENRED_MATERIALS = 200
"""Materials that the distributed PenRed is compiled for."""


@dataclass(frozen=True, eq=False)
class DensityClasses:
    """Voxels of one material and nearly one density, for codes that want a material per voxel.

    Attributes
    ----------
    index : ndarray of int16, (nk, nj, ni)
        0 is vacuum; class n is entry n - 1 of the tuples.
    material : tuple of int
        Place in the phantom's materials.
    density_g_cm3 : tuple of float
        Mean of the class: its mass is that of its voxels.
    """

    index: NDArray[np.int16]
    material: tuple[int, ...]
    density_g_cm3: tuple[float, ...]


def material_entries(materials: Sequence[Material]) -> list[dict[str, Any]]:
    """Materials as plain values, as `material_of` and the tables ``[[phantom.material]]`` of a case take them.

    The mean excitation energy is the one that the engine takes, also where it follows from the composition.
    """
    return [
        {
            "index": number,
            "name": material.name,
            "density_g_cm3": material.density_g_cm3,
            "mass_fractions": dict(material.mass_fractions),
            "mean_excitation_eV": mean_excitation_energy(material),
        }
        for number, material in enumerate(materials)
    ]


def material_of(entry: Mapping[str, Any]) -> Material:
    """Material of an entry of `material_entries`; one without mean excitation energy has that of its composition."""
    return Material(entry["name"], entry["density_g_cm3"], entry["mass_fractions"], entry.get("mean_excitation_eV"))


def density_classes(phantom: VoxelPhantom, step: float = DENSITY_STEP) -> DensityClasses:
    """Sort voxels by material and density, in classes of the relative width `step`.

    Raises
    ------
    SynthDoseError
        If there would be more classes than an index image can hold.
    """
    body = phantom.density_g_cm3 > 0
    density = phantom.density_g_cm3[body].astype(np.float64)
    level = np.rint(np.log(np.maximum(density, 1e-6)) / np.log1p(step)).astype(np.int64)
    key = phantom.material_index[body].astype(np.int64) * 100_000 + (level + 50_000)
    kinds, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    if kinds.size > LARGEST_INDEX:
        raise SynthDoseError(f"The phantom has {kinds.size} classes of density; {LARGEST_INDEX} fit. Use a wider step.")
    index = np.zeros(phantom.grid.shape, np.int16)
    index[body] = place + 1
    means = np.bincount(place, weights=density) / counts
    return DensityClasses(index, tuple(int(k // 100_000) for k in kinds), tuple(float(m) for m in means))


def write_metaimage(path: Path, values: NDArray[Any], grid: VoxelGrid) -> None:
    """Write an integer array as MetaImage: ``.mhd`` header and raw voxels beside it, uncompressed, LPS."""
    kinds = {"int16": "MET_SHORT", "uint16": "MET_USHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.ijk_to_ras
    directions = (lps[:3, :3] / np.asarray(grid.spacing_mm)).T.ravel()  # one row per voxel axis
    raw = path.with_suffix(".raw")
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(f"{x + 0.0:.10g}" for x in directions),
        "Offset": " ".join(f"{x + 0.0:.10g}" for x in lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": " ".join(f"{s:.10g}" for s in grid.spacing_mm),
        "DimSize": " ".join(str(n) for n in grid.shape[::-1]),
        "ElementType": kinds[values.dtype.name],
        "ElementDataFile": raw.name,
    }
    values.astype(values.dtype.newbyteorder("<")).tofile(raw)
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()), encoding="ascii")


def write_gate(folder: Path, phantom: VoxelPhantom) -> None:
    """Write a phantom for GATE (Geant4): index image, materials database, index ranges, organs.

    Parameters
    ----------
    folder : Path
        Receives ``phantom.mhd`` + ``phantom.raw`` (int16 index), ``materials.db`` (elements and materials in the format of
        GateMaterials.db), ``index_to_material.txt`` (from, to, material: the table that takes the place of one of HU),
        ``range_translator.dat`` (the same for the range translator of GATE 9), ``organs.mhd`` and ``organs.csv``.
    phantom : VoxelPhantom
    """
    classes = density_classes(phantom)
    names = [f"{_plain(phantom.materials[m].name)}_{n:04d}" for n, m in enumerate(classes.material, start=1)]
    write_metaimage(folder / "phantom.mhd", classes.index, phantom.grid)
    symbols = sorted({s for m in phantom.materials for s in m.mass_fractions} | {"H"}, key=atomic_number)
    weights = atomic_weights()
    lines = ["[Elements]"]
    lines += [f"{s}: S= {s} ; Z= {atomic_number(s)}. ; A= {weights[atomic_number(s) - 1]:.4f} g/mole" for s in symbols]
    lines += ["", "[Materials]", f"Vacuum: d={VACUUM_G_CM3:g} g/cm3 ; n=1", "\t+el: name=H ; n=1", ""]
    for name, number, density in zip(names, classes.material, classes.density_g_cm3, strict=True):
        fractions = phantom.materials[number].mass_fractions
        lines.append(f"{name}: d={density:.6g} g/cm3 ; n={len(fractions)} ; state={'gas' if density < 0.02 else 'solid'}")
        lines += [f"\t+el: name={symbol} ; f={share:.8f}" for symbol, share in fractions.items()]
        lines.append("")
    (folder / "materials.db").write_text("\n".join(lines), encoding="ascii")
    ranges = [("Vacuum", 0), *((name, n) for n, name in enumerate(names, start=1))]
    table = "".join(f"{n - 0.5:g} {n + 0.5:g} {name}\n" for name, n in ranges)
    (folder / "index_to_material.txt").write_text(table, encoding="ascii")
    shown = "".join(f"{n} {n} {name} {'true' if n else 'false'} 0.8 0.8 0.8 0.2\n" for name, n in ranges)
    (folder / "range_translator.dat").write_text(f"{len(ranges)}\n{shown}", encoding="ascii")
    _write_organs(folder, phantom)


def write_penred(folder: Path, phantom: VoxelPhantom, organs: Sequence[str] | None = None) -> None:
    """Write a phantom for PENELOPE / PenRed: voxels, materials, organs.

    Parameters
    ----------
    folder : Path
        Receives ``voxels.dat`` (the ASCII voxel geometry: numbers of voxels, their sizes in cm, then material and density
        relative to the material's for each voxel, x fastest), ``materials.json`` (number, name, density, composition by
        atomic number, organ: what PenRed's material program is given), ``organs.mhd`` and ``organs.csv``.
    phantom : VoxelPhantom
        Its axes become x, y, z; voxel (0, 0, 0) has its corner at the origin.
    organs : sequence of str, optional
        Organs whose materials get numbers of their own, so that they can be a source (``source-material``) and a tally; all if
        not given and PenRed's limit of 200 materials allows, otherwise as many as it allows, the largest numbers of voxels
        last.

    Raises
    ------
    SynthDoseError
        If there are more materials than PenRed takes.
    """
    apart = _penred_organs(phantom, organs)
    numbers, kinds = penred_numbers(phantom, apart)
    density = np.array([phantom.materials[material].density_g_cm3 for _, material in kinds])
    body = phantom.density_g_cm3 > 0
    factor = np.where(body, phantom.density_g_cm3 / density[numbers - 1], VACUUM_G_CM3)
    sizes = " ".join(f"{s / 10:.9g}" for s in phantom.grid.spacing_mm)
    with open(folder / "voxels.dat", "w", encoding="ascii") as stream:
        stream.write(f"{' '.join(str(n) for n in phantom.grid.shape[::-1])}\n{sizes}\n")
        for slab, share in zip(numbers, factor, strict=True):  # slice by slice, to save memory
            stream.writelines(f"{n} {f:.7g}\n" for n, f in zip(slab.ravel().tolist(), share.ravel().tolist(), strict=True))
    names = {organ.index: organ.name for organ in phantom.labels.organs}
    materials = [
        {
            "number": number,
            "name": phantom.materials[material].name,
            "organ": names.get(label, ""),
            "density_g_cm3": phantom.materials[material].density_g_cm3,
            "mass_fractions_Z": {str(atomic_number(s)): f for s, f in phantom.materials[material].mass_fractions.items()},
            "mean_excitation_eV": mean_excitation_energy(phantom.materials[material]),
        }
        for number, (label, material) in enumerate(kinds, start=1)
    ]
    record = {"schema": 1, "geometry": {"type": "VOXEL", "filename": "voxels.dat", "ascii": True}, "materials": materials}
    (folder / "materials.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _write_organs(folder, phantom)


def penred_numbers(phantom: VoxelPhantom, organs: Sequence[str]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """PenRed's material number (from 1) of every voxel, and label (0: none of `organs`) and material of each number."""
    labels = phantom.labels.labels.astype(np.int64)
    wanted = [phantom.labels.organ(name).index for name in organs]
    key = np.where(np.isin(labels, wanted), labels, 0) * 1000 + phantom.material_index
    kinds, place = np.unique(key, return_inverse=True)
    return place.reshape(labels.shape) + 1, [(int(kind // 1000), int(kind % 1000)) for kind in kinds]


def _penred_organs(phantom: VoxelPhantom, organs: Sequence[str] | None) -> list[str]:
    counts = phantom.labels.voxel_counts()
    chosen = [name for name, count in counts.items() if count] if organs is None else list(organs)
    if len(penred_numbers(phantom, chosen)[1]) <= PENRED_MATERIALS:
        return chosen
    if organs is not None:
        raise SynthDoseError(
            f"With {len(chosen)} organs as materials of their own the phantom has more than the {PENRED_MATERIALS} materials "
            "that PenRed takes. Name fewer organs."
        )
    kept: list[str] = []
    for name in sorted(chosen, key=lambda name: counts[name]):
        if len(penred_numbers(phantom, [*kept, name])[1]) > PENRED_MATERIALS:
            break
        kept.append(name)
    return kept


def _write_organs(folder: Path, phantom: VoxelPhantom) -> None:
    write_metaimage(folder / "organs.mhd", np.asarray(phantom.labels.labels), phantom.grid)
    masses, counts = phantom.mass_g(), phantom.labels.voxel_counts()
    with open(folder / "organs.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("index", "organ", "voxels", "mass_g"))
        writer.writerows((o.index, o.name, counts[o.name], f"{masses[o.name]:.7g}") for o in phantom.labels.organs)


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
