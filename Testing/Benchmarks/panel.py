"""What a user waits for: opening a panel, five clicks to a dose, the panel beside the command line, saving and loading a scene.

python -m Testing.Benchmarks.panel [--histories N …] [--runs 6] [--skip case scene] [--path FILE]

The modules run in the harness of Testing/Slicer (slicer-core, PySide6), not in Slicer. Every measured session is a process of
its own, so that its first run is one of a user who has just started the application.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .results import RESULTS, write_section

HEADING = "Panels: opening, five clicks, overhead over the command line, scenes"
REPOSITORY = Path(__file__).resolve().parents[2]
HARNESS = REPOSITORY / "Testing" / "Slicer"
MODULES = ("SynthDose", "SynthDoseSegmentation", "SynthDosePhantom", "SynthDoseMonteCarlo", "SynthDoseRadiomics")
OPENING_REPEATS = 3
SCENE_VOXELS = 256
LOOK_MS = 20
WARM_HISTORIES = 20_000
COMPARED = ("dose_Gy.nrrd", "organ_doses.csv")
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


def inputs(folder: str) -> dict[str, Any]:
    """Write the case of the sample patient as the panel hands it to a calculation, for the command line; its own process."""
    host = harness()
    widget = host.show(host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py"), 460, 1300)
    p = widget._parameterNode
    p.outputFolder = Path(folder)
    widget.ui.sampleButton.click()
    widget.logic.prepare(p, Path(folder) / "inputs")
    return {"histories": p.histories}


def five_clicks(folder: str, histories: str, runs: str) -> dict[str, Any]:
    """Sample patient, dose: by clicks, several times in a session, each beside the same plan on the command line."""
    host, work = harness(), Path(folder)
    widget = host.show(host.loadModule(REPOSITORY / "SynthDose" / "SynthDose.py"), 460, 1300)
    p = widget._parameterNode
    p.outputFolder, p.histories = work / f"panel-{histories}", int(histories)
    p.outputFolder.mkdir()
    begun = time.perf_counter()
    widget.ui.sampleButton.click()
    sample = time.perf_counter() - begun
    measured = []
    for run in range(int(runs)):
        p.seed = 1 + run
        plan = command_plan(work, p.histories, p.seed)
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "command": partial(by_command, plan, work / f"{plan.stem}-alone"),
            "panel": partial(by_panel, host, widget),
            "keeping": partial(by_command, plan, work / f"{plan.stem}-keeping", work / f"{plan.stem}-kept"),
        }
        first = run % len(ways)
        found = {way: ways[way]() for way in [*list(ways)[first:], *list(ways)[:first]]}
        results = [[(Path(one["run"]) / name).read_bytes() for name in COMPARED] for one in found.values()]
        measured.append({**found, "same": all(result == results[0] for result in results)})
    return {"sample_s": sample, "runs": measured}


def command_plan(work: Path, histories: int, seed: int) -> Path:
    """The plan of `inputs` with other histories and seed, beside it."""
    text = (work / "inputs" / "PLAN.toml").read_text(encoding="utf-8")
    for key, number in (("histories", histories), ("seed", seed)):
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {number}", text)
    path = work / "inputs" / f"{histories}-{seed}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def by_panel(host: Any, widget: Any) -> dict[str, Any]:
    """Click 2, and wait until the results are shown; nothing is taken over from an earlier run."""
    kept = widget._parameterNode.outputFolder / "SynthDose-unchanged-stages"
    shutil.rmtree(kept, ignore_errors=True)
    marks = watch(widget)
    worker, begun, cpu = children_cpu(), time.perf_counter(), time.process_time()
    widget.ui.runButton.click()
    started = time.perf_counter(), time.process_time()
    wait_for(widget)
    done, done_cpu = time.perf_counter(), time.process_time()
    worker = children_cpu() - worker
    if not widget.ui.statusLabel.text.startswith("Finished"):
        raise RuntimeError(widget.ui.statusLabel.text)
    return {
        "wall_s": done - begun, "cpu_s": done_cpu - cpu + worker, "start_s": started[0] - begun, "show_s": done - marks["wall"],
        "start_cpu_s": started[1] - cpu, "watch_cpu_s": marks["cpu"] - started[1], "show_cpu_s": done_cpu - marks["cpu"],
        "worker_cpu_s": worker, "run": widget._parameterNode.runFolder,
    }  # fmt: skip


def wait_for(widget: Any) -> None:
    """Run the event loop as the application does, asleep between events, until the run of a panel is over."""
    from PySide6.QtCore import QEventLoop, QTimer

    loop, look = QEventLoop(), QTimer(interval=LOOK_MS)
    look.timeout.connect(lambda: None if widget.logic.running or widget.timer.active else loop.quit())
    look.start()
    loop.exec()


def by_command(plan: Path, out: Path, kept: Path | None = None) -> dict[str, Any]:
    """The same on the command line, with or without keeping the stages for another run as the panel does."""
    command = [sys.executable, "-m", "SynthDoseLib", "run", str(plan), "--out", str(out), "--progress", "json"]
    cpu, begun = children_cpu(), time.perf_counter()
    subprocess.run([*command, *(("--reuse", str(kept)) if kept else ())], check=True, capture_output=True, cwd=REPOSITORY)
    return {"wall_s": time.perf_counter() - begun, "cpu_s": children_cpu() - cpu, "run": str(out)}


def children_cpu() -> float:
    """CPU time of the processes that this one has started and waited for, s; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def watch(widget: Any) -> dict[str, float]:
    """Note when the panel begins to load results."""
    marks: dict[str, float] = {}
    load = type(widget.logic).loadResults

    def noted(parameters: Any) -> Any:
        marks["wall"], marks["cpu"] = time.perf_counter(), time.process_time()
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


