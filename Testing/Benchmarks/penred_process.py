"""Run PenRed once, in a process of its own: reads a job as JSON from standard input, writes its result to the file it names.

Only this script imports pyPenred (AGPL-3.0), and nothing imports this script.

Job: ``folder`` (empty, for PenRed's files), ``result`` (.npz to write), ``shape`` (nx, ny, nz), ``voxel_cm``, ``indices`` (.npy
of 1-based material numbers, x fastest), ``materials`` (list of {density_g_cm3, mass_fractions_Z}), ``particle`` ("electron" or
"gamma"), ``spectrum_eV`` (list of [energy, probability], lower edges, the last probability negative) or ``energy_eV``,
``box_centre_cm``, ``box_size_cm``, ``source_material`` (0: the whole box), ``histories``, ``c1_c2``, ``electron_cut_eV``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyPenred

PHOTON_CUT_EV = 2e3
LOWEST_EV = 50.0  # PENELOPE knows no particles below


def main() -> None:
    """Configure and run; PenRed prints the time of its histories, without that of reading materials, to standard output."""
    job = json.load(sys.stdin)
    os.chdir(job["folder"])
    nx, ny, nz = job["shape"]
    size = job["voxel_cm"]
    indices = np.load(job["indices"]).ravel()
    with Path("voxels.dat").open("w") as stream:
        stream.write(f"{nx} {ny} {nz}\n{size} {size} {size}\n")
        stream.writelines(f"{index} 1.0\n" for index in indices)
    materials = {}
    soft = {"C1": job["c1_c2"], "C2": job["c1_c2"], "WCC": 0.5 * job["electron_cut_eV"], "WCR": 0.5 * job["electron_cut_eV"]}
    cuts = {"electron": job["electron_cut_eV"], "positron": job["electron_cut_eV"], "gamma": PHOTON_CUT_EV}
    for number, material in enumerate(job["materials"], start=1):
        composition = [(int(z), float(w)) for z, w in material["mass_fractions_Z"].items()]
        pyPenred.simulation.materials.create(f"m{number}", material["density_g_cm3"], composition, f"m{number}.mat")
        materials[f"m{number}"] = {"number": number, "filename": f"m{number}.mat", "eabs": cuts, **soft}
    if "energy_eV" in job:
        energy = {"type": "MONOENERGETIC", "energy": job["energy_eV"]}
    else:
        Path("spectrum.dat").write_text("".join(f"{max(e, LOWEST_EV):.8E} {p:.8E}\n" for e, p in job["spectrum_eV"]))
        energy = {"type": "FILE_SPECTRUM", "filename": "spectrum.dat"}
    centre, box = job["box_centre_cm"], job["box_size_cm"]
    source = {
        "nhist": float(job["histories"]),
        "kpar": job["particle"],
        "spatial": {
            "type": "BOX",
            "size": {"dx": box[0], "dy": box[1], "dz": box[2]},
            "position": {"x": centre[0], "y": centre[1], "z": centre[2]},
        },
        "direction": {
            "type": "SOLID_ANGLE", "u": 0.0, "v": 0.0, "w": 1.0, "theta0": 0.0, "theta1": 180.0, "phi0": 0.0, "dphi": 360.0
        },
        "energy": energy,
    }  # fmt: skip
    if job["source_material"]:
        source["source-material"] = job["source_material"]
    simulation = pyPenred.simulation.create()
    simulation.configure(
        {
            "sources": {"generic": {"src": source}},
            "geometry": {
                "type": "VOXEL", "filename": "voxels.dat", "ascii": True, "enclosure-margin": 1e-3, "enclosure-material": 1
            },
            "tallies": {
                "dose": {
                    "type": "SPATIAL_DOSE_DISTRIB", "xmin": 0.0, "xmax": nx * size, "nx": nx, "ymin": 0.0, "ymax": ny * size,
                    "ny": ny, "zmin": 0.0, "zmax": nz * size, "nz": nz,
                },
                "mat": {"type": "EDEP_MAT", "nmat": len(materials)},
            },
            "materials": materials,
            "simulation": {"threads": 1, "seedPair": 3, "dump-interval": 1e9},
        }
    )  # fmt: skip
    simulation.simulate()
    results = simulation.getResults([], False)
    dose, sigma = results["dose"][0].data()[:2]
    energy_eV, energy_sigma = (np.asarray(values)[: len(materials)] for values in results["mat"][0].data()[:2])
    np.savez(
        job["result"], dose=np.asarray(dose), sigma=np.asarray(sigma), energy_eV=energy_eV,
        energy_sigma=energy_sigma,
    )  # fmt: skip


if __name__ == "__main__":
    main()
