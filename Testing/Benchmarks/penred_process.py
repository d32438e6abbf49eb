"""Run PenRed once, in a process of its own: reads a job as JSON from standard input, writes its result to the file it names.

Only this script imports pyPenred (AGPL-3.0), and nothing imports this script.

Job: ``folder`` (empty, for PenRed's files), ``materials_folder`` (kept between runs), ``result`` (.npz to write), ``shape``
(nx, ny, nz), ``voxel_cm`` (3), ``voxels`` (a voxel file as PenRed reads it) or ``indices`` (.npy of 1-based material numbers,
x fastest) and ``density_factor`` (.npy, relative to the density of the material), ``materials`` (list of {key, density_g_cm3,
mass_fractions_Z}), ``particle`` ("electron", "positron" or "gamma"), ``spectrum_eV`` (list of [energy, probability], lower
edges, the last probability negative), ``centre_cm``, ``size_cm`` (box), ``direction`` (null: isotropic), ``source_material``
(0: the whole box), ``histories``, ``seed``, ``c1_c2``, ``wcc_eV``, ``wcr_eV``, ``cuts_eV`` (by particle).
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pyPenred

LOWEST_EV = 50.0  # PENELOPE knows no particles below


def main() -> None:
    """Configure and run; PenRed prints the time of its histories, without that of reading materials, to standard output."""
    job = json.load(sys.stdin)
    os.chdir(job["folder"])
    if "voxels" not in job:
        write_voxels(job)
    soft = {"C1": job["c1_c2"], "C2": job["c1_c2"], "WCC": job["wcc_eV"], "WCR": job["wcr_eV"]}
    materials = {}
    for number, material in enumerate(job["materials"], start=1):
        filename = material_file(material, Path(job["materials_folder"]))
        materials[f"m{number}"] = {"number": number, "filename": filename, "eabs": job["cuts_eV"], **soft}
    simulation = pyPenred.simulation.create()
    simulation.configure(
        {
            "sources": {"generic": {"src": source(job)}},
            "geometry": {
                "type": "VOXEL", "filename": job.get("voxels", "voxels.dat"), "ascii": True, "enclosure-margin": 1e-3,
                "enclosure-material": 1,
            },
            "tallies": tallies(job),
            "materials": materials,
            "simulation": {"threads": 1, "seedPair": job["seed"], "dump-interval": 1e9},
        }
    )  # fmt: skip
    simulation.simulate()
    results = simulation.getResults([], False)
    dose, sigma = results["dose"][0].data()[:2]
    energy_eV, energy_sigma = (np.asarray(values)[: len(materials)] for values in results["mat"][0].data()[:2])
    np.savez(
        job["result"], dose=np.asarray(dose), sigma=np.asarray(sigma), energy_eV=energy_eV,
        energy_sigma=energy_sigma, mean_excitation_eV=[mean_excitation_eV(m["filename"]) for m in materials.values()],
    )  # fmt: skip


def write_voxels(job: dict) -> None:
    """Write the voxel file: sizes, then material and relative density of every voxel."""
    nx, ny, nz = job["shape"]
    indices, factors = np.load(job["indices"]).ravel(), np.load(job["density_factor"]).ravel()
    with Path("voxels.dat").open("w") as stream:
        stream.write(f"{nx} {ny} {nz}\n{' '.join(str(size) for size in job['voxel_cm'])}\n")
        stream.writelines(f"{index} {factor:.7g}\n" for index, factor in zip(indices, factors, strict=True))


def material_file(material: dict, folder: Path) -> str:
    """Path of the material file, made if it is not there."""
    path = folder / f"{material['key']}.mat"
    if not path.exists():
        composition = [(int(z), float(w)) for z, w in material["mass_fractions_Z"].items()]
        pyPenred.simulation.materials.create(material["key"], material["density_g_cm3"], composition, str(path))
    return str(path)


def mean_excitation_eV(path: str) -> float:
    """As PENELOPE wrote it into the material file."""
    found = re.search(r"Mean excitation energy =\s*([0-9.E+-]+) eV", Path(path).read_text(encoding="latin-1"))
    return float(found[1]) if found else float("nan")


def source(job: dict) -> dict:
    """Particles from a box, isotropic or all in one direction."""
    Path("spectrum.dat").write_text("".join(f"{max(e, LOWEST_EV):.8E} {p:.8E}\n" for e, p in job["spectrum_eV"]))
    u, v, w = job["direction"] or (0.0, 0.0, 1.0)
    (x, y, z), (dx, dy, dz) = job["centre_cm"], job["size_cm"]
    result = {
        "nhist": float(job["histories"]),
        "kpar": job["particle"],
        "spatial": {"type": "BOX", "size": {"dx": dx, "dy": dy, "dz": dz}, "position": {"x": x, "y": y, "z": z}},
        "direction": {
            "type": "SOLID_ANGLE", "u": u, "v": v, "w": w, "theta0": 0.0, "theta1": 0.0 if job["direction"] else 180.0,
            "phi0": 0.0, "dphi": 360.0,
        },
        "energy": {"type": "FILE_SPECTRUM", "filename": "spectrum.dat"},
    }  # fmt: skip
    return result | ({"source-material": job["source_material"]} if job["source_material"] else {})


def tallies(job: dict) -> dict:
    """Dose per voxel, energy per material."""
    extent = {}
    for axis, count, size in zip("xyz", job["shape"], job["voxel_cm"], strict=True):
        extent |= {f"{axis}min": 0.0, f"{axis}max": count * size, f"n{axis}": count}
    return {"dose": {"type": "SPATIAL_DOSE_DISTRIB", **extent}, "mat": {"type": "EDEP_MAT", "nmat": len(job["materials"])}}


if __name__ == "__main__":
    main()
