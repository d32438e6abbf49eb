"""Stages whose inputs have not changed are taken over from an earlier run, and only those; numbers are those of a new run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, labels, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import Cancelled, ImageVolume, LabelMap, Organ, ProgressReport, SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_labels, read_volume, write_dicom_series, write_segmentation
from SynthDoseLib.pipeline import read_plan, run, run_report, stage_store
from SynthDoseLib.pipeline.dicom_export import export_run
from SynthDoseLib.pipeline.fingerprints import Fingerprints
from SynthDoseLib.pipeline.plan import OutputPlan, RunPlan
from SynthDoseLib.pipeline.run import run_patient
from SynthDoseLib.pipeline.run_folder import CHECKPOINT
from SynthDoseLib.pipeline.stage_store import CALCULATED, KEPT, STAGES, TAKEN_OVER, Stages, StageStore, read_value, write_value
from SynthDoseLib.segmentation import SegmentedImage
from SynthDoseLib.transport.checkpoint import Checkpoint

SCANS = """[[activity]]
path = "spect.nrrd"
unit = "Bq/ml"
acquired_at = 2024-02-04T10:00:00
[kinetics]"""
FEW = PLAN.replace("histories = 4000", "histories = 400")
DIFFERS = {"provenance.json", "report.html", "plan.toml"}
"""Files with the time of the run, or its folder."""


def dose_of(folder: Path) -> np.ndarray:
    return np.asarray(read_volume(folder / "dose_Gy.nrrd")[0])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(folder).items() if name not in DIFFERS}


def taken(result) -> set[str]:
    return {stage for stage, outcome in result.stages.items() if outcome == TAKEN_OVER}


@pytest.fixture
def quick_report(monkeypatch) -> None:
    """No pictures, which take most of the time of these runs."""
    for name in ("time_pictures", "outline_pictures"):
        monkeypatch.setattr(run_report, name, lambda *_, **__: ())
    monkeypatch.setattr(run, "write_report", lambda path, contents: path.write_text(contents.title, encoding="utf-8"))


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory) -> tuple[RunPlan, Path, Path]:
    """A plan with two time points, the run folder of it, and the store that this run has filled."""
    place = tmp_path_factory.mktemp("first")
    plan = read_plan(write_patient(place, FEW.replace("[kinetics]", SCANS)))
    result = run_patient(plan, place / "run", reuse=place / "store")
    assert set(result.stages) == {"phantom", "activity", "transport", "results", "report"}
    assert not taken(result)
    return plan, place / "run", place / "store"


@pytest.fixture
def first(kept_run, tmp_path) -> tuple[RunPlan, Path, Path]:
    """The same with a copy of the store, which a test may fill further."""
    plan, folder, store = kept_run
    shutil.copytree(store, tmp_path / "kept")
    return plan, folder, tmp_path / "kept"


def test_an_unchanged_run_takes_everything_over_and_gives_the_same_files(first, tmp_path):
    plan, folder, store = first
    again = run_patient(plan, tmp_path / "again", reuse=store)
    assert taken(again) == {"phantom", "activity", "transport", "results", "report"}
    assert numbers_of(tmp_path / "again") == numbers_of(folder)
    assert (tmp_path / "again" / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    fresh = run_patient(plan, tmp_path / "fresh")  # without a store
    assert numbers_of(tmp_path / "fresh") == numbers_of(folder)
    assert str(fresh.organs) == str(again.organs)  # nan of empty organs
    record = json.loads((tmp_path / "again" / "provenance.json").read_text(encoding="utf-8"))
    assert record["stages"] == dict.fromkeys(again.stages, TAKEN_OVER)
    assert "Taken over from an earlier run: phantom, activity" in again.summary()


@pytest.mark.parametrize(
    ("table", "changes", "anew"),
    [
        ("output", {"title": "Again"}, {"report"}),
        ("dosimetry", {"volumes_at_Gy": (1.0,)}, {"results"}),  # one more column, which the report does not show
        ("dose", {"seed": 2}, {"transport", "results", "report"}),
        ("therapy", {"administered_MBq": 2000.0}, {"activity", "results", "report"}),  # images in Bq/ml stay as they are
        ("kinetics", {"calibration_relative_sigma": 0.1}, {"activity", "results", "report"}),
        ("phantom", {"contrast": "override"}, {"phantom"}),  # no organ of this patient has contrast: the phantom is the same
    ],
)
def test_a_changed_setting_calculates_what_depends_on_it(first, tmp_path, quick_report, table, changes, anew):
    plan, _, store = first
    changed = dataclasses.replace(plan, **{table: dataclasses.replace(getattr(plan, table), **changes)})
    result = run_patient(changed, tmp_path / "changed", reuse=store)
    fresh = run_patient(changed, tmp_path / "fresh")
    assert set(result.stages) - taken(result) == anew
    assert numbers_of(tmp_path / "changed") == numbers_of(tmp_path / "fresh")
    assert result.notes == fresh.notes
    if table == "output":
        assert "Again" in (tmp_path / "changed" / "report.html").read_text(encoding="utf-8")


def test_an_edited_segmentation_is_calculated_with(first, tmp_path, quick_report):
    plan, folder, store = first
    organs = labels(grid())
    values = organs.labels.copy()
    values[:, :, :8][values[:, :, :8] == 0] = 2  # more spleen
    write_segmentation(tmp_path / "labels.seg.nrrd", dataclasses.replace(organs, labels=values))
    segmentation = dataclasses.replace(plan.segmentation, path=tmp_path / "labels.seg.nrrd")
    edited = run_patient(dataclasses.replace(plan, segmentation=segmentation), tmp_path / "edited", reuse=store)
    assert taken(edited) == set()
    run_patient(dataclasses.replace(plan, segmentation=segmentation), tmp_path / "fresh")
    assert numbers_of(tmp_path / "edited") == numbers_of(tmp_path / "fresh") != numbers_of(folder)


@pytest.mark.parametrize("begin", ["phantom", "transport", "report"])
def test_a_run_starts_again_from_a_stage(first, tmp_path, quick_report, begin):
    plan, folder, store = first
    result = run_patient(plan, tmp_path / "run", reuse=store, begin=begin)
    assert [stage for stage in STAGES if stage in result.stages and stage not in taken(result)] == [
        stage for stage in STAGES[STAGES.index(begin) :] if stage in result.stages
    ]
    assert numbers_of(tmp_path / "run") == numbers_of(folder)


def test_the_command_line_starts_again_from_a_stage(first, tmp_path, capsys):
    plan, folder, store = first
    path, out = str(folder / "plan.toml"), str(tmp_path / "run")
    assert main(["run", path, "--out", out, "--data", str(folder.parent), "--from", "results"]) == BAD_INPUT
    assert "--reuse" in capsys.readouterr().err
    assert main(["run", path, "--out", out, "--reuse", str(store), "--from", "dose"]) == BAD_INPUT
    assert "Stages: segment, phantom" in capsys.readouterr().err
    with pytest.raises(SynthDoseError, match="not both"):
        run_patient(plan, out, reuse=store, begin="results", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_damaged_or_foreign_store_is_not_believed(first, tmp_path, quick_report, monkeypatch):
    plan, folder, _ = first
    store = tmp_path / "store"
    run_patient(plan, tmp_path / "filled", reuse=store)
    for entry in store.iterdir():
        arrays = entry / "value.npz"
        arrays.write_bytes(arrays.read_bytes()[:-40] + b"x" * 40)
        for file in (entry / "files").glob("*"):
            file.write_bytes(b"broken")
    assert taken(run_patient(plan, tmp_path / "damaged", reuse=store)) == set()
    assert numbers_of(tmp_path / "damaged") == numbers_of(folder)
    monkeypatch.setattr(stage_store, "program_fingerprint", lambda: "another version")
    assert taken(run_patient(plan, tmp_path / "foreign", reuse=store)) == set()


@pytest.mark.parametrize("way", ["number", "array", "cut text", "cut arrays", "list", "no arrays"])
def test_a_kept_value_that_somebody_edited_is_not_believed(tmp_path, way):
    path, arrays = tmp_path / "value.json", tmp_path / "value.npz"
    write_value(path, "key", {"liver": 1.5, "map": np.arange(4.0)})
    assert read_value(path, "key") is not None
    if way == "number":
        path.write_text(path.read_text().replace("1.5", "2.5"))
    elif way == "array":
        with np.load(arrays) as kept:
            changed = {name: kept[name] + 1 if kept[name].dtype == float else kept[name] for name in kept.files}
        np.savez(arrays, **changed)
    elif way == "cut text":
        path.write_text(path.read_text()[:-5])
    elif way == "cut arrays":
        arrays.write_bytes(arrays.read_bytes()[:-5])
    elif way == "list":
        path.write_text(json.dumps([1, 2]))
    else:
        arrays.unlink()
    assert read_value(path, "key") is None


def test_a_store_that_cannot_be_written_does_not_end_a_run(first, tmp_path, quick_report, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plan, folder, _ = first
    monkeypatch.setattr(StageStore, "save", full)
    unkept = run_patient(plan, tmp_path / "unkept", reuse=tmp_path / "store")
    assert any("'transport' could not be kept" in note for note in unkept.notes)
    assert numbers_of(tmp_path / "unkept") == numbers_of(folder)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(SynthDoseError, match="is a file"):
        run_patient(plan, tmp_path / "none", reuse=tmp_path / "file")


@pytest.mark.parametrize("links", [True, False])
def test_a_run_stopped_after_the_transport_goes_on_without_its_store(first, tmp_path, quick_report, monkeypatch, links):
    """Its own folder holds the transported dose, too: written once where the file system has links, else copied."""
    plan, folder, _ = first
    store, stopped = tmp_path / "lost", tmp_path / "stopped"

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    def stop_at_the_report(state: ProgressReport) -> None:
        if state.stage == "report":
            raise Cancelled

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Cancelled):
        run_patient(plan, stopped, reuse=store, progress=stop_at_the_report)
    (entry,) = store.glob("transport-*")
    assert (stopped / CHECKPOINT[1]).samefile(entry / "value.npz") == links
    shutil.rmtree(store)
    monkeypatch.setattr(run, "transport", None)  # not called: it would raise
    run_patient(plan, stopped, resume=True)
    assert numbers_of(stopped) == numbers_of(folder)


def test_a_stopped_run_goes_on_in_another_folder(tmp_path, quick_report, monkeypatch):
    plan = read_plan(write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 200000")))

    def stop_in_the_middle(state: ProgressReport) -> None:
        words = state.message.split()
        if len(words) > 1 and words[1].startswith("histories") and int(words[0]) > 50_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_patient(plan, tmp_path / "stopped", reuse=tmp_path / "store", progress=stop_in_the_middle)
    found = []
    load = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda checkpoint: found.append(load(checkpoint)) or found[-1])
    result = run_patient(plan, tmp_path / "on", reuse=tmp_path / "store")
    assert taken(result) == {"phantom", "activity"}
    assert found[0].statistics.done > 0
    run_patient(plan, tmp_path / "fresh")
    assert numbers_of(tmp_path / "on") == numbers_of(tmp_path / "fresh")
    assert not list((tmp_path / "store").rglob("state.npz"))


def test_dicom_is_taken_over_with_its_identifiers(tmp_path, quick_report):
    from small_patient import hounsfield

    write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), modality="CT", unit="HU"))
    plan = read_plan(write_patient(tmp_path, FEW.replace('"ct.nrrd"', '"ct"')))
    assert isinstance(plan.output, OutputPlan)
    run_patient(plan, tmp_path / "one", reuse=tmp_path / "store")
    again = run_patient(plan, tmp_path / "two", reuse=tmp_path / "store")
    assert again.stages["export"] == TAKEN_OVER
    assert files_of(tmp_path / "two" / "dicom") == files_of(tmp_path / "one" / "dicom")
    named = dataclasses.replace(plan, output=dataclasses.replace(plan.output, deidentify=False))
    assert run_patient(named, tmp_path / "three", reuse=tmp_path / "store").stages["export"] == CALCULATED


def test_values_of_all_kinds_are_kept_and_nothing_else(tmp_path):
    where = VoxelGrid.from_spacing((2, 3, 4), (2.0, 2.0, 2.5), (1.0, 2.0, 3.0))
    values = np.arange(24, dtype=np.uint16).reshape(where.shape) % 3
    organs = (Organ(1, "liver", "10200004", (0.1, 0.2, 0.3)), Organ(2, "spleen"))
    found = SegmentedImage(LabelMap(where, values, organs, ("a note",)))
    path = tmp_path / "value.json"
    write_value(
        path, "key", (found, {"a": [1.5, float("nan"), None], "b": (np.float64(0.1), np.float32(0.1), np.bool_(True), 1)})
    )
    assert read_value(path, "another key") is None
    (again, table), files = read_value(path, "key")
    assert np.array_equal(again.labels.labels, values)
    assert np.allclose(again.labels.grid.ijk_to_ras, where.ijk_to_ras)
    assert again.labels.organs == organs
    assert again.labels.notes == ("a note",)
    assert (table["a"][0], table["a"][2], files) == (1.5, None, {})
    assert [type(value) for value in table["b"]] == [np.float64, np.float32, np.bool_, int]
    assert np.isnan(table["a"][1])
    with pytest.raises(TypeError):
        write_value(path, "key", open)
    for name in ("os:system", "SynthDoseLib.cli:main", "SynthDoseLib.core.volumes:Organ.index"):
        path.write_text(json.dumps({"key": "key", "value": {"class": name, "fields": {}}, "files": {}}), encoding="utf-8")
        assert read_value(path, "key") is None


def test_fingerprints_follow_contents_not_places(tmp_path):
    known = Fingerprints()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table.csv").write_text("organ,limit", encoding="utf-8")
    places = [tmp_path / folder / "table.csv" for folder in ("a", "b")]
    assert known.of(places[0]) == known.of(places[1])
    assert known.of(str(places[0])) != known.of(str(places[0].with_name("none.csv")))
    before = known.of(places[0])
    places[0].write_text("organ,other", encoding="utf-8")
    assert known.of(places[0]) != before
    values = np.zeros(4)
    before = known.of(values)
    values[2] = 1
    assert known.of(values) != before  # an array that can change is read again
    assert known.of((1, (2,))) != known.of((1, 2))
    assert known.of(np.float64(0.1)) == known.of(0.1)
    assert known.of("Bq/ml " * 100) != known.of("Bq/ml")  # a sentence that no system takes for a name
    with pytest.raises(TypeError):
        known.of(object())


def test_a_store_keeps_the_newest_only(tmp_path):
    stages = Stages(StageStore(tmp_path))
    for number in range(KEPT + 3):
        stages.take("transport", number, lambda: 1)
    assert len(list(tmp_path.iterdir())) == KEPT
    assert Stages(StageStore(tmp_path)).take("transport", KEPT + 2, lambda: 2) == 1
    assert Stages(StageStore(tmp_path)).take("transport", 0, lambda: 2) == 2


def test_a_store_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_store, "LARGEST_GB", 3e-5)
    for number, stage in enumerate(("phantom", "activity", "transport", "results")):
        Stages(StageStore(tmp_path)).take(stage, number, lambda: np.zeros(1500))  # 12 kB each
        os.utime(next(tmp_path.glob(f"{stage}-*")), (number, number))
    assert sorted(entry.name.split("-")[0] for entry in tmp_path.iterdir()) == ["results", "transport"]


def test_a_result_that_is_not_whole_is_not_kept(tmp_path):
    for expected in (1, 2):
        assert Stages(StageStore(tmp_path)).take("scene", "x", lambda n=expected: n, whole=lambda n: False) == expected


@pytest.mark.parametrize("deidentify", [True, False])
def test_a_run_without_dicom_is_exported_with_a_ct_to_refer_to(tmp_path, quick_report, deidentify):
    import pydicom

    plan = read_plan(write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 400")))
    run_patient(plan, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "dicom", deidentify=deidentify)
    dose = pydicom.dcmread(tmp_path / "dicom" / "rtdose.dcm")
    ct = pydicom.dcmread(next((tmp_path / "dicom" / "ct").iterdir()))
    assert dose.FrameOfReferenceUID == ct.FrameOfReferenceUID
    assert dose.StudyInstanceUID == ct.StudyInstanceUID
    scaled = dose.pixel_array * float(dose.DoseGridScaling)
    assert scaled.max() == pytest.approx(dose_of(tmp_path / "run").max(), rel=1e-4)
    assert read_labels(tmp_path / "dicom" / "seg.dcm").organs
