"""Training: a recipe is read without running code, the same steps give the same weights, and the bundle does what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, resource_path, sha256_of
from SynthDoseLib.segmentation import read_bundle, segment_with_bundle, shipped_bundles
from SynthDoseLib.segmentation.overlap import dice_scores, overlap_and_entropy
from SynthDoseLib.segmentation.recipe import read_recipe, recipe_of, training_templates
from SynthDoseLib.segmentation.training import (
    TrainingCase,
    WindowSource,
    learning_rate_at,
    prepare_case,
    train_network,
)

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from Testing.Benchmarks.segmentation import SHARED as IMAGES  # noqa: E402
from Testing.Benchmarks.segmentation import outline_of_mr, real_scan  # noqa: E402

SHARED = IMAGES / "ct_torso_totalseg"


def balls(seed: int, directions=None) -> TrainingCase:
    """A box of tissue with a dense ball on its right and a light one on its left, places at random."""
    random = np.random.default_rng(seed)
    grid = VoxelGrid.from_spacing((32, 32, 44), (6.0, 6.0, 6.0), directions=directions)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    values = np.where(np.abs(ras / (110, 80, 1000)).max(axis=-1) < 1, 0.0, -1000.0).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint16)
    for index, side, hu in ((1, 1, 200), (2, -1, -400)):
        centre = random.normal((60 * side, 0, 0), (8, 12, 25))
        ball = np.linalg.norm(ras - centre, axis=-1) < random.uniform(38, 48)
        values[ball], labels[ball] = hu, index
    values += random.normal(0, 20, values.shape).astype(np.float32)
    organs = (Organ(1, "liver"), Organ(2, "spleen"))
    return TrainingCase(f"balls {seed}", LabelMap(grid, labels, organs), ImageVolume(grid, values, modality="CT", unit="HU"))


def configuration(**changes):
    """A recipe of MONAI's own transforms for the balls: small, at 6 mm."""
    keys = ["image", "label"]
    chain = {
        "preparation": [
            {"_target_": "LoadImaged", "keys": keys},
            {"_target_": "EnsureChannelFirstd", "keys": keys},
            {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": [["L", "R"], ["P", "A"], ["I", "S"]]},
            {"_target_": "Spacingd", "keys": keys, "pixdim": [6.0, 6.0, 6.0], "mode": ["bilinear", "nearest"]},
        ],
        "randomisation": [
            {
                "_target_": "Rand3DElasticd", "keys": keys, "sigma_range": [3, 4], "magnitude_range": [5, 20], "prob": 0.3,
                "mode": ["bilinear", "nearest"], "padding_mode": "border",
            },
            {"_target_": "RandSpatialCropd", "keys": keys, "roi_size": "@window", "random_size": False},
            {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.5, "std": 15.0},
        ],
        "normalisation": [{"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": -100.0, "divisor": 500.0}],
    }  # fmt: skip
    base = {
        "name": "balls", "modality": "CT", "organs": ["liver", "spleen"], "one_piece": ["liver"], "spacing_mm": 6.0,
        "window": [32, 32, 32],
        "network_def": {
            "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "$len(@organs) + 1",
            "channels": [8, 16, 16], "strides": [2, 2], "num_res_units": 0,
        },
        **{part: {"_target_": "Compose", "transforms": steps} for part, steps in chain.items()},
        "steps": 8, "learning_rate": 0.01, "flat_share": 0.6, "class_balance": 0.3, "average": 0.8, "validate_every": 4,
        "patience": 6, "held_out_share": 0.25, "held_out_windows": 4, "seed": 3,
    }  # fmt: skip
    return {**base, **changes}


def test_resuming_gives_the_same_weights_and_repeats_nothing(tmp_path):
    cases, held = [balls(n) for n in range(3)], [balls(9)]
    whole = train_network(cases, held, recipe_of(configuration()))
    state = tmp_path / "state.pt"

    def stop(report):
        if "step 6" in report.message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(cases, held, recipe_of(configuration()), state=state, progress=stop)
    resumed = train_network(cases, held, recipe_of(configuration()), state=state, resume=True)
    assert whole.history.loss == resumed.history.loss
    assert len(resumed.history.loss) == 8
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    with pytest.raises(SynthDoseError, match="another training"):
        train_network(cases[:2], held, recipe_of(configuration()), state=state, resume=True)
    other = train_network(cases, held, recipe_of(configuration(seed=4)))
    assert other.history.loss != whole.history.loss


def test_a_training_without_progress_stops_and_keeps_its_best_weights():
    changes = {"learning_rate": 1e-7, "steps": 400, "validate_every": 2, "patience": 2, "average": 0.0}
    trained = train_network([balls(1), balls(2)], [balls(3)], recipe_of(configuration(**changes)))
    assert len(trained.history.loss) < 400
    looks = dict(trained.history.validation)
    best = max(np.nanmean(list(dice.values())) for dice in looks.values())
    assert np.nanmean(list(looks[trained.history.best_step].values())) == best


def test_the_loss_is_that_of_monai():
    from monai.losses import DiceLoss

    torch.manual_seed(0)
    logits, weights = torch.randn(1, 4, 8, 9, 10, requires_grad=True), torch.tensor([0.5, 1.0, 2.0, 1.5])
    classes = torch.randint(0, 4, (1, 1, 8, 9, 10))
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-3, smooth_dr=1e-3)
    expected = dice(logits, classes) + torch.nn.functional.cross_entropy(logits, classes[:, 0], weight=weights)
    found = overlap_and_entropy(logits, classes[0, 0].to(torch.uint8), weights)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    wanted, given = torch.autograd.grad(expected, logits)[0], torch.autograd.grad(found, logits)[0]
    assert float((wanted - given).abs().max()) < 1e-5 * float(wanted.abs().max())


