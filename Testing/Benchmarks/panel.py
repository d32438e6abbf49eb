"""What a user waits for: opening a panel, five clicks to a dose, the panel beside the command line, saving and loading a scene.

python -m Testing.Benchmarks.panel [--histories N] [--runs 3] [--skip case scene] [--path FILE]

The modules run in the harness of Testing/Slicer (slicer-core, PySide6), not in Slicer. Every measured session is a process of
its own, so that its first run is one of a user who has just started the application.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .results import RESULTS, write_section

HEADING = "Panels: opening, five clicks, overhead over the command line, scenes"
REPOSITORY = Path(__file__).resolve().parents[2]
HARNESS = REPOSITORY / "Testing" / "Slicer"
MODULES = ("SynthDose", "SynthDoseSegmentation", "SynthDosePhantom", "SynthDoseMonteCarlo", "SynthDoseRadiomics")
OPENING_REPEATS = 3
SCENE_VOXELS = 256
HEAVY = ("torch", "monai", "numba", "radiomics", "matplotlib", "SimpleITK", "pydicom")


def harness() -> Any:
    """The stand-in for Slicer, in this process."""
    sys.path.insert(0, str(HARNESS))
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if sys.platform.startswith("linux"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    from slicerhost import install

    return install()


def session(part: str, *arguments: str) -> dict[str, Any]:
    """Result of a part of this program in a process of its own."""
    command = [sys.executable, "-m", "Testing.Benchmarks.panel", "--part", part, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def opening(module: str) -> dict[str, Any]:
    """Load a module and show its panel for the first time."""
    host = harness()
    import ctk  # noqa: F401
    import qt  # noqa: F401

    begun = time.perf_counter(), time.process_time()
    host.show(host.loadModule(REPOSITORY / "SynthDose" / f"{module}.py"))
    taken = time.perf_counter() - begun[0], time.process_time() - begun[1]
    return {"wall_s": taken[0], "cpu_s": taken[1], "heavy": [name for name in HEAVY if name in sys.modules]}


def organ_doses(path: Path) -> dict[str, str]:
    """Mean dose by organ, as written."""
    with open(path, newline="", encoding="utf-8") as stream:
        return {row["organ"]: row["mean_dose_Gy"] for row in csv.DictReader(stream)}


def five_clicks(folder: str, histories: str, runs: str) -> dict[str, Any]:
    """Sample patient, dose: by clicks, several times in a session, each beside the same plan on the command line."""
    host = harness()
    work = Path(folder)
    widget = host.show(host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py"), 460, 1300)
    p, ui = widget._parameterNode, widget.ui
    p.outputFolder = work
    if histories != "0":
        p.histories = int(histories)
    begun = time.perf_counter()
    ui.sampleButton.click()
    sample = time.perf_counter() - begun
    measured = []
    for run in range(int(runs)):
        p.seed = 1 + run  # nothing is taken over from the transport on
        for node in (p.outputFolder / "SynthDose-unchanged-stages").glob("*/value.json"):
            node.unlink()  # nor before
        marks = watch(widget)
        worker = children_cpu()
        begun, cpu = time.perf_counter(), time.process_time()
        ui.runButton.click()
        started_cpu = time.process_time()
        host.waitUntil(lambda: not widget.logic.running and not widget.timer.active, 3600)
        done, done_cpu = time.perf_counter(), time.process_time()
        worker = children_cpu() - worker
        if not ui.statusLabel.text.startswith("Finished"):
            raise RuntimeError(ui.statusLabel.text)
        inputs = max(work.glob("SynthDose-2*"), key=lambda path: path.name)
        command = [sys.executable, "-m", "SynthDoseLib", "run", str(inputs / "PLAN.toml"), "--out", str(inputs / "again")]
        alone, alone_cpu = time.perf_counter(), children_cpu()
        subprocess.run([*command, "--progress", "json"], check=True, capture_output=True, cwd=REPOSITORY)
        alone, alone_cpu = time.perf_counter() - alone, children_cpu() - alone_cpu
        own, other = (organ_doses(inputs / name / "organ_doses.csv") for name in ("run", "again"))
        measured.append(
            {
                "panel_s": done - begun, "command_s": alone, "start_cpu_s": started_cpu - cpu,
                "worker_cpu_s": worker, "command_cpu_s": alone_cpu, "wait_cpu_s": done_cpu - started_cpu,
                "load_cpu_s": done_cpu - marks["loading_cpu"], "same": own == other, "histories": p.histories,
            }
        )  # fmt: skip
    return {"sample_s": sample, "runs": measured}


def children_cpu() -> float:
    """CPU time of the processes that this one has started and waited for, s; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def watch(widget: Any) -> dict[str, float]:
    """Note when the panel begins to load results."""
    marks: dict[str, float] = {}
    load = type(widget.logic).loadResults

    def noted(parameters: Any) -> Any:
        marks["loading_cpu"] = time.process_time()
        return load(widget.logic, parameters)

    widget.logic.loadResults = noted
    return marks


