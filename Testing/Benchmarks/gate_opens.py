"""GATE's view of an exported phantom beside ours: voxels, materials, masses.

``python -m Testing.Benchmarks.gate_opens [--gate PYTHON] [--out RESULTS.md]``, with the Python that has opengate 10
(``pip install opengate``, best in an environment of its own). Geant4's data files are not needed: the geometry is built before
the physics.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from SynthDoseLib.core import VoxelPhantom
from SynthDoseLib.phantom import PersonPlan, build_phantom, person_ct, stylised_person
from SynthDoseLib.phantom.exports import density_classes, write_gate

from .results import RESULTS, write_section

READER = Path(__file__).with_name("gate_reader.py")
COMMAND = "python -m Testing.Benchmarks.gate_opens"


def phantoms() -> dict[str, VoxelPhantom]:
    """A stylised adult with the tissues of its organs, and a child built from its CT."""
    child = stylised_person(PersonPlan("male", 5.0), spacing_mm=(5.0, 4.0, 6.0))
    adult = stylised_person(PersonPlan("female", 30.0), spacing_mm=(6.0, 6.0, 6.0))
    return {
        "stylised woman, tissues of her organs": adult.phantom(),
        "boy of 5 from his CT": build_phantom(person_ct(child, 1), child.labels),
    }


def opened(phantom: VoxelPhantom, gate: str) -> dict[str, float]:
    """Numbers of the phantom as GATE sees it, beside ours."""
    with tempfile.TemporaryDirectory() as scratch:
        write_gate(Path(scratch), phantom)
        answer = Path(scratch) / "answer.json"
        subprocess.run([gate, str(READER), scratch, str(answer)], check=True, capture_output=True, timeout=900)
        seen = json.loads(answer.read_text(encoding="utf-8"))
    materials = {name: entry for name, entry in seen["materials"].items() if name != "Vacuum"}
    classes = density_classes(phantom)
    voxels = np.bincount(classes.index.ravel(), minlength=len(classes.material) + 1)[1:]
    # GATE's names end in the number of the class
    ordered = [materials[name] for name in sorted(materials, key=lambda name: int(name.rsplit("_", 1)[1]))]
    volume_ml = float(np.prod(seen["spacing_mm"])) / 1000
    shares = [
        abs(entry["mass_fractions"].get(symbol, 0.0) - share)
        for entry, number in zip(ordered, classes.material, strict=True)
        for symbol, share in phantom.materials[number].mass_fractions.items()
    ]
    corner = np.diag([-1.0, -1.0, 1.0]) @ phantom.grid.ijk_to_ras[:3, 3]
    return {
        "materials": len(ordered),
        "voxels in another material": sum(abs(entry["voxels"] - n) for entry, n in zip(ordered, voxels, strict=True)),
        "mass in GATE, g": sum(entry["voxels"] * entry["density_g_cm3"] for entry in ordered) * volume_ml,
        "mass here, g": float(phantom.density_g_cm3.sum(dtype=np.float64)) * phantom.grid.voxel_volume_ml,
        "largest difference of a mass fraction": max(shares),
        "distance of the first voxels, mm": float(np.linalg.norm(np.asarray(seen["origin_mm"]) - corner)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", default=sys.executable, metavar="PYTHON", help="the Python that has opengate")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = {name: opened(phantom, options.gate) for name, phantom in phantoms().items()}
    header = ["phantom", *next(iter(rows.values()))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, row in rows.items():
        lines.append("| " + " | ".join([name, *(f"{value:.6g}" for value in row.values())]) + " |")
    note = "Geometry and materials as GATE 10 (opengate 10.1.1, Geant4 11.4) holds them; no particles were followed."
    write_section("Phantoms opened by GATE", COMMAND, "\n".join([note, "", *lines]), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
