"""Segmentation from the command line: what it writes, and one clear message for every bad image, bundle or table."""

from __future__ import annotations

import copy
import csv
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_bundles import INFERENCE, THRESHOLDS, ball, metadata, write, write_thresholds
from small_patient import PLAN, body_mask, grid, labels, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import ImageVolume, LabelMap, Organ, VoxelGrid
from SynthDoseLib.io import read_labels, read_volume, write_dicom_series, write_segmentation, write_volume
from SynthDoseLib.segmentation import read_bundle

torch = pytest.importorskip("torch")
pytest.importorskip("monai")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("thresholds") / "bundle")


def segment(tmp_path: Path, capsys, image: Path, *options) -> tuple[int, str, str]:
    out = tmp_path / "out.seg.nrrd"
    status = main(["segment", str(image), "--out", str(out), *map(str, options)])
    printed = capsys.readouterr()
    message = printed.err.split("synthdose: ")[-1].strip()
    assert "Traceback" not in printed.err
    if status:
        assert not out.exists()
    return status, printed.out, message


def saved(tmp_path: Path, values, where: VoxelGrid | None = None, name="ct.nrrd") -> Path:
    where = where or VoxelGrid.from_spacing(values.shape, (3.0, 3.0, 3.0))
    write_volume(tmp_path / name, np.asarray(values, np.float32), where, unit="HU")
    return tmp_path / name


