"""A batch of synthetic patients with one command: time per patient and stage, and peak memory.

python -m Testing.Benchmarks.batch_patients [--patients 10] [--out FILE]

Each patient is a CT (3 mm) and a SPECT as DICOM; organs by the shipped network, phantom, activity, a million histories in the
patient's own voxels, histograms, radiomics, DICOM, report, scene: what `synthdose batch` does for anybody.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

from SynthDoseLib.io import write_dicom_series
from SynthDoseLib.phantom import synthetic_patient
from SynthDoseLib.pipeline.demo import demo_plan
from SynthDoseLib.pipeline.plan import write_plan

from .results import RESULTS, write_section

HEADING = "Batch: time per patient and stage, peak memory"
HISTORIES = 1_000_000


def write_patients(folder: Path, number: int) -> Path:
    """Write the images of every patient to a folder of its own and one plan for all; return the plan."""
    for seed in range(1, number + 1):
        patient = synthetic_patient(seed)
        write_dicom_series(folder / "patients" / f"patient-{seed:02d}" / "ct", patient.ct)
        write_dicom_series(folder / "patients" / f"patient-{seed:02d}" / "spect", patient.spect)
        print(f"patient {seed} of {number} made", file=sys.stderr)
    plan = demo_plan(synthetic_patient(1), Path(), threads=1)
    plan = dataclasses.replace(plan, dose=dataclasses.replace(plan.dose, histories=HISTORIES))
    write_plan(plan, folder / "absolute.toml")
    text = (folder / "absolute.toml").read_text(encoding="utf-8")
    # relative paths refer to each patient's folder
    (folder / "plan.toml").write_text(text.replace(f"{Path().absolute().as_posix()}/", ""), encoding="utf-8")
    return folder / "plan.toml"


def run_batch(folder: Path, plan: Path) -> tuple[float, float, int]:
    """Run the one command; wall time and processor time, s, and the largest memory of it and its children together, bytes."""
    command = [sys.executable, "-m", "SynthDoseLib", "batch", str(folder / "patients"), "--plan", str(plan)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / "runs")], cwd=Path(__file__).resolve().parents[2])
    peak, processor_s = 0, 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak, processor_s
        while not done.wait(0.2):
            try:
                own = psutil.Process(process.pid)
                family = (own, *own.children(recursive=True))
                peak = max(peak, sum(p.memory_info().rss for p in family))
                # of children that have ended and of those that run
                processor_s = max(processor_s, sum(own.cpu_times()[:4]) + sum(sum(p.cpu_times()[:2]) for p in family[1:]))
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise RuntimeError(f"The batch ended with {status}.")
    return time.perf_counter() - start, processor_s, peak


def table(folder: Path, number: int) -> str:
    """Run everything; Markdown."""
    wall_s, processor_s, peak = run_batch(folder, write_patients(folder, number))
    stages: dict[str, list[float]] = defaultdict(list)
    patients: dict[str, float] = defaultdict(float)
    with open(folder / "runs" / "batch_times.csv", newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            stages[row["stage"]].append(float(row["seconds"]))
            patients[row["patient"]] += float(row["seconds"])
    lines = ["| stage (wall time) | median / s | smallest | largest |", "|---|---:|---:|---:|"]
    for name, seconds in [*stages.items(), ("patient, all stages", list(patients.values()))]:
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")
    first = (
        f"{len(patients)} of {number} patients finished in {wall_s:.0f} s, {processor_s / wall_s:.2f} of a core of which were "
        f"theirs ({processor_s / number:.0f} s of processor time each; the first includes loading and, if it is new, compiling "
        f"the engine); peak memory of all processes together {peak / 2**30:.2f} GiB; one thread."
    )
    return "\n".join([first, "", *lines, ""])


def main() -> int:
    """Run the batch and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(Path(folder), arguments.patients)
    write_section(HEADING, f"python -m Testing.Benchmarks.batch_patients --patients {arguments.patients}", text, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
