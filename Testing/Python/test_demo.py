"""The main job as ``make demo`` runs it: a relative folder, twice."""

import re

import pytest

from SynthDoseLib.cli import main

RUN_FOLDER = {
    "plan.toml", "provenance.json", "labels.seg.nrrd", "density.nrrd", "materials.nrrd", "tia_MBq_s.nrrd", "dose_Gy.nrrd",
    "sigma_Gy.nrrd", "organ_doses.csv", "dvh.csv", "dvh_metrics.csv", "constraints.csv", "bed.csv", "uncertainty_budget.csv",
    "activity_fields.csv", "radiomics.csv", "report.html", "ct.nrrd", "scene.mrb", "dicom", "input", "results.json",
    "phantom.json",
}  # fmt: skip


@pytest.mark.slow
def test_the_demo_makes_everything_it_promises(tmp_path, monkeypatch, capsys):
    pytest.importorskip("slicer")
    pytest.importorskip("radiomics")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("SynthDoseLib.pipeline.demo.HISTORIES", 100_000)
    for _ in range(2):
        assert main(["demo", "--out", "runs/demo", "--overwrite"]) == 0
        assert {p.name for p in (tmp_path / "runs" / "demo").iterdir()} == RUN_FOLDER
    printed = capsys.readouterr().out
    for organ in ("lungs", "liver", "kidneys"):
        found = re.search(rf"{organ} (0\.\d+)", printed)
        assert found is not None
        assert float(found[1]) >= 0.85