def test_one_command_gives_labels_intervals_and_an_entropy_map(tmp_path, capsys, bundle):
    image = ball()
    path = saved(tmp_path, image.values, image.grid)
    status, out, _ = segment(tmp_path, capsys, path, "--bundle", bundle, "--modality", "CT", "--uncertainty", 2, "--memory", 1)
    assert status == 0
    assert "95 % interval" in out
    assert {o.name for o in read_labels(tmp_path / "out.seg.nrrd").organs} == {"liver", "bone"}
    entropy, where, unit = read_volume(tmp_path / "out.entropy.nrrd")
    assert where.matches(image.grid)
    assert unit == "nat"
    assert 0 <= entropy.min() < entropy.max() <= np.log(3) + 1e-3
    with open(tmp_path / "out.volumes.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["organ"] for row in rows] == ["liver", "bone"]
    assert all(float(row["low_ml"]) < float(row["volume_ml"]) < float(row["high_ml"]) for row in rows)


def test_the_low_resolution_of_a_bundle_can_be_chosen(tmp_path, capsys):
    """As in the Model Zoo's wholeBody_ct_segmentation: two resolutions with weights of their own."""
    from monai.networks.nets import SegResNet

    inference = copy.deepcopy(INFERENCE)
    inference["network_def"]["out_channels"] = 3
    definition = {key: value for key, value in inference["network_def"].items() if key != "_target_"}
    torch.manual_seed(1)
    folder = write(
        tmp_path / "zoo", inference, metadata(["background", "Liver", "Spleen"]), SegResNet(**definition).state_dict()
    )
    torch.save({"model": SegResNet(**definition).state_dict()}, folder / "models" / "model_lowres.pt")
    image = ball(shape=(12, 20, 20), spacing=(4.0, 4.0, 4.0), radius_mm=20)
    path = saved(tmp_path, image.values, image.grid)
    for options, spacing in (((), "1.5 x 1.5 x 1.5 mm"), (("--set", "displayable_configs#highres=false"), "3 x 3 x 3 mm")):
        status, out, _ = segment(tmp_path, capsys, path, "--bundle", folder, "--device", "cpu", *options)
        assert status == 0
        assert spacing in out
    assert read_bundle(folder, {"displayable_configs#highres": False}).weights.name == "model_lowres.pt"
    assert segment(tmp_path / "zoo", capsys, path, "--bundle", folder, "--set", "highres")[0] == BAD_INPUT


def test_an_mr_is_segmented_by_a_bundle_for_mr_only(tmp_path, capsys, bundle):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    for_mr = write(tmp_path / "mr", THRESHOLDS, metadata(["background", "Liver", "bone"], "MRI"), weights)
    image = ball()
    path = saved(tmp_path, image.values + 200, image.grid)
    assert segment(tmp_path, capsys, path, "--bundle", for_mr, "--modality", "MR")[0] == 0
    (tmp_path / "out.seg.nrrd").unlink()
    meta = metadata(["background", "Liver", "bone"], ["CT", "MRI"])
    (for_mr / "configs" / "metadata.json").write_text(json.dumps(meta), encoding="utf-8")
    assert read_bundle(for_mr).modality == "CT/MR"
    status, _, message = segment(tmp_path, capsys, path, "--bundle", for_mr, "--modality", "PT")
    assert status == BAD_INPUT
    assert "trained on CT/MR images" in message
    (for_mr / "configs" / "metadata.json").write_text(
        json.dumps(metadata(["background", "Liver", "bone"], "MRI")), encoding="utf-8"
    )
    status, _, message = segment(tmp_path, capsys, path, "--bundle", bundle, "--modality", "MR")
    assert status == BAD_INPUT
    assert "trained on CT images; this image is MR" in message
    assert segment(tmp_path, capsys, path, "--bundle", for_mr, "--modality", "CT")[0] == BAD_INPUT
    assert "densities come from a CT" in segment(tmp_path, capsys, path, "--modality", "MR")[2]


def test_an_mr_in_a_file_that_does_not_say_so_is_noticed(tmp_path, capsys, bundle):
    rng = np.random.default_rng(0)
    path = saved(tmp_path, rng.gamma(2.0, 150.0, (20, 24, 24)))
    for options in (("--bundle", bundle), ()):
        status, _, message = segment(tmp_path, capsys, path, *options)
        assert status == BAD_INPUT
        assert "HU" in message


@pytest.mark.parametrize("offset", [1000, 1024])
def test_numbers_that_are_no_hu_are_refused_and_an_offset_mends_them(tmp_path, capsys, bundle, offset):
    image = ball()
    path = saved(tmp_path, image.values + offset, image.grid)
    status, _, message = segment(tmp_path, capsys, path, "--bundle", bundle)
    assert status == BAD_INPUT
    assert "--hu-offset" in message
    assert segment(tmp_path, capsys, path, "--bundle", bundle, "--hu-offset", -offset)[0] == 0


@pytest.mark.parametrize("value", [0.0, -1000.0, 40.0])
def test_an_empty_image_is_refused(tmp_path, capsys, bundle, value):
    path = saved(tmp_path, np.full((12, 16, 16), value))
    assert "empty: all of its voxels" in segment(tmp_path, capsys, path, "--bundle", bundle)[2]
    status, _, message = segment(tmp_path, capsys, path)
    assert status == BAD_INPUT
    assert message


def test_a_single_slice_is_refused(tmp_path, capsys, bundle):
    where = VoxelGrid.from_spacing((1, 32, 32), (2.0, 2.0, 5.0))
    values = np.where(np.indices((1, 32, 32))[1] > 16, 40.0, -1000.0).astype(np.float32)
    write_dicom_series(tmp_path / "ct", ImageVolume(where, values, modality="CT", unit="HU"))
    status, _, message = segment(tmp_path, capsys, tmp_path / "ct", "--bundle", bundle)
    assert status == BAD_INPUT
    assert "single slice" in message


def test_a_bundle_for_much_finer_voxels_is_told_of(tmp_path, capsys, bundle):
    image = ball(shape=(16, 16, 16), spacing=(8.0, 8.0, 8.0))
    path = saved(tmp_path, image.values, image.grid)
    status, out, _ = segment(tmp_path, capsys, path, "--bundle", bundle)
    assert status == 0
    assert "4.0 times as large" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].update({"3": "heart"}), "its metadata name 4"),
        (lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].update({"2": "Liver"}), "the same name"),
        (lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].pop("1"), "without gaps"),
        (lambda m: m["network_data_format"]["outputs"]["pred"].pop("channel_def"), "do not name the output channels"),
    ],
)
def test_metadata_that_do_not_fit_the_network(tmp_path, capsys, bundle, change, message):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    meta = metadata(["background", "Liver", "bone"])
    change(meta)
    folder = write(tmp_path / "other", THRESHOLDS, meta, weights)
    image = ball()
    status, _, found = segment(tmp_path, capsys, saved(tmp_path, image.values, image.grid), "--bundle", folder)
    assert status == BAD_INPUT
    assert message in found


def test_labels_of_a_bundle_that_are_no_known_organ_are_reported(tmp_path, capsys, bundle):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    folder = write(tmp_path / "other", THRESHOLDS, metadata(["background", "Right kidney", "fabella"]), weights)
    image = ball()
    _, out, _ = segment(tmp_path, capsys, saved(tmp_path, image.values, image.grid), "--bundle", folder)
    assert "no known organ keep their names: fabella" in out
    assert "kidney_right" in out
    assert main(["bundle", str(folder)]) == 0
    described = capsys.readouterr().out
    assert "Right kidney = kidney_right" in described
    assert "no known organ keep their names: fabella" in described


