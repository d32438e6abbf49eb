"""Opens an exported phantom in GATE 10 (Geant4) and keeps what GATE made of it; run by the Python that has opengate.

Usage: python gate_reader.py FOLDER OUT.json
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import itk
import numpy as np
import opengate


def read(folder: Path) -> dict:
    """Voxels of each material and the material's density, g/cm3, and mass fractions, as Geant4 holds them."""
    with tempfile.TemporaryDirectory() as scratch:
        simulation = opengate.Simulation()
        simulation.output_dir = scratch
        simulation.world.size = [4000.0, 4000.0, 4000.0]
        simulation.world.material = "G4_Galactic"
        simulation.volume_manager.add_material_database(str(folder / "materials.db"))
        patient = simulation.add_volume("Image", "patient")
        patient.image = str(folder / "phantom.mhd")
        patient.material = "Vacuum"
        rows = [line.split() for line in (folder / "index_to_material.txt").read_text(encoding="ascii").splitlines()]
        patient.voxel_materials = [[float(low), float(high), name] for low, high, name in rows]
        patient.dump_label_image = str(Path(scratch) / "labels.mhd")
        source = simulation.add_source("GenericSource", "source")
        source.particle, source.n = "geantino", 1
        source.energy.mono = 1.0
        simulation.physics_manager.physics_list_name = "G4EmStandardPhysics_option1"
        with contextlib.suppress(Exception):  # without Geant4's data files it ends after the geometry is built
            simulation.run(start_new_process=True)
        image = itk.imread(patient.dump_label_image)
        voxels = np.asarray(itk.array_view_from_image(image))
        names = json.loads(Path(patient.dump_label_image).with_suffix(".json").read_text(encoding="utf-8"))
    unit = opengate.g4_units.g / opengate.g4_units.cm3
    materials = {}
    for name, number in names.items():
        made = simulation.volume_manager.material_database.FindOrBuildMaterial(name)
        elements = [made.GetElement(n) for n in range(made.GetNumberOfElements())]
        fractions = [float(made.GetElementFraction(n)) for n in range(len(elements))]
        materials[name] = {
            "voxels": int((voxels == number).sum()),
            "density_g_cm3": made.GetDensity() / unit,
            "mass_fractions": {str(e.GetName()): f for e, f in zip(elements, fractions, strict=True)},
        }
    geometry = {"size": list(itk.size(image)), "spacing_mm": list(itk.spacing(image)), "origin_mm": list(itk.origin(image))}
    return {"materials": materials, **geometry}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(read(Path(sys.argv[1]))), encoding="utf-8")
