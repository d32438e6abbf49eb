"""Stages whose inputs have not changed are taken over from an earlier run, and only those."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, write_patient

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import read_labels, read_volume
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.dicom_export import export_run
from SynthDoseLib.pipeline.plan import SegmentationPlan
from SynthDoseLib.pipeline.run import TAKEN_OVER, run_patient
from SynthDoseLib.pipeline.stage_store import KEPT, StageStore
from SynthDoseLib.segmentation import SegmentedImage


def dose_of(folder: Path) -> np.ndarray:
    return np.asarray(read_volume(folder / "dose_Gy.nrrd")[0])


def test_an_unchanged_transport_is_taken_over_and_a_changed_one_is_not(tmp_path):
    plan = read_plan(write_patient(tmp_path, PLAN.replace("histories = 4000", "histories = 400")))
    store = tmp_path / "store"
    first = run_patient(plan, tmp_path / "first", reuse=store)
    assert TAKEN_OVER not in first.notes
    other_report = dataclasses.replace(plan, output=dataclasses.replace(plan.output, title="Again"))
    second = run_patient(other_report, tmp_path / "second", reuse=store)
    assert TAKEN_OVER in second.notes
    assert np.array_equal(dose_of(tmp_path / "second"), dose_of(tmp_path / "first"))
    assert "Again" in (tmp_path / "second" / "report.html").read_text(encoding="utf-8")
    other_seed = dataclasses.replace(plan, dose=dataclasses.replace(plan.dose, seed=2))
    third = run_patient(other_seed, tmp_path / "third", reuse=store)
    assert TAKEN_OVER not in third.notes
    assert not np.array_equal(dose_of(tmp_path / "third"), dose_of(tmp_path / "first"))
    (damaged,) = {entry for entry in store.iterdir()} - {max(store.iterdir(), key=lambda entry: entry.stat().st_mtime)}
    (damaged / ".transport.npz").write_bytes(b"broken")
    again = run_patient(other_report, tmp_path / "again", reuse=store)
    assert TAKEN_OVER not in again.notes
    assert np.array_equal(dose_of(tmp_path / "again"), dose_of(tmp_path / "first"))


def test_organs_of_a_bundle_are_found_once_per_image_and_plan(tmp_path):
    grid = VoxelGrid.from_spacing((4, 5, 6), (2.0, 2.0, 2.0))
    image = ImageVolume(grid, np.zeros(grid.shape, np.float32), modality="CT", unit="HU")
    labels = np.arange(120, dtype=np.uint16).reshape(grid.shape) % 3
    organs = (Organ(1, "liver", "10200004", (0.1, 0.2, 0.3)), Organ(2, "spleen"))
    calls = []

    def find() -> SegmentedImage:
        calls.append(1)
        return SegmentedImage(LabelMap(grid, labels, organs, ("a note",)))

    store = StageStore(tmp_path)
    plan = SegmentationPlan(bundle="synthetic_torso_ct")
    store.organs(plan, image, find)
    again = store.organs(plan, image, find).labels
    assert len(calls) == 1
    assert np.array_equal(again.labels, labels)
    assert again.organs == organs
    assert again.notes == ("a note",)
    store.organs(dataclasses.replace(plan, organs=("liver",)), image, find)
    store.organs(plan, dataclasses.replace(image, values=image.values + 1), find)
    store.organs(SegmentationPlan(method="tissue"), image, find)
    assert len(calls) == 4


def test_a_store_keeps_the_newest_only(tmp_path):
    store = StageStore(tmp_path)
    for number in range(KEPT + 3):
        entry = store.entry("transport", f"{number:024d}")
        (entry / "file").write_text("x", encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == KEPT


@pytest.mark.parametrize("deidentify", [True, False])
def test_a_run_without_dicom_is_exported_with_a_ct_to_refer_to(tmp_path, deidentify):
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
