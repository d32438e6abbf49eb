"""`synthdose train-segmentation`: cohorts in every form, a complete bundle, fine-tuning, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from SynthDoseLib import __version__, cli
from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, sha256_of
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.pipeline.cohort import read_cohort, split_cohort
from SynthDoseLib.segmentation import read_bundle, segment_with_bundle
from SynthDoseLib.segmentation.bundle_writer import value_range
from SynthDoseLib.segmentation.overlap import dice_scores
from SynthDoseLib.segmentation.recipe import normalised_air, read_recipe

torch = pytest.importorskip("torch")
pytest.importorskip("monai")


def patient(seed: int) -> tuple[ImageVolume, LabelMap]:
    """Tissue with a dense and a light ball on the right and the left."""
    random = np.random.default_rng(seed)
    grid = VoxelGrid.from_spacing((24, 32, 40), (6.0, 6.0, 6.0))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    values, labels = np.full(grid.shape, -20.0, np.float32), np.zeros(grid.shape, np.uint16)
    values[:, :3] = values[:, -3:] = -1000.0
    for index, side, hu in ((1, 1, 200.0), (2, -1, -400.0)):
        ball = np.linalg.norm(ras - ras.mean(axis=(0, 1, 2)) - random.normal((60 * side, 0, 0), 6), axis=-1) < 40
        values[ball], labels[ball] = hu, index
    values += random.normal(0, 15, values.shape).astype(np.float32)
    organs = (Organ(1, "liver"), Organ(2, "spleen"))
    return ImageVolume(grid, values, modality="CT", unit="HU"), LabelMap(grid, labels, organs)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    for number in range(4):
        image, labels = patient(number)
        (root / f"case{number}").mkdir()
        write_volume(root / f"case{number}" / "ct.nrrd", image.values, image.grid, unit="HU")
        write_segmentation(root / f"case{number}" / "labels.seg.nrrd", labels)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    keys = ["image", "label"]
    content = {
        "name": "balls", "modality": "CT", "organs": ["liver", "spleen"], "one_piece": ["liver", "spleen"], "spacing_mm": 6.0,
        "window": [32, 32, 16],
        "network_def": {
            "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "$len(@organs) + 1",
            "channels": [8, 16, 16], "strides": [2, 2], "num_res_units": 0,
        },
        "preparation": [
            {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": [["L", "R"], ["P", "A"], ["I", "S"]]},
            {"_target_": "Spacingd", "keys": keys, "pixdim": "$[@spacing_mm, @spacing_mm, @spacing_mm]",
             "mode": ["bilinear", "nearest"]},
        ],
        "randomisation": [
            {"_target_": "RandomWindowd", "keys": keys, "spatial_size": "@window", "spacing_mm": "@spacing_mm",
             "rotation_deg": 4.0, "scale": 0.05, "shift_mm": 20.0, "bends": [[80.0, 4.0]]},
            {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.5, "std": 10.0},
        ],
        "normalisation": [
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -800.0, "a_max": 500.0, "b_min": 0.0, "b_max": 1.0,
             "clip": True},
        ],
        "steps": 60, "learning_rate": 0.03, "flat_share": 0.5, "class_balance": 0.3, "average": 0.8, "validate_every": 20,
        "patience": 5, "held_out_share": 0.25, "held_out_windows": 4, "seed": 1,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("recipe") / "balls.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(cohort, recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "balls"
    assert cli.main(["train-segmentation", str(cohort), "--config", str(recipe), "--out", str(out)]) == 0
    return out


def test_the_bundle_is_complete_and_segments(trained):
    assert {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()} == {
        "LICENSE", "SHA256SUMS", "configs/inference.json", "configs/metadata.json", "configs/training.json", "docs/README.md",
        "docs/learning_curves.csv", "docs/learning_curves.png", "models/model.pt",
    }  # fmt: skip
    for line in (trained / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        expected, name = line.split("  ")
        assert sha256_of(trained / name) == expected
    curve = (trained / "docs" / "learning_curves.csv").read_text(encoding="utf-8").splitlines()
    assert curve[0] == "step,loss,dice_liver,dice_spleen"
    assert len(curve) == 61
    card = (trained / "docs" / "README.md").read_text(encoding="utf-8")
    assert "4 patients with an image and labels" in card
    assert "1 of them held out" in card
    image, truth = patient(77)
    found = segment_with_bundle(image, trained, device="cpu")
    assert min(dice_scores(found, truth, ("liver", "spleen")).values()) > 0.8


@pytest.mark.parametrize(
    ("recipe", "changes", "air", "limits"),
    [
        ("torso_ct", {}, -1.0, [-1.0, 1.0]),  # -1000 HU, clipped to -400
        ("torso_mr", {}, -1.0, [-1.0, 1.0]),
        ("torso_ct", {"normalisation": {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 500,
                                        "b_min": 0, "b_max": 1}}, -2.0, []),
    ],
)  # fmt: skip
def test_what_lies_around_a_small_image_is_normalised_air(recipe, changes, air, limits):
    written = read_recipe(recipe, changes)
    assert normalised_air(written) == pytest.approx(air)
    assert value_range(written) == limits


def test_fine_tuning_keeps_what_organs_share_and_learns_the_others(trained, cohort, tmp_path):
    out = tmp_path / "tuned"
    command = ["train-segmentation", str(cohort), "--from", str(trained), "--out", str(out)]
    assert cli.main([*command, "--organs", "spleen", "--steps", "1", "--bundle-version", "2.1"]) == 0
    assert [organ.name for organ in read_bundle(out).organs] == ["spleen"]
    card = (out / "docs" / "README.md").read_text(encoding="utf-8")
    weights = sha256_of(trained / "models" / "model.pt")[:12]
    assert f"Started from the weights of the bundle balls {__version__} (SHA-256 {weights})" in card
    command = card.split("Command: `")[1].split("`")[0].split()
    assert command[:2] == ["synthdose", "train-segmentation"]
    assert command[-8:] == ["--bundle-version", "2.1", "--organs", "spleen", "--steps", "1", "--out", "tuned"]
    assert read_bundle(out).version == "2.1"
    image, truth = patient(77)
    found = segment_with_bundle(image, out, device="cpu")  # one step cannot teach it: it comes from the other bundle
    assert dice_scores(found, truth, ("spleen",))["spleen"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "1", "2"], "1 cohorts and 2 weights"),
        (["--organs", "brain"], "hold no voxel of the organs"),
        (["--config", "torso_mr", "--from", "TRAINED"], "say --other-modality"),
        (["--config", "torso_ct", "--from", "TRAINED"], "works at 6 x 6 x 6 mm"),
        (["--config", "nonsense"], "no training configuration"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message, trained, cohort, recipe, tmp_path, capsys):
    given = [str(trained) if item == "TRAINED" else item for item in arguments]
    config = [] if "--config" in arguments else ["--config", str(recipe)]
    assert cli.main(["train-segmentation", str(cohort), *config, *given, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_finished_bundle_is_not_overwritten_unasked(trained, cohort, recipe, capsys):
    command = ["train-segmentation", str(cohort), "--config", str(recipe), "--out", str(trained)]
    assert cli.main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 2
    assert "finished" in capsys.readouterr().err


def test_a_folder_of_other_things_is_left_alone(cohort, recipe, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert cli.main(["train-segmentation", str(cohort), "--config", str(recipe), "--out", str(tmp_path), "--overwrite"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_a_template_is_printed(capsys):
    assert cli.main(["train-segmentation", "--template", "torso_ct"]) == 0
    assert json.loads(capsys.readouterr().out)["modality"] == "CT"
    assert cli.main(["train-segmentation"]) == 2


def test_tables_and_folders_list_the_same_patients(cohort, tmp_path):
    rows = [(f"case{n}", f"{cohort}/case{n}/ct.nrrd", f"{cohort}/case{n}/labels.seg.nrrd") for n in range(4)]
    lines = ["name,image,labels,weight", *(f"{name},{image},{labels},2" for name, image, labels in rows)]
    (tmp_path / "cohort.csv").write_text("\n".join(lines), encoding="utf-8")
    entries = {"cases": [dict(zip(("name", "image", "labels"), row, strict=True)) for row in rows]}
    (tmp_path / "cohort.json").write_text(json.dumps(entries), encoding="utf-8")
    folder = read_cohort(str(cohort), modality="CT")
    for name, weight in (("cohort.csv", 6.0), ("cohort.json", 3.0)):
        table = read_cohort(str(tmp_path / name), modality="CT", weight=3.0)
        assert [case.name for case in table] == [case.name for case in folder]
        assert {case.weight for case in table} == {weight}
        np.testing.assert_array_equal(table[2].labels.labels, folder[2].labels.labels)


def test_a_cohort_of_people_is_read_by_its_index(tmp_path):
    grid = VoxelGrid.from_spacing((12, 14, 16), (8.0, 8.0, 8.0))
    labels = np.zeros(grid.shape, np.uint16)
    labels[:, 2:-2, 2:-2], labels[:, 4:8, 4:8], labels[:, 5:7, 5:7], labels[:, 4:8, 10:13] = 1, 2, 3, 4
    organs = [Organ(n, name) for n, name in enumerate(("skin", "stomach_wall", "stomach_contents", "lumbar_spine"), start=1)]
    (tmp_path / "p1").mkdir()
    write_segmentation(tmp_path / "p1" / "labels.seg.nrrd", LabelMap(grid, labels, tuple(organs)))
    (tmp_path / "cohort.csv").write_text("person,state,folder\np1,finished,p1\np2,failed,p2\n", encoding="utf-8")
    (case,) = read_cohort(str(tmp_path), modality="CT")
    assert case.name == "p1"
    assert [organ.name for organ in case.labels.organs] == ["skin", "stomach", "skeleton"]
    assert int((case.labels.labels == 2).sum()) == 12 * 16
    seen = np.array(case.tissue_names)[case.tissues]
    assert {seen[5, 4, 4], seen[5, 5, 5], seen[5, 5, 11]} == {"wall", "contents", "spongiosa"}


def test_a_decathlon_folder_is_read(tmp_path):
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    image, labels = patient(5)
    write_volume(tmp_path / "imagesTr" / "liver_5.nii.gz", image.values, image.grid, unit="HU")
    write_volume(tmp_path / "labelsTr" / "liver_5.nii.gz", labels.labels, labels.grid)
    table = tmp_path / "names.csv"
    table.write_text("index,name\n1,liver\n2,spleen\n", encoding="utf-8")
    (case,) = read_cohort(str(tmp_path), modality="CT", table=str(table))
    assert case.name == "liver_5"
    assert {organ.name for organ in case.labels.organs} == {"liver", "spleen"}
    (tmp_path / "labelsTr" / "liver_5.nii.gz").unlink()
    with pytest.raises(SynthDoseError, match="has no labels"):
        read_cohort(str(tmp_path), modality="CT")


def test_empty_labels_and_missing_or_double_files_are_refused(tmp_path):
    image, labels = patient(1)
    folder = tmp_path / "one"
    folder.mkdir()
    write_volume(folder / "ct.nrrd", image.values, image.grid, unit="HU")
    with pytest.raises(SynthDoseError, match="found 1 and 0"):
        read_cohort(str(tmp_path), modality="CT")
    write_volume(folder / "labels.nrrd", np.zeros_like(labels.labels), labels.grid)
    with pytest.raises(SynthDoseError, match=r"empty|no label"):
        read_cohort(str(tmp_path), modality="CT")
    with pytest.raises(SynthDoseError, match="no cohort"):
        read_cohort(str(tmp_path / "nowhere"), modality="CT")
    (tmp_path / "bad.csv").write_text("image\nx\n", encoding="utf-8")
    with pytest.raises(SynthDoseError, match="names no labels"):
        read_cohort(str(tmp_path / "bad.csv"), modality="CT")
    with pytest.raises(SynthDoseError, match="synthetic:64"):
        read_cohort("synthetic:none", modality="CT")


def test_a_cohort_of_one_cannot_be_split(cohort):
    cases = read_cohort(str(cohort), modality="CT")
    with pytest.raises(SynthDoseError, match="nobody would be left"):
        split_cohort(cases[:1], 0.1, 1)
    assert split_cohort(cases[:1], 0.0, 1) == (cases[:1], [])
    learn, held = split_cohort(cases, 0.5, 1)
    assert {case.name for case in learn} | {case.name for case in held} == {case.name for case in cases}
    assert (len(learn), len(held)) == (2, 2)
    assert [case.name for case in split_cohort(cases, 0.5, 1)[1]] == [case.name for case in held]
