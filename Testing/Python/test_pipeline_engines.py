"""Dose engines side by side, in Python and in a plan."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import Emission, LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.io import read_volume
from SynthDoseLib.physics import get_material
from SynthDoseLib.pipeline.engine_picture import engines_figure
from SynthDoseLib.pipeline.engine_plan import EngineOptions
from SynthDoseLib.pipeline.engines import EngineRow, compare_engines, engine_dose
from SynthDoseLib.transport import OrganSource, RunSettings

MEV_PER_G_IN_GY = 1.602176634e-10
GRID = VoxelGrid.from_spacing((12, 12, 12), (5.0, 5.0, 5.0))
BETA = [Emission.line("electron", 0.3, 1.0)]
SETTINGS = RunSettings(histories=40_000, threads=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.transport.kernel_store.user_cache_folder", lambda: tmp_path / "cache")


def lung_and_tissue() -> VoxelPhantom:
    labels = np.ones(GRID.shape, np.uint16)
    labels[6:] = 2
    density = np.where(labels == 1, 1.0, 0.3).astype(np.float32)
    organs = LabelMap(GRID, labels, organ_table(["tissue", "lung"]))
    material = np.where(labels == 1, 0, 1).astype(np.uint8)
    return VoxelPhantom(GRID, material, density, (get_material("soft_tissue"), get_material("lung")), organs)


def test_engines_agree_where_all_energy_stays_and_are_compared_with_the_first():
    comparison = compare_engines(
        lung_and_tissue(), OrganSource({"tissue": 1.0}), BETA, SETTINGS, decays=1e12, options=EngineOptions(kernel_sigma=0.01)
    )
    rows = {(row.organ, row.engine): row for row in comparison.rows}
    expected_Gy = 1e12 * 0.3 * MEV_PER_G_IN_GY / (6 * 12 * 12 * 0.125)
    assert rows["tissue", "local"].dose_Gy == pytest.approx(expected_Gy, rel=1e-5)
    assert rows["tissue", "monte-carlo"].dose_Gy == pytest.approx(expected_Gy, rel=0.03)  # the rim lets 2 % out
    assert rows["tissue", "kernel"].dose_Gy == pytest.approx(rows["tissue", "monte-carlo"].dose_Gy, rel=0.02)
    assert rows["lung", "local"].dose_Gy == 0
    assert rows["tissue", "monte-carlo"].difference_percent == 0
    for engine in ("kernel", "local"):
        row = rows["tissue", engine]
        assert row.difference_percent == pytest.approx(100 * (row.dose_Gy / rows["tissue", "monte-carlo"].dose_Gy - 1))
        difference = comparison.doses[engine].dose_Gy - comparison.doses["monte-carlo"].dose_Gy
        assert np.array_equal(comparison.differences_Gy[engine], difference)
        assert 0 < comparison.gamma[engine].pass_rate < 1
        assert any(f"Engine {engine} beside monte-carlo" in note for note in comparison.notes)
    assert any("the noise of single voxels of monte-carlo" in note for note in comparison.notes)  # 50 electrons per voxel
    assert list(comparison.seconds) == list(comparison.histograms) == ["monte-carlo", "kernel", "local"]


def test_without_pymedphys_the_rest_is_compared(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymedphys", None)
    comparison = compare_engines(
        lung_and_tissue(), OrganSource({"tissue": 1.0}), BETA, SETTINGS, engines=("local", "kernel"),
        options=EngineOptions(kernel_sigma=0.02),
    )  # fmt: skip
    assert comparison.gamma == {}
    assert any("pymedphys" in note for note in comparison.notes)
    assert comparison.reference == "local"


def test_kernels_of_three_tissues_give_lung_its_own():
    """Of activity in lung of 0.3 g/cm3 both kernels keep the energy; one of soft tissue keeps it nearer."""
    phantom, source = lung_and_tissue(), OrganSource({"lung": 1.0})
    doses = {
        tissues: engine_dose(
            "kernel", phantom, source, BETA, SETTINGS, EngineOptions(kernel_tissues=tissues, kernel_sigma=0.02)
        )
        for tissues in ("soft", "lung-soft-bone")
    }
    carlo = engine_dose("monte-carlo", phantom, source, BETA, SETTINGS)
    lung = {name: result.organs[1].dose_Gy for name, result in doses.items()}
    assert abs(lung["lung-soft-bone"] / carlo.organs[1].dose_Gy - 1) < abs(lung["soft"] / carlo.organs[1].dose_Gy - 1)
    with pytest.raises(SynthDoseError, match="Did you mean 'lung-soft-bone'"):
        EngineOptions(kernel_tissues="lung_soft_bone")
    with pytest.raises(SynthDoseError, match="not known"):
        engine_dose("kernels", phantom, source, BETA, SETTINGS)
    with pytest.raises(SynthDoseError, match="two or more different"):
        compare_engines(phantom, source, BETA, SETTINGS, engines=("local", "local"))


@pytest.mark.parametrize("engine", ["kernel", "local"])
def test_a_plan_runs_with_another_engine(tmp_path, engine):
    plan = PLAN.replace("[dose]", f'[dose]\nengine = "{engine}"').replace("histories = 4000", "relative_sigma = 0.05")
    assert main(["run", str(write_patient(tmp_path, plan)), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "organ_doses.csv").open(newline="") as stream:
        liver = next(row for row in csv.DictReader(stream) if row["organ"] == "liver")
    tia, where, _ = read_volume(tmp_path / "out" / "tia_MBq_s.nrrd")
    k, j, i = np.indices(where.shape)
    inside = np.linalg.norm(where.to_ras(np.stack([i, j, k], axis=-1)) - (25, 0, 0), axis=-1) < 20
    local_Gy = float(tia[inside].sum(dtype=np.float64)) * 1e6 * 0.147 * 1.602176634e-13 / (float(liver["mass_g"]) / 1000)
    assert local_Gy * 0.97 < float(liver["mean_dose_Gy"]) < local_Gy * (1.01 if engine == "local" else 1.06)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert any(("Local deposition" if engine == "local" else "Kernel convolution") in note for note in record["notes"])
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("Local deposition" if engine == "local" else "voxel S-kernels") in html


def test_a_plan_compares_engines_and_leaves_nothing_old_behind(tmp_path):
    plan = PLAN.replace("[dose]", '[dose]\ncompare = ["local"]').replace("histories = 4000", "histories = 2000")
    path = write_patient(tmp_path, plan)
    out = tmp_path / "out"
    assert main(["run", str(path), "--out", str(out)]) == 0
    with (out / "engines.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["engine"] for row in rows} == {"monte-carlo", "local"}
    difference, grid, unit = read_volume(out / "difference_local_Gy.nrrd")
    dose, _, _ = read_volume(out / "dose_Gy.nrrd")
    assert grid.shape == dose.shape
    assert unit == "Gy"
    assert float(np.abs(difference).max()) > 0
    assert (out / "dvh_local.csv").is_file()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Engine local beside monte-carlo" in html
    assert "Dose engines side by side" in html
    assert {"engine", "gamma_pass_rate"} <= set((out / "engines_gamma.csv").read_text().splitlines()[0].split(","))
    path.write_text(path.read_text().replace('compare = ["local"]\n', ""))
    assert main(["run", str(path), "--out", str(out), "--overwrite"]) == 0
    assert not [file.name for file in out.iterdir() if "local" in file.name or "engines" in file.name]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('engine = "kernels"', "Did you mean 'kernel'"), ('compare = ["monte-carlo"]', "each once"),
        ('compare = ["acuros"]', "compare is 'acuros'"), ('kernel_tissues = "bone"', "kernel_tissues is 'bone'"),
    ],
)  # fmt: skip
def test_a_bad_engine_is_refused(tmp_path, capsys, lines, message):
    path = write_patient(tmp_path, PLAN.replace("[dose]", f"[dose]\n{lines}"))
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lowest", "scale", "bars"), [(1.5, "linear", 4), (0.002, "log", 0)])
def test_doses_are_bars_from_zero_unless_they_span_decades(lowest, scale, bars):
    rows = [
        EngineRow(organ, engine, 100.0, dose, 0.01, 0.0)
        for organ, dose in (("liver", 2.0), ("spleen", lowest))
        for engine in ("monte-carlo", "local")
    ]
    figure = engines_figure(rows)
    figure.canvas.draw()
    doses = figure.axes[0]
    assert doses.get_xscale() == scale
    assert len(doses.patches) == bars
    if bars:
        assert doses.get_xlim()[0] == 0
    assert not any("times" in label.get_text() for label in doses.get_xticklabels(which="both"))
