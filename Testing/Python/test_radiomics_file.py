"""``synthdose radiomics``: filters, parameter files, provenance, the check against IBSI, and bad input."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.cli import main
from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.radiomics import RadiomicsSettings, check_ibsi, compare_with_ibsi, extract_features, read_parameters
from Testing.Benchmarks import ibsi

needs_pyradiomics = pytest.mark.skipif(importlib.util.find_spec("radiomics") is None, reason="needs pyradiomics")
GRID = VoxelGrid.from_spacing((24, 24, 24), (2.0, 2.0, 2.0))


def place(grid=GRID):
    k, j, i = np.indices(grid.shape)
    return grid.to_ras(np.stack([i, j, k], -1))


def case(values) -> tuple[ImageVolume, LabelMap]:
    labels = (np.linalg.norm(place(), axis=-1) < 8).astype(np.uint16)
    return ImageVolume(GRID, values, "CT", "HU"), LabelMap(GRID, labels, organ_table(["lesion"]))


@pytest.fixture
def files(tmp_path) -> Path:
    image, labels = case(np.random.default_rng(1).normal(40, 20, GRID.shape).astype(np.float32))
    write_volume(tmp_path / "ct.nrrd", image.values, GRID)
    write_segmentation(tmp_path / "labels.seg.nrrd", labels)
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@needs_pyradiomics
def test_the_laplacian_of_a_parabola_is_six():
    """LoG of x^2 + y^2 + z^2 is its Laplacian, 6, whatever the width; ITK gives it times sigma^2 (normalised across scale)."""
    image, labels = case((place() ** 2).sum(axis=-1).astype(np.float32))
    settings = RadiomicsSettings(spacing_mm=None, classes=("firstorder",), log_sigma_mm=(2.0,))
    found = {(row.filter, row.feature): row.value for row in extract_features(image, labels, settings=settings).rows}
    assert found["log-sigma-2-0-mm-3D", "firstorder_Mean"] == pytest.approx(6 * 2.0**2, rel=0.01)
    assert found["original", "firstorder_Mean"] == pytest.approx(
        (place()[labels.labels > 0] ** 2).sum(axis=-1).mean(), rel=1e-6
    )


@needs_pyradiomics
def test_a_ramp_has_no_high_frequencies():
    """coif1 has two vanishing moments: high-pass bands of a linear ramp are 0, and the low one is the ramp times sqrt(8)."""
    image, labels = case(place()[..., 0].astype(np.float32))
    settings = RadiomicsSettings(spacing_mm=None, classes=("firstorder",), wavelet=True)
    found = {(row.filter, row.feature): row.value for row in extract_features(image, labels, settings=settings).rows}
    filters = {name for name, _ in found}
    assert len(filters) == 9
    for name in filters - {"original", "wavelet-LLL"}:
        assert found[name, "firstorder_RootMeanSquared"] == pytest.approx(0, abs=1e-4)
    spread = found["original", "firstorder_MeanAbsoluteDeviation"]
    assert found["wavelet-LLL", "firstorder_MeanAbsoluteDeviation"] == pytest.approx(8**0.5 * spread, rel=1e-4)


@needs_pyradiomics
def test_the_table_says_how_it_was_made(files, capsys):
    command = ["radiomics", str(files / "ct.nrrd"), str(files / "labels.seg.nrrd"), "--modality", "CT", "--voxel", "0"]
    assert main([*command, "--log-sigma", "3", "--out", str(files / "features.csv")]) == 0
    rows = read(files / "features.csv")
    assert {row["filter"] for row in rows} == {"original", "log-sigma-3-0-mm-3D"}
    assert "of 1 organs: lesion" in capsys.readouterr().out
    record = json.loads((files / "features.json").read_text())
    assert record["settings"]["log_sigma_mm"] == [3.0]
    assert set(record["sha256"]) == {"ct.nrrd", "labels.seg.nrrd"}
    assert "pyradiomics" in record["notes"][-1]


@needs_pyradiomics
def test_a_parameter_file_of_pyradiomics_is_followed(files):
    text = "setting:\n  binWidth: 10\n  label: 7\nimageType:\n  Original: {}\nfeatureClass:\n  firstorder: [Mean, Maximum]\n"
    (files / "params.yaml").write_text(text)
    command = ["radiomics", str(files / "ct.nrrd"), str(files / "labels.seg.nrrd"), "--modality", "CT"]
    assert main([*command, "--parameters", str(files / "params.yaml"), "--out", str(files / "f.csv")]) == 0
    image, labels = case(np.random.default_rng(1).normal(40, 20, GRID.shape).astype(np.float32))
    found = {row["feature"]: float(row["value"]) for row in read(files / "f.csv")}
    assert found == {
        "firstorder_Mean": pytest.approx(image.values[labels.labels > 0].mean(), rel=1e-5),
        "firstorder_Maximum": pytest.approx(image.values[labels.labels > 0].max(), rel=1e-5),
    }


@needs_pyradiomics
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("setting: {binWidth: -3}", "refuses the parameters"),
        ("imageType: {Magic: {}}", "refuses the parameters"),
        ("- 1\n- 2", "has to hold the tables"),
        ("a: [1, 2", "neither YAML nor JSON"),
        ("a: &x [1]\nb: *x", "anchors"),
        ("setting: !!python/object/apply:os.system ['echo hacked']", "neither YAML nor JSON"),
        ("x" * 200_000, "at most 100000"),
    ],
)
def test_bad_parameter_files_are_refused_and_nothing_is_written(files, capsys, text, message):
    (files / "params.yaml").write_text(text)
    command = ["radiomics", str(files / "ct.nrrd"), str(files / "labels.seg.nrrd"), "--modality", "CT"]
    assert main([*command, "--parameters", str(files / "params.yaml"), "--out", str(files / "f.csv")]) == 2
    assert message in capsys.readouterr().err
    assert not (files / "f.csv").exists()


def test_bad_options_are_refused(files, capsys):
    assert main(["radiomics", "--out", "x.csv"]) == 2
    assert "needs an image" in capsys.readouterr().err
    command = ["radiomics", str(files / "ct.nrrd"), str(files / "labels.seg.nrrd"), "--modality", "CT"]
    assert main([*command, "--out", str(files / "f.txt")]) == 2
    assert main([*command, "--out", str(files / "f.csv"), "--log-sigma", "-1"]) == 2
    assert "log_sigma_mm" in capsys.readouterr().err
    with pytest.raises(SynthDoseError, match="Cannot read"):
        read_parameters(files / "none.yaml")


@needs_pyradiomics
def test_the_installed_pyradiomics_agrees_with_the_digital_phantom(tmp_path, capsys):
    rows = check_ibsi()
    assert len(rows) > 95
    assert [row.ibsi for row in rows if not row.agrees] == []
    assert main(["radiomics", "--ibsi", "--out", str(tmp_path / "ibsi.csv")]) == 0
    assert f"{len(rows)} of {len(rows)} features" in capsys.readouterr().out
    assert len(read(tmp_path / "ibsi.csv")) == len(rows)


def test_a_wrong_value_does_not_agree():
    (row,) = compare_with_ibsi({"firstorder_Kurtosis": 2.645}, {"stat_kurt": (-0.355, 0.001)})
    assert row.agrees  # IBSI subtracts 3
    (row,) = compare_with_ibsi({"firstorder_Kurtosis": 2.645}, {"stat_kurt": (2.645, 0.001)})
    assert not row.agrees
    (row,) = compare_with_ibsi({}, {"stat_mean": (2.15, 0.1)})
    assert not row.agrees


@needs_pyradiomics
@pytest.mark.shared
@pytest.mark.skipif(not ibsi.SHARED.exists(), reason="needs ../shared")
def test_configuration_b_of_the_ct_phantom_agrees_with_our_interpolation():
    rows = ibsi.configuration("B")
    assert len(rows) == 102
    assert [row.ibsi for row in rows if not row.agrees] == []
