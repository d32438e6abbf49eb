"""``make bench``: efficiency 1 / (sigma^2 CPU time) of the engine beside PenRed, measured in the same run, one thread each.

    python -m Testing.Benchmarks.bench_penred [--seconds 10] [--out FILE]

PenRed runs in processes of its own, with the settings of ../shared/reference (C1 = C2 = 0.05, electrons down to 10 keV) and
with its fast ones (0.1, 50 keV). Both times are those of the histories alone, PenRed's as it reports it, the engine's with its
pilot run; tables, materials and compilation are left out on both sides. Where several emissions make a dose, PenRed is credited
with the best possible split of its time among them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission
from SynthDoseLib.pipeline.case import Case, read_case
from SynthDoseLib.transport import RunSettings, simulate

from .reference_cases import REFERENCE
from .results import RESULTS, write_section

SETTINGS = {"reference": (0.05, 1e4), "fast": (0.1, 5e4)}
PENRED_RATE = {"f_gamma": 25_000, "f_beta": 20_000, "c_beta": 6_000}  # histories/s expected: sets the length of its runs only
SEEDS = (1, 2, 3)
HEADING = "Speed: the engine beside PenRed"
HEADER = """One thread each. Ratios of 1 / (sigma^2 CPU time) of the engine to those of PenRed 1.15.2, with the settings of the
reference cases and with its fast ones (C1 = C2 = 0.1, electrons down to 50 keV).
Histories per second are of the engine / PenRed / PenRed fast.