def test_the_rate_rises_stays_and_falls():
    recipe = recipe_of(configuration(steps=1000, learning_rate=0.01, flat_share=0.5))
    rates = [learning_rate_at(step, recipe) for step in range(1000)]
    assert rates[0] < 0.001
    assert max(rates) == rates[400] == 0.01
    assert rates[750] == pytest.approx(0.005, rel=0.01)  # half of the cosine
    assert rates[-1] == pytest.approx(0.01 * 0.004)


def test_a_case_is_brought_to_right_anterior_superior():
    recipe = recipe_of(configuration())
    plain, turned = (prepare_case(balls(2, d), recipe) for d in (None, np.diag([-1.0, -1.0, 1.0])))
    right = [np.argwhere(np.asarray(data["label"][0]) == 1).mean(axis=0)[0] for data in (plain, turned)]
    assert min(right) > plain["label"].shape[1] / 2  # +x is right
    assert abs(right[0] - right[1]) < 1


def test_organs_that_are_not_learned_are_rest_of_the_body_and_not_the_air_around_it():
    labels = np.zeros((10, 10, 12), np.uint16)
    labels[:, :, 2:] = 1
    labels[2:8, 2:8, 4:6], labels[2:8, 2:8, 8:10], labels[:, :, 0] = 2, 3, 4
    organs = (Organ(1, "rest_of_body"), Organ(2, "liver"), Organ(3, "gallbladder"), Organ(4, "couch"))
    grid = VoxelGrid.from_spacing(labels.shape, (6.0, 6.0, 6.0))
    tissues = np.isin(labels, (1, 2, 3)).astype(np.uint8)
    image = ImageVolume(grid, np.where(tissues, 40, -1000).astype(np.float32), modality="CT", unit="HU")
    recipe = recipe_of(configuration(organs=["liver", "rest_of_body"], one_piece=[]))
    expected = np.array([0, 2, 1, 2, 0])[labels]
    unnamed = np.where(labels == 1, 0, labels).astype(np.uint16)  # what is no air and has no label is the rest
    for values, given in ((labels, organs), (unnamed, organs[1:])):
        found = prepare_case(TrainingCase("person", LabelMap(grid, values, given), image, tissues), recipe)
        np.testing.assert_array_equal(np.asarray(found["label"][0]).transpose(2, 1, 0), expected)


def test_a_window_depends_on_seed_and_step_alone():
    source = WindowSource([balls(1), balls(2)], recipe_of(configuration()))
    first = source.window(0, 5)
    source.window(0, 6)
    again = source.window(0, 5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], source.window(0, 6)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"organs": ["brain"]}, "hold no voxel of the organs to train"),
        ({"modality": "MR"}, "is a CT image"),
        ({"window": [48, 32, 32]}, "gives windows of"),
    ],
)
def test_patients_that_do_not_suit_the_recipe_are_refused(changes, message):
    if "window" in changes:  # the crop stays as it was
        steps = configuration()["randomisation"]["transforms"]
        chain = [dict(s, roi_size=[32, 32, 32]) if "roi_size" in s else s for s in steps]
        changes = {**changes, "randomisation": {"_target_": "Compose", "transforms": chain}}
    changes = {**changes, "one_piece": []}
    with pytest.raises(SynthDoseError, match=message):
        train_network([balls(1)], [], recipe_of(configuration(**changes)))