@pytest.mark.parametrize(
    "options", [("--uncertainty", "1"), ("--uncertainty", "1000"), ("--memory", "-1"), ("--device", "tpu")]
)
def test_options_without_sense(tmp_path, capsys, bundle, options):
    image = ball(shape=(16, 16, 16))
    status, _, message = segment(tmp_path, capsys, saved(tmp_path, image.values, image.grid), "--bundle", bundle, *options)
    assert status == BAD_INPUT
    assert message


def test_options_of_a_bundle_without_a_bundle(tmp_path, capsys):
    image = ball(shape=(16, 16, 16))
    status, _, message = segment(tmp_path, capsys, saved(tmp_path, image.values, image.grid), "--uncertainty", "4")
    assert status == BAD_INPUT
    assert "uncertainty needs a bundle" in message


def refused(plan: Path, capsys) -> str:
    status = main(["run", str(plan), "--out", str(plan.parent / "out")])
    message = capsys.readouterr().err.split("synthdose: ")[-1].strip()
    assert status == BAD_INPUT, message
    assert not (plan.parent / "out").exists()
    return message


def with_table(tmp_path: Path, table: str, values) -> Path:
    plan = write_patient(tmp_path, PLAN.replace('"labels.seg.nrrd"', '"labels.nii.gz"\nlabels = "table.csv"'))
    affine = grid().ijk_to_ras
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.int16).transpose(2, 1, 0), affine), tmp_path / "labels.nii.gz")
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    return plan


def test_labels_out_of_the_table_and_names_given_twice(tmp_path, capsys):
    values = labels(grid()).labels
    message = refused(with_table(tmp_path, "index,name\n1,liver\n", values), capsys)
    assert "does not list: 2" in message
    message = refused(with_table(tmp_path, "index,name\n1,liver\n2,liver\n", values), capsys)
    assert "repeats" in message


def test_an_organ_split_over_two_labels_is_told_of(tmp_path, capsys):
    plan = with_table(tmp_path, "index,name\n1,Liver\n2,liver parenchyma\n", labels(grid()).labels)
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    notes = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))["notes"]
    assert any("liver parenchyma" in note and "split" in note for note in notes)


def test_the_spread_of_the_inferences_is_the_budgets_uncertainty_of_the_volume(tmp_path, bundle):
    where = grid()
    plan = PLAN.replace('path = "labels.seg.nrrd"', f"bundle = '{bundle}'\nuncertainty = 3\n").replace(
        '"ct.nrrd"', '"ct2.nrrd"'
    )
    path = write_patient(tmp_path, plan)
    write_volume(tmp_path / "ct2.nrrd", np.where(body_mask(where), 150.0, -1000.0).astype(np.float32), where, unit="HU")
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 0
    with open(tmp_path / "out" / "segmentation_volumes.csv", newline="", encoding="utf-8") as stream:
        liver = next(row for row in csv.DictReader(stream) if row["organ"] == "liver")
    with open(tmp_path / "out" / "uncertainty_budget.csv", newline="", encoding="utf-8") as stream:
        volume = next(row for row in csv.DictReader(stream) if row["organ"] == "liver" and row["component"] == "volume")
    relative = float(liver["sigma_ml"]) / float(liver["volume_ml"])
    assert "spread of the network's inferences" in volume["basis"]
    assert f"volume ± {relative:.1%}" in volume["basis"]
    assert (tmp_path / "out" / "segmentation_entropy.nrrd").exists()
    assert "segmentation_volumes.csv" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_swapped_kidneys_in_a_file_of_the_user_are_told_of_and_left_alone(tmp_path):
    where = grid()
    values = np.zeros(where.shape, np.uint16)
    values[labels(where).labels == 1] = 1  # on the patient's right
    values[labels(where).labels == 2] = 2
    path = write_patient(tmp_path)
    wrong = LabelMap(where, values, (Organ(1, "kidney_left"), Organ(2, "kidney_right")))
    write_segmentation(tmp_path / "labels.seg.nrrd", wrong)
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 0
    notes = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))["notes"]
    assert any("Left lies to the right of right: kidney" in note for note in notes)
