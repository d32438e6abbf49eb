"""Training: augmentation keeps image and labels together, a small network learns, the shipped bundle does what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, resource_path, sha256_of
from SynthDoseLib.segmentation import read_bundle, segment_with_bundle, shipped_bundles
from SynthDoseLib.segmentation.augmentation import Augmentation, augment
from SynthDoseLib.segmentation.bundle_writer import ModelCard, write_bundle
from SynthDoseLib.segmentation.training import TrainingSettings, dice_scores, prepare_pair, train_network

torch = pytest.importorskip("torch")
pytest.importorskip("monai")


def pair(seed: int, directions=None):
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
    return ImageVolume(grid, values, modality="CT", unit="HU"), LabelMap(grid, labels, organs)


def test_augmentation_moves_image_and_labels_together():
    ct, labels = pair(1)
    image, classes = prepare_pair(ct, labels, ("liver", "spleen"), 6.0)
    settings = Augmentation(noise_HU=0.0, offset_HU=0.0, organ_offset_HU=0.0, blur_voxels=0.0, bend_voxels=0.5)
    for seed in range(5):
        random = np.random.default_rng(seed)
        moved, moved_classes = augment(torch.from_numpy(image), torch.from_numpy(classes), (48, 40, 32), settings, random)
        assert moved.shape == moved_classes.shape == (48, 40, 32)
        dense = moved > 110
        if int((moved_classes == 1).sum()) > 300:
            assert 2 * int((dense & (moved_classes == 1)).sum()) / int(dense.sum() + (moved_classes == 1).sum()) > 0.9


def test_pairs_are_brought_to_right_anterior_superior():
    plain = prepare_pair(*pair(2), ("liver", "spleen"), 6.0)
    turned = prepare_pair(*pair(2, np.diag([-1.0, -1.0, 1.0])), ("liver", "spleen"), 6.0)
    right_first = np.argwhere(plain[1] == 1).mean(axis=0)[0], np.argwhere(turned[1] == 1).mean(axis=0)[0]
    assert min(right_first) > plain[1].shape[0] / 2  # +x is right
    assert abs(right_first[0] - right_first[1]) < 1


def test_labels_without_any_of_the_organs_are_refused():
    with pytest.raises(SynthDoseError, match="belongs to the organs to train"):
        prepare_pair(*pair(1), ("brain",), 6.0)


def test_dice_is_the_overlap_over_the_mean_size():
    ct, labels = pair(1)
    half = np.where(np.cumsum(labels.labels == 1).reshape(labels.labels.shape) % 2, labels.labels, 0)
    scores = dice_scores(LabelMap(ct.grid, half, labels.organs), labels, ("liver", "brain"))
    kept = int((half == 1).sum())
    assert scores["liver"] == pytest.approx(2 * kept / (kept + int((labels.labels == 1).sum())))
    assert np.isnan(scores["brain"])


@pytest.mark.slow
def test_a_small_network_learns_and_its_bundle_runs(tmp_path):
    settings = TrainingSettings(
        ("liver", "spleen"),
        ("liver",),
        channels=(8, 8, 16, 16, 16),
        window=(48, 32, 32),
        steps=90,
        learning_rate=1e-2,
        average=0.8,
        augmentation=Augmentation(rotation_deg=2, scale=0.05, shift_voxels=2, bend_voxels=0, cut_probability=0),
    )
    trained = train_network((pair(seed) for seed in range(6)), settings)
    assert trained.loss[-10:].mean() < 0.5 * trained.loss[:5].mean()
    card = ModelCard("balls", "0.0.1", "Two balls.", "Made up.", "Everything else.", "Nothing.", {"Dice": 1.0})
    folder = write_bundle(tmp_path / "balls", trained, card)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["weights_sha256"] == sha256_of(folder / "models" / "model.pt")
    ct, truth = pair(99, np.diag([-1.0, -1.0, 1.0]))
    found = segment_with_bundle(ct, folder, device="cpu")
    assert min(dice_scores(found, truth, ("liver", "spleen")).values()) > 0.5


BUNDLE = "synthetic_torso_ct"


def test_the_shipped_bundle_is_small_and_documented():
    assert BUNDLE in shipped_bundles()
    folder = resource_path("segmentation", BUNDLE)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    description = read_bundle(BUNDLE)
    assert description.licence == "Apache-2.0"
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("## Data", "## Measured", "## Limits", "Not for clinical use"))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["eval_metrics"]


def test_monai_itself_understands_the_shipped_bundle():
    from monai.bundle import ConfigParser

    folder = resource_path("segmentation", BUNDLE)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    for part in ("preprocessing", "inferer", "postprocessing"):
        assert parser.get_parsed_content(part) is not None


@pytest.mark.slow
def test_the_training_script_writes_a_bundle_with_what_it_measured(tmp_path, monkeypatch, capsys):
    from SynthDoseLib.pipeline import train_demo_bundle as script

    monkeypatch.setattr(script, "training_pairs", lambda number: (pair(seed) for seed in range(number)))
    monkeypatch.setattr(script, "measure", lambda bundle: {organ: [0.5, 0.9] for organ in script.MEASURED})
    out = tmp_path / "bundle"
    assert script.main(["--out", str(out), "--patients", "1", "--steps", "2", "--checkpoint-every", "1"]) == 1
    assert "Below the required mean Dice: lungs" in capsys.readouterr().out
    assert [organ.name for organ in read_bundle(out).organs] == list(script.ORGANS)
    assert "| Dice liver | 0.700 |" in (out / "docs" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        script.main(["--nonsense"])


@pytest.mark.slow
def test_lungs_liver_and_kidneys_of_five_unseen_patients_are_found():
    from SynthDoseLib.pipeline.train_demo_bundle import REQUIRED_DICE, UNSEEN_SEEDS, measure

    assert len(UNSEEN_SEEDS) == 5
    scores = measure(BUNDLE, spacing_mm=(4.0, 4.0, 4.0))
    for organ, required in REQUIRED_DICE.items():
        assert np.mean(scores[organ]) >= required, (organ, scores[organ])
        assert min(scores[organ]) >= required - 0.1, (organ, scores[organ])
