"""Plays ``synthdose run PLAN --out DIR`` for panel tests: quick, slow, failing, or crashing.

usage: python fake_worker.py MODE run PLAN --out DIR
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path


def report(stage: str, fraction: float, left: float | None = None, message: str = "") -> None:
    record = {"stage": stage, "fraction": fraction, "seconds_left": left, "message": message}
    sys.stderr.write(json.dumps(record) + "\n")
    sys.stderr.flush()


def main(mode: str, verb: str, plan: str, _: str, out: str, *__: str) -> int:
    assert verb == "run"
    inputs = Path(plan).parent
    report("read", 0.5)
    report("phantom", 1.0, None, "taken over")
    sys.stderr.write("reading ct.nrrd\n")
    if mode == "bad-input":
        sys.stderr.write("\nsynthdose: The organ 'kidney_left' is empty.\n")
        return 2
    if mode == "crash":
        sys.stderr.write("about to crash\n")
        sys.stderr.flush()
        os.abort()
    if mode in ("slow", "stubborn"):
        if mode == "stubborn":
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)
        for step in range(600):
            report("transport", step / 600, (600 - step) / 10, "12000 histories/s")
            time.sleep(0.1)
    report("transport", 1.0, 0.0)
    write_results(inputs, Path(out))
    if mode == "half":
        (Path(out) / "dose_Gy.nrrd").write_bytes(b"NRRD0004")
    return 0


def write_results(inputs: Path, out: Path) -> None:
    """Results of a run of the inputs: the dose is proportional to the activity."""
    import numpy as np

    from SynthDoseLib.core import resample
    from SynthDoseLib.io import read_labels, read_volume, write_segmentation, write_volume

    out.mkdir()
    ct, grid, _ = read_volume(inputs / "ct.nrrd")
    activity, activity_grid, _ = read_volume(inputs / "activity_1.nrrd")
    dose = resample(activity, activity_grid, grid) * 1e-6
    shutil.copy(inputs / "PLAN.toml", out / "plan.toml")
    write_volume(out / "ct.nrrd", ct.astype(np.float32), grid, unit="HU")
    write_volume(out / "dose_Gy.nrrd", dose.astype(np.float32), grid, unit="Gy")
    write_volume(out / "density.nrrd", np.where(ct > -500, 1.0, 0.0).astype(np.float32), grid, unit="g/cm3")
    write_volume(out / "sigma_Gy.nrrd", (0.01 * dose).astype(np.float32), grid, unit="Gy")
    rows = ["organ,volume_ml,mass_g,mean_dose_Gy,sigma_Gy,min_Gy,max_Gy,d95_Gy,d50_Gy,d5_Gy,total_sigma_Gy"]
    curves = ["organ,dose_Gy,volume_fraction"]
    budget = ["organ,component,relative_sigma,component_sigma_Gy,status,largest,mean_dose_Gy,total_sigma_Gy,basis"]
    courses = ["organ,time_h,activity_MBq,sigma_MBq,fitted_MBq,fitted_sigma_MBq"]
    quality = []
    if (inputs / "labels.seg.nrrd").exists():
        labels = read_labels(inputs / "labels.seg.nrrd", reference=grid)
        write_segmentation(out / "labels.seg.nrrd", labels)
        for organ in labels.organs:
            inside = dose[labels.mask(organ.name)]
            d95, d50, d5 = np.percentile(inside, (5, 50, 95))
            volume = inside.size * grid.voxel_volume_ml
            values = (volume, 1.05 * volume, inside.mean(), 0.01 * inside.mean(), inside.min(), inside.max(), d95, d50, d5)
            values += (0.1 * inside.mean(),)
            budget.append(
                f"{organ.name},fit,0.1,{0.1 * inside.mean():.4g},stated,yes,{inside.mean():.4g},{0.1 * inside.mean():.4g},-"
            )
            courses += [f"{organ.name},{hours},{100 / hours},1,{101 / hours},1" for hours in (4, 24, 96)]
            quality.append({"organ": organ.name, "verdict": "pass", "mass_g": 1.05 * volume})
            rows.append(organ.name + "".join(f",{value:.4g}" for value in values))
            curves += [f"{organ.name},{d:.5g},{(inside >= d).mean():.5g}" for d in np.linspace(0, inside.max(), 50)]
    (out / "organ_doses.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (out / "dvh.csv").write_text("\n".join(curves) + "\n", encoding="utf-8")
    (out / "uncertainty_budget.csv").write_text("\n".join(budget) + "\n", encoding="utf-8")
    if len(courses) > 1:
        (out / "time_activity.csv").write_text("\n".join(courses) + "\n", encoding="utf-8")
    finding = {"severity": "warning", "check": "mass", "organ": "liver", "found": "too small", "action": "Look at it."}
    record = {"verdict": "warning", "organs": quality, "findings": [finding]}
    (out / "phantom.json").write_text(json.dumps(record), encoding="utf-8")
    (out / "provenance.json").write_text(json.dumps({"versions": {"synthdose": "fake"}}), encoding="utf-8")
    (out / "report.html").write_text("<p>report</p>", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