def scene(folder: str, voxels: str) -> dict[str, Any]:
    """Save and load the scene of a case with so many voxels along each axis."""
    import numpy as np

    host = harness()
    import slicer

    from SynthDoseLib.core import DoseMap, ImageVolume, LabelMap, VoxelGrid
    from SynthDoseLib.io import write_csv, write_segmentation, write_volume
    from SynthDoseLib.mrml import loadRun
    from SynthDoseLib.phantom import synthetic_patient

    patient = synthetic_patient(1, spacing_mm=(6.0,) * 3, noise_hu=8.0)
    size, coarse = int(voxels), patient.ct.grid
    grid = VoxelGrid.from_spacing((size,) * 3, (1.7,) * 3)
    at = [np.minimum(np.arange(size) * n // size, n - 1) for n in coarse.shape]
    ct = patient.ct.values[np.ix_(*at)] + np.random.default_rng(1).normal(0, 8, (size,) * 3)
    labels = patient.organ_labels.labels[np.ix_(*at)]
    activity = patient.spect.values
    at = [np.minimum(np.arange(size) * n // size, n - 1) for n in activity.shape]
    dose = DoseMap(grid, activity[np.ix_(*at)] * np.float32(1e-5), activity[np.ix_(*at)] * np.float32(1e-7))
    run = Path(folder) / "run"
    run.mkdir()
    image = ImageVolume(grid, np.rint(ct).astype(np.float32), modality="CT", unit="HU")
    write_volume(run / "ct.nrrd", image.values, grid, unit="HU")
    write_segmentation(run / "labels.seg.nrrd", LabelMap(grid, labels, patient.organ_labels.organs))
    for name, values in (("dose_Gy", dose.dose_Gy), ("sigma_Gy", dose.sigma_Gy), ("tia_MBq_s", dose.dose_Gy)):
        write_volume(run / f"{name}.nrrd", values, grid)
    organs = [organ.name for organ in patient.organ_labels.organs]
    write_csv(run / "organ_doses.csv", ["organ", "mean_dose_Gy", "sigma_Gy", "total_sigma_Gy"], [[o, 1, 0, 0] for o in organs])
    module = host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py")
    widget = host.show(module)
    p = widget._parameterNode
    begun = time.perf_counter()
    p.doseVolume = loadRun(run, slicer.mrmlScene).dose
    loaded_run = time.perf_counter() - begun
    p.outputFolder = Path(folder)
    begun = time.perf_counter()
    path = widget.logic.saveScene(p)
    saved = time.perf_counter() - begun
    slicer.mrmlScene.Clear()
    begun = time.perf_counter()
    slicer.util.loadScene(str(path))
    loaded = time.perf_counter() - begun
    widget.enter()
    assert widget._parameterNode.doseVolume is not None
    module.discard()
    return {"run_s": loaded_run, "save_s": saved, "load_s": loaded, "MB": path.stat().st_size / 1e6, "voxels": size}


PARTS = {"opening": opening, "five_clicks": five_clicks, "scene": scene}


def opening_lines() -> list[str]:
    """Table of opening times."""
    lines = ["| panel | wall, s | CPU, s | heavy packages imported |", "|---|---|---|---|"]
    for module in MODULES:
        found = [session("opening", module) for _ in range(OPENING_REPEATS)]
        wall, cpu = (statistics.median(f[key] for f in found) for key in ("wall_s", "cpu_s"))
        lines.append(f"| {module} | {wall:.2f} | {cpu:.2f} | {', '.join(found[0]['heavy']) or 'none'} |")
    return lines


def case_lines(histories: int, runs: int) -> list[str]:
    """Table of the runs of a session."""
    with tempfile.TemporaryDirectory() as folder:
        found = session("five_clicks", folder, str(histories), str(runs))
    lines = [
        f"Sample patient made in {found['sample_s']:.1f} s (click 1); click 2 starts the run of "
        f"{found['runs'][0]['histories']:,} histories. CPU times, which other programs disturb less than the clock: of the "
        "panel's own process (writing the inputs and starting, watching, loading and showing the results), of the calculation "
        "that it starts, which keeps its stages for the next run, and of the same plan on the command line. Nothing is taken "
        "over.",
        "",
        "| run of the session | panel, s | `synthdose run`, s | difference | CPU: start, s | watching, s | results, s | "
        "calculation, s | `synthdose run`, s | difference | same doses |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for number, run in enumerate(found["runs"], start=1):
        watching = run["wait_cpu_s"] - run["load_cpu_s"]
        whole = run["start_cpu_s"] + run["wait_cpu_s"] + run["worker_cpu_s"]
        own = 100 * (whole / run["command_cpu_s"] - 1) if run["command_cpu_s"] else math.nan
        more = 100 * (run["panel_s"] / run["command_s"] - 1)
        cells = [
            f"{number}", f"{run['panel_s']:.1f}", f"{run['command_s']:.1f}", f"{more:+.1f} %", f"{run['start_cpu_s']:.2f}",
            f"{watching:.2f}", f"{run['load_cpu_s']:.2f}", f"{run['worker_cpu_s']:.1f}", f"{run['command_cpu_s']:.1f}",
            f"{own:+.1f} %", "yes" if run["same"] else "NO",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def scene_lines() -> list[str]:
    """Sentence about the scene."""
    with tempfile.TemporaryDirectory() as folder:
        found = session("scene", folder, str(SCENE_VOXELS))
    return [
        f"Case of {found['voxels']}³ voxels (CT, dose, sigma, activity, segments, tables): results of the run folder into the "
        f"scene {found['run_s']:.1f} s; saved as .mrb in {found['save_s']:.1f} s, {found['MB']:.0f} MB; loaded in "
        f"{found['load_s']:.1f} s."
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(prog="python -m Testing.Benchmarks.panel", description=__doc__)
    parser.add_argument("--histories", type=int, default=0, help="of the case; 0 (default): as the panel has them")
    parser.add_argument("--runs", type=int, default=3, help="of a session (default 3)")
    parser.add_argument("--skip", nargs="*", choices=("opening", "case", "scene"), default=())
    parser.add_argument("--path", type=Path, default=RESULTS, help="Markdown file that gets the section")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.part:
        sys.stdout.write(json.dumps(PARTS[parsed.part[0]](*parsed.part[1:]), default=str) + "\n")
        sys.stdout.flush()
        os._exit(0)  # without tearing a scene down, which is not measured
    lines: list[str] = []
    for name, measure in (
        ("opening", opening_lines), ("case", lambda: case_lines(parsed.histories, parsed.runs)), ("scene", scene_lines),
    ):  # fmt: skip
        if name not in parsed.skip:
            lines += [*measure(), ""]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    lines.append(f"Load of the computer by other programs, too, at the end: {load:.1f} on {os.cpu_count()} cores.")
    write_section(HEADING, "python -m Testing.Benchmarks.panel", "\n".join(lines), parsed.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