def _chain(*steps):
    return {"_target_": "Compose", "transforms": list(steps)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_def": {"_target_": "UNet", "out_channels": 7}}, "7 output channels"),
        ({"network_def": {"_target_": "os.system"}}, "output channels"),
        ({"organs": []}, "every organ once"),
        ({"organs": ["liver", "liver"]}, "every organ once"),
        ({"one_piece": ["brain"]}, "from among them"),
        ({"modality": "PET"}, "Allowed: CT, MR"),
        ({"steps": -1}, "a number from 1"),
        ({"steps": "$__import__('os').getpid()"}, "expression"),
        ({"window": [32, 32]}, "three numbers"),
    ],
)
def test_bad_recipes_are_refused(changes, message):
    with pytest.raises(SynthDoseError, match=message):
        recipe_of(configuration(**changes))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"_target_": "RandFlipd", "keys": ["image", "label"]}, "mirrors"),
        ({"_target_": "RandLambdad", "keys": "image", "func": "$print"}, "does not run|expression"),
        ({"_target_": "subprocess.run", "args": "ls"}, "does not run"),
        ({"_target_": "RandGaussianNoised", "keys": "image", "nonsense": 1}, "cannot be built"),
    ],
)
def test_transforms_that_are_no_transforms_are_refused(step, message):
    with pytest.raises(SynthDoseError, match=message):
        recipe_of(configuration(randomisation=_chain(step))).chain("randomisation")


def test_shipped_recipes_can_be_built():
    assert training_templates() == ("torso_ct", "torso_mr")
    for name in training_templates():
        recipe = read_recipe(name)
        assert len(recipe.chain("randomisation")) >= 2
        assert recipe.network() is not None
    with pytest.raises(SynthDoseError, match="Shipped: torso_ct, torso_mr"):
        read_recipe("nonsense")


def test_dice_is_the_overlap_over_the_mean_size():
    labels = balls(1).labels
    half = np.where(np.cumsum(labels.labels == 1).reshape(labels.labels.shape) % 2, labels.labels, 0)
    scores = dice_scores(LabelMap(labels.grid, half, labels.organs), labels, ("liver", "brain"))
    kept = int((half == 1).sum())
    assert scores["liver"] == pytest.approx(2 * kept / (kept + int((labels.labels == 1).sum())))
    assert np.isnan(scores["brain"])


SHIPPED = ("synthetic_torso_ct", "synthetic_torso_mr")


def test_a_bundle_for_each_modality_ships():
    assert shipped_bundles() == SHIPPED
    assert [read_bundle(bundle).modality for bundle in SHIPPED] == ["CT", "MR"]


@pytest.mark.parametrize("bundle", SHIPPED)
def test_a_shipped_bundle_is_small_and_documented(bundle):
    folder = resource_path("segmentation", bundle)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    description = read_bundle(bundle)
    assert description.licence == "Apache-2.0"
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("## Data", "## Measured", "## Limits", "Not for clinical use"))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["eval_metrics"]
    assert metadata["weights_sha256"] == sha256_of(folder / "models" / "model.pt")


@pytest.mark.parametrize("bundle", SHIPPED)
def test_monai_itself_understands_a_shipped_bundle(bundle):
    from monai.bundle import ConfigParser

    folder = resource_path("segmentation", bundle)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    for part in ("preprocessing", "inferer", "postprocessing"):
        assert parser.get_parsed_content(part) is not None


@pytest.mark.slow
def test_lungs_liver_and_kidneys_of_unseen_synthetic_patients_are_found():
    """The demonstration needs them: mean Dice of 0.85 over patients that no training saw."""
    from SynthDoseLib.phantom import synthetic_patient

    scores = []
    for seed in (101, 102, 103):
        person = synthetic_patient(seed, spacing_mm=(4.0, 4.0, 4.0))
        found = segment_with_bundle(person.ct, "synthetic_torso_ct")
        scores.append(dice_scores(found, person.organ_labels, ("lungs", "liver", "kidneys")))
    for organ in scores[0]:
        assert np.mean([score[organ] for score in scores]) >= 0.85, (organ, scores)
        assert min(score[organ] for score in scores) >= 0.75, (organ, scores)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_body_and_liver_of_a_real_mr_are_found():
    """Trained on stylised people alone: 95 % of the outline by thresholding, 80 % of TotalSegmentator's liver (Dice)."""
    image, theirs = real_scan(SHARED / "example_mr_sm.nii.gz", SHARED / "example_seg_mr.nii.gz", "totalsegmentator-mr", "MR")
    found = segment_with_bundle(image, "synthetic_torso_mr")
    body, outline = found.labels > 0, outline_of_mr(image)
    assert 2 * (body & outline).sum() / (body.sum() + outline.sum()) >= 0.95
    assert dice_scores(found, theirs, ("liver",))["liver"] >= 0.8