PARTS = {"opening": opening, "inputs": inputs, "five_clicks": five_clicks, "scene": scene}


def opening_lines() -> list[str]:
    """Table of opening times."""
    lines = ["| panel | wall, s | CPU, s | heavy packages imported |", "|---|---|---|---|"]
    for module in MODULES:
        found = [session("opening", module) for _ in range(OPENING_REPEATS)]
        wall, cpu = (statistics.median(f[key] for f in found) for key in ("wall_s", "cpu_s"))
        lines.append(f"| {module} | {wall:.2f} | {cpu:.2f} | {', '.join(found[0]['heavy']) or 'none'} |")
    return lines


def case_lines(histories: Sequence[int], runs: int) -> list[str]:
    """Table of the runs of a session for each number of histories."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
        usual = session("inputs", folder)["histories"]
        session("five_clicks", folder, str(WARM_HISTORIES), "1")
        cases = [one or usual for one in histories]
        found = {case: session("five_clicks", folder, str(case), str(runs)) for case in cases}
    lines = [
        f"Sample patient made in {found[cases[0]]['sample_s']:.1f} s (click 1); click 2 starts the run, with {usual:,} "
        "histories unless told otherwise. Beside it the same plan by `synthdose run`, with and without `--reuse`: the panel "
        "keeps stages for the next run as `--reuse` does, and nothing is taken over. A session with few histories went before, "
        "so that all ways were warm (kernels and modules compiled, tables kept); each run of a session began with another of "
        "the three. CPU times, which other programs disturb less than the clock: of the calculation with its start, and of the "
        "panel's own process.",
        "",
        "| histories | run of the session | panel, s | `run --reuse`, s | difference | `run`, s | difference | CPU: panel, s | "
        "`run --reuse`, s | difference | `run`, s | difference | same doses |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    own = []
    for case in cases:
        runs_of_case = found[case]["runs"]
        for number, run in enumerate(runs_of_case, start=1):
            lines.append(compared_line(case, str(number), [run]))
            own.append((case, number, run["panel"]))
        lines.append(compared_line(case, "mean", runs_of_case))
    parts = ("start_s", "show_s", "start_cpu_s", "watch_cpu_s", "show_cpu_s", "worker_cpu_s")
    lines += [
        "",
        "The panel's own part of these:",
        "",
        "| histories | run | writing the inputs and starting, s | showing the results, s | CPU: starting, s | watching, s | "
        "showing, s | calculation, s |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {case:,} | {n} | {' | '.join(f'{panel[part]:.2f}' for part in parts)} |" for case, n, panel in own),
    ]  # fmt: skip
    return lines


def compared_line(case: int, name: str, runs: Sequence[dict[str, Any]]) -> str:
    """Row with the mean times of runs, and how much longer the panel takes."""
    cells = [f"{case:,}", name]
    for key in ("wall_s", "cpu_s"):
        panel, keeping, command = (statistics.fmean(run[way][key] for run in runs) for way in ("panel", "keeping", "command"))
        cells.append(f"{panel:.1f}")
        for other in (keeping, command):
            cells += [f"{other:.1f}", f"{100 * (panel / other - 1):+.1f} %" if other else ""]
    return f"| {' | '.join([*cells, 'yes' if all(run['same'] for run in runs) else 'NO'])} |"


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
    parser.add_argument(
        "--histories",
        type=int,
        nargs="+",
        default=(0, 1_000_000),
        help="of the cases; 0: as the panel has them (default 0 1000000)",
    )
    parser.add_argument("--runs", type=int, default=6, help="of a session (default 6)")
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