| case | quantity | histories/s | engine, seconds for 1 % | ratio | ratio, PenRed fast |
|---|---|---:|---:|---:|---:|"""


@dataclass(frozen=True, eq=False)
class Measured:
    """Relative variance times CPU time of quantities: the reciprocal of their efficiency, s."""

    cost_s: dict[str, float]
    histories_per_s: float


class PenRed:
    """The peer: runs its process and reads what it wrote."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._done: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}

    def run(self, key: str, setting: str, job: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Run a job once; `key` names it."""
        if (key, setting) not in self._done:
            c1_c2, cut = SETTINGS[setting]
            histories = int(PENRED_RATE[key] * self._seconds * (1 if setting == "reference" else 3))
            with tempfile.TemporaryDirectory() as folder:
                indices = Path(folder) / "indices.npy"
                np.save(indices, job.pop("indices_array"))
                result = str(Path(folder) / "result.npz")
                whole = {**job, "folder": folder, "indices": str(indices), "result": result, "histories": histories}
                whole |= {"c1_c2": c1_c2, "electron_cut_eV": cut}
                script = Path(__file__).with_name("penred_process.py")
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                process = subprocess.run(
                    [sys.executable, str(script)], input=json.dumps(whole), text=True, check=True, capture_output=True,
                    env=environment,
                )  # fmt: skip
                seconds = re.search(r"Simulation user time: ([0-9.eE+-]+) s", process.stdout)
                if seconds is None:
                    raise RuntimeError(f"PenRed did not say how long it took: {process.stdout[-500:]}")
                with np.load(result) as data:
                    times = {"histories": np.array(histories), "cpu_s": np.array(float(seconds[1]))}
                    self._done[key, setting] = {**data, **times}
        return self._done[key, setting]


def main() -> int:
    """Measure and write the table; return 1 if a row misses its goal, 0 also when pyPenred is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="CPU time of each run of PenRed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not REFERENCE.is_dir():
        print(f"The reference cases are not there: {REFERENCE}", file=sys.stderr)
        return 2
    with_peer = importlib.util.find_spec("pyPenred") is not None
    if not with_peer:
        print(
            "pyPenred is not installed, so the engine's own times stand alone. pip install pyPenred==1.15.2.0", file=sys.stderr
        )
    peer = PenRed(arguments.seconds)
    lines = [HEADER]
    worst = np.inf
    for title, own, peers in _cases(peer if with_peer else None):
        for quantity, cost in own.cost_s.items():
            ratios = [peers[setting].cost_s[quantity] / cost for setting in SETTINGS] if peers else []
            worst = min([worst, *ratios[:1]])
            shown = " | ".join(f"{ratio:.0f}" for ratio in ratios) or "- | -"
            rates = " / ".join(f"{m.histories_per_s:.0f}" for m in (own, *peers.values()))
            lines.append(f"| {title} | {quantity} | {rates} | {1e4 * cost:.2g} | {shown} |")
    text = "\n".join(lines) + "\n"
    write_section(HEADING, "make bench", text, arguments.out)
    print(text)
    return 0 if worst >= 10 or not with_peer else 1


def _cases(peer: PenRed | None) -> list[tuple[str, Measured, dict[str, Measured]]]:
    patient = read_case(REFERENCE / "cases" / "f_patient_Lu-177_kidneys" / "CASE.toml")
    voxels = read_case(REFERENCE / "cases" / "c_Svalue_3mm_Y-90_soft" / "CASE.toml")
    beta, *gammas = patient.emissions
    organs = [organ.name for organ in patient.phantom.labels.organs]
    rows = []
    own = _measure(replace(patient, emissions=tuple(gammas)), 1_000_000, (), organs, "")
    jobs = [("f_gamma", sum(g.yield_per_decay for g in gammas), _patient_job(patient, gammas))]
    rows.append(("Lu-177 photons, patient", own, _peers(peer, jobs, organs, patient, "")))
    own = _measure(patient, 1_000_000, ("kidneys",), ["kidneys"], "kidneys")
    jobs.append(("f_beta", beta.yield_per_decay, _patient_job(patient, [beta])))
    rows.append(("Lu-177 beta and photons, patient", own, _peers(peer, jobs, ["kidneys"], patient, "kidneys")))
    names = ["S000", "S100", "S110", "S111", "S200"]
    own = _measure(voxels, 400_000, ("S000", "S100", "S110", "S111"), names, "")
    jobs = [("c_beta", 1.0, _voxel_job(voxels))]
    rows.append(("Y-90 beta, 3 mm voxels", own, _peers(peer, jobs, names, voxels, "")))
    return rows


def _measure(case: Case, histories: int, organs: tuple[str, ...], names: Sequence[str], voxels_of: str) -> Measured:
    """Cost of the engine, the mean of independent runs."""
    costs: dict[str, list[float]] = {}
    rates = []
    for seed in SEEDS:
        settings = RunSettings(histories=histories, organs=organs, seed=seed, threads=1)
        result = simulate(case.phantom, case.source, case.emissions, settings)
        rates.append(result.histories / result.transport_cpu_s)
        for organ in result.organs:
            if organ.organ in names:
                costs.setdefault(organ.organ, []).append((organ.sigma_Gy / organ.dose_Gy) ** 2 * result.transport_cpu_s)
        if voxels_of:
            mask = case.phantom.labels.mask(voxels_of)
            variance = np.mean(result.dose.sigma_Gy[mask].astype(np.float64) ** 2)
            relative = variance / result.dose.dose_Gy[mask].mean(dtype=np.float64) ** 2
            costs.setdefault(f"voxels of {voxels_of}", []).append(float(relative) * result.transport_cpu_s)
    return Measured({name: float(np.mean(values)) for name, values in costs.items()}, float(np.mean(rates)))


def _peers(
    peer: PenRed | None, jobs: list[tuple[str, float, dict[str, Any]]], names: Sequence[str], case: Case, voxels_of: str
) -> dict[str, Measured]:
    if peer is None:
        return {}
    return {setting: _peer(peer, setting, jobs, names, case, voxels_of) for setting in SETTINGS}


def _peer(
    peer: PenRed, setting: str, jobs: list[tuple[str, float, dict[str, Any]]], names: Sequence[str], case: Case, voxels_of: str
) -> Measured:
    """Cost of PenRed: (sum of sqrt(V t))^2 / D^2, what the best split of time among the emissions reaches."""
    doses: dict[str, list[float]] = {}
    roots: dict[str, list[float]] = {}
    rate = 0.0
    for key, yield_per_decay, job in jobs:
        data = peer.run(key, setting, dict(job))
        cpu_s = float(data["cpu_s"])
        rate = float(data["histories"]) / cpu_s
        for name in [*names, *([f"voxels of {voxels_of}"] if voxels_of else [])]:
            mean, error = _quantity(name, data, case)
            doses.setdefault(name, []).append(yield_per_decay * mean)
            roots.setdefault(name, []).append(yield_per_decay * error * np.sqrt(cpu_s))
    return Measured({name: float(sum(roots[name]) ** 2 / sum(doses[name]) ** 2) for name in doses}, rate)


def _quantity(name: str, data: dict[str, NDArray[Any]], case: Case) -> tuple[float, float]:
    """Mean dose and standard error of PenRed for an organ, in any unit."""
    labels = case.phantom.labels
    dose = np.asarray(data["dose"], dtype=np.float64).reshape(labels.grid.shape)
    sigma = np.asarray(data["sigma"], dtype=np.float64).reshape(labels.grid.shape)
    if name.startswith("voxels of "):
        mask = labels.mask(name.removeprefix("voxels of "))
        return float(dose[mask].mean()), float(np.sqrt((sigma[mask] ** 2).mean()))
    mask = labels.mask(name)
    if name.startswith("S"):
        return float(dose[mask].mean()), float(np.sqrt((sigma[mask] ** 2).sum()) / mask.sum())
    number = labels.organ(name).index - 1
    return float(data["energy_eV"][number]), float(data["energy_sigma"][number])


def _patient_job(case: Case, emissions: Sequence[Emission]) -> dict[str, Any]:
    record = json.loads((REFERENCE / "f_patient_Lu-177_kidneys.json").read_text(encoding="utf-8"))
    indices = np.load(REFERENCE / "f_patient_Lu-177_kidneys.npz")["mat"].transpose(2, 1, 0)
    materials, organs = record["materials"], record["organs"]
    kidneys = np.argwhere(indices == record["organ_order"].index("kidneys") + 1)[:, ::-1]
    low, high = kidneys.min(axis=0), kidneys.max(axis=0) + 1
    size = record["voxel_cm"][0]
    return {
        "shape": list(indices.shape[::-1]), "voxel_cm": size, "indices_array": indices,
        "materials": [materials[organs[organ]["material"]] for organ in record["organ_order"]],
        "particle": "gamma" if emissions[0].particle == "photon" else "electron", "spectrum_eV": _spectrum(emissions),
        "box_centre_cm": ((low + high) / 2 * size).tolist(), "box_size_cm": ((high - low) * size).tolist(),
        "source_material": record["organ_order"].index("kidneys") + 1,
    }  # fmt: skip


def _voxel_job(case: Case) -> dict[str, Any]:
    record = json.loads((REFERENCE / "c_Svalue_3mm_Y-90_beta.json").read_text(encoding="utf-8"))
    return {
        "shape": [41, 41, 41], "voxel_cm": 0.3, "indices_array": np.ones((41, 41, 41), int),
        "materials": list(record["materials"].values()), "particle": "electron", "spectrum_eV": _spectrum(case.emissions),
        "box_centre_cm": [6.15, 6.15, 6.15], "box_size_cm": [0.3, 0.3, 0.3], "source_material": 0,
    }  # fmt: skip


def _spectrum(emissions: Sequence[Emission]) -> list[list[float]]:
    """Rows of energy, eV, and probability; lines become bins of 2 eV. The last one has a negative probability."""
    rows: list[list[float]] = []
    for emission in emissions:
        edges = 1e6 * np.asarray(emission.edges_MeV)
        if emission.probability.size == 1 and edges[1] == edges[0]:
            edges = edges + np.array([-1.0, 1.0])
        rows += [[float(e), float(p * emission.yield_per_decay)] for e, p in zip(edges, emission.probability, strict=False)]
        rows.append([float(edges[-1]), 0.0])
    rows[-1][1] = -1.0
    return rows


if __name__ == "__main__":
    sys.exit(main())
