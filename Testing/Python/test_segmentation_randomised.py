"""Random windows and random scanners: nothing is mirrored or folded, labels stay where they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.segmentation.recipe import read_recipe
from SynthDoseLib.segmentation.tissue_maps import tissues_of
from SynthDoseLib.segmentation.training import TrainingCase, WindowSource

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from SynthDoseLib.segmentation.deformation import Deformation, linear_at, nearest_at, random_places  # noqa: E402
from SynthDoseLib.segmentation.looks import LOOKS, look_of  # noqa: E402
from SynthDoseLib.segmentation.mr_contrast import tissue_brightness, water_and_fat  # noqa: E402
from SynthDoseLib.segmentation.noise import smooth_noise  # noqa: E402
from SynthDoseLib.segmentation.organ_detail import add_organ_detail  # noqa: E402
from SynthDoseLib.segmentation.randomised import RandomScan, add_arms, random_scan  # noqa: E402
from SynthDoseLib.segmentation.training_transforms import RandomScand  # noqa: E402

NAMES = ("air", "fat", "muscle", "liver", "cortical", "spongiosa", "lung")
STILL = RandomScan(strange=0, thick_slices=0, slab=0, circle=0, cut=0, couch=0, arms=0)


def person() -> tuple[torch.Tensor, torch.Tensor]:
    """A block of muscle in fat with a liver (class 1), a lung (2) and a bone (3); the rest is class 4."""
    tissues = np.zeros((48, 40, 44), np.uint8)
    tissues[6:42, 6:34] = 1
    tissues[9:39, 9:31] = 2
    tissues[26:36, 12:26, 10:30] = 3
    tissues[12:24, 12:26, 14:40] = 6
    tissues[22:28, 26:30] = 4
    tissues[23:27, 27:29] = 5
    classes = np.array([0, 4, 4, 1, 3, 3, 2], np.uint8)[tissues]
    return torch.from_numpy(tissues), torch.from_numpy(classes)


def test_space_is_bent_but_neither_folded_nor_mirrored():
    for seed in range(8):
        random = np.random.default_rng(seed)
        places = random_places((60, 50, 70), 3.0, (48, 40, 40), 4.0, Deformation(), random).numpy().astype(float)
        gradients = np.stack([np.stack(np.gradient(part), axis=-1) for part in places], axis=-2)
        assert np.linalg.det(gradients).min() > 0


def test_without_randomness_a_window_is_the_resampled_image():
    still = Deformation(rotation_deg=0, scale=0, axis_scale=0, shift_mm=0, bends=())
    places = random_places((41, 31, 21), 2.0, (11, 9, 5), 4.0, still, np.random.default_rng(1), level=10)
    x, y, z = places.numpy()
    np.testing.assert_allclose(x[:, 0, 0], 20 + 2.0 * (np.arange(11) - 5), atol=1e-4)  # 4 mm are two voxels of 2 mm
    np.testing.assert_allclose(y[0, :, 0], 15 + 2.0 * (np.arange(9) - 4), atol=1e-4)
    np.testing.assert_allclose(z[0, 0], 10 + 2.0 * (np.arange(5) - 2), atol=1e-4)
    ramp = torch.arange(41.0)[:, None, None].expand(41, 31, 21)
    np.testing.assert_allclose(linear_at(ramp, places, -1000.0).numpy(), x, atol=1e-3)
    labels = (ramp > 15.5).to(torch.uint8)
    np.testing.assert_array_equal(nearest_at(labels, places).numpy(), x > 15.5)


def test_outside_the_image_is_air_and_background():
    places = torch.tensor([[-5.0, 3.0], [3.0, 3.0], [3.0, 3.0]])[:, :, None, None]
    assert nearest_at(torch.ones(8, 8, 8, dtype=torch.uint8), places).flatten().tolist() == [0, 1]
    np.testing.assert_allclose(linear_at(torch.zeros(8, 8, 8), places, -1000.0).flatten(), [-1000, 0], atol=1e-3)


def test_smooth_noise_has_unit_spread_and_resembles_its_neighbours():
    noise = np.concatenate([smooth_noise((60, 60, 60), 6.0, np.random.default_rng(n)).numpy() for n in range(4)])
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1] > 0.9


def test_a_ct_shows_each_tissue_near_its_number_and_keeps_the_labels():
    tissues, classes = person()
    means = []
    for seed in range(12):
        image, found, seen = random_scan(tissues, classes, NAMES, 4.0, STILL, np.random.default_rng(seed))
        assert torch.equal(found, classes)
        assert seen.all()
        means.append([float(image[tissues == place].mean()) for place in range(7)])
    found = dict(zip(NAMES, np.mean(means, axis=0), strict=True))
    assert found["air"] < -950
    assert found["lung"] == pytest.approx(LOOKS["lung"].hu, abs=120)
    assert found["air"] < found["lung"] < found["fat"] < found["muscle"] < found["spongiosa"]
    assert np.std([row[3] for row in means]) > 8  # contrast phases and steatosis change the liver


def test_what_the_scan_does_not_cover_is_background():
    tissues, classes = person()
    settings = RandomScan(strange=0, thick_slices=0, slab=1.0, circle=1.0, cut=1.0, couch=0, arms=0)
    for modality in ("CT", "MR"):
        changed = RandomScan(**{**settings.__dict__, "modality": modality})
        image, found, seen = random_scan(tissues, classes, NAMES, 4.0, changed, np.random.default_rng(4))
        assert 0.3 < float((~seen).float().mean()) < 1
        assert not found[~seen].any()
        assert torch.equal(found[seen], classes[seen])
        assert float(image.min()) >= -1200 if modality == "CT" else float(image.min()) >= 0


def test_a_window_is_normalised_before_the_field_of_view_cuts_it():
    """The brightness of what is seen does not depend on how much of the window is not."""
    labels = body_labels()
    tissues, names = tissues_of(labels)
    case = TrainingCase("labels only", labels, tissues=tissues, tissue_names=names)
    windows = []
    for slab in (0.0, 1.0):
        chain = json.loads(json.dumps(read_recipe("torso_mr").configuration["randomisation"]))
        chain["transforms"][1] |= {"slab": slab, "circle": 0.0, "cut": 0.0}
        changes = {"randomisation": chain, "organs": ["skeleton", "rest_of_body"], "one_piece": []}
        windows.append(WindowSource([case], read_recipe("torso_mr", changes)).window(0, 0))
    (whole, _), (cut, classes) = windows
    lost = cut != whole
    assert lost.float().mean() > 0.1
    assert (cut[lost] == -1).all()
    assert not classes[lost[0, 0]].any()


def test_water_and_fat_are_added_kept_apart_or_subtracted():
    """Fat is fat for at least 88 %, muscle water for at least 85 %, compact bone and air neither."""
    looks = [look_of(name) for name in NAMES]

    def bright(sequence: tuple[float, float]) -> dict[str, NDArray[np.float64]]:
        rows = [tissue_brightness(looks, NAMES, sequence, 0.0, np.random.default_rng(seed)) for seed in range(200)]
        return dict(zip(NAMES, np.transpose(rows), strict=True))

    in_phase, water, fat, out_of_phase = (bright(pair) for pair in ((1, 1), (1, 0), (0, 1), (1, -1)))
    for name in NAMES:
        np.testing.assert_allclose(water[name] + fat[name], in_phase[name])
        np.testing.assert_allclose(water[name] - fat[name], out_of_phase[name])
    assert (out_of_phase["fat"] < 0).all()
    assert (fat["fat"] > 5 * fat["muscle"]).all()
    assert (water["fat"] <= 0.12 * 1.3).all()
    assert not in_phase["air"].any()


def test_every_kind_of_sequence_occurs():
    random = np.random.default_rng(3)
    drawn = np.array([water_and_fat(random) for _ in range(1000)])
    water_only, fat_only = (drawn[:, 1] >= 0) & (drawn[:, 1] <= 0.3), drawn[:, 0] <= 0.3
    for kind in ((drawn == (1, 1)).all(axis=1), water_only, fat_only, drawn[:, 1] < 0):
        assert kind.mean() > 0.1


def test_the_same_seed_makes_the_same_scan_and_another_another():
    tissues, classes = person()
    scans = [random_scan(tissues, classes, NAMES, 4.0, RandomScan(), np.random.default_rng(seed))[0] for seed in (7, 7, 8)]
    assert torch.equal(scans[0], scans[1])
    assert not torch.equal(scans[0], scans[2])


def test_arms_lie_in_the_air_beside_the_patient():
    tissues, classes = person()
    before = tissues.clone()
    wide = torch.nn.functional.pad(tissues, (0, 0, 0, 0, 30, 30)), torch.nn.functional.pad(classes, (0, 0, 0, 0, 30, 30))
    add_arms(*wide, NAMES, 3, 4, np.random.default_rng(2))
    assert torch.equal(wide[0][30:-30][before > 0], before[before > 0])
    for side in (slice(0, 34), slice(-34, None)):
        assert {3, 4} <= set(wide[1][side].unique().tolist())


@pytest.mark.parametrize(("organs", "found"), [(["liver", "rest_of_body"], {0, 2}), (["skeleton", "rest_of_body"], {0, 1, 2})])
def test_bones_of_arms_are_rest_of_the_body_where_no_skeleton_is_learned(organs, found):
    tissues, classes = (torch.nn.functional.pad(part, (0, 0, 0, 0, 30, 30))[None] for part in person())
    scan = RandomScand("image", 4.0, organs, **{**STILL.__dict__, "arms": 1.0})
    scan.set_random_state(seed=1)
    arms = scan({"tissue": tissues, "label": 0 * classes, "tissue_names": NAMES})["label"]
    assert set(arms.unique().tolist()) == found


def body_labels(**extra: int) -> LabelMap:
    """Muscle around a femur, with skin as the outline."""
    labels = np.zeros((20, 24, 24), np.uint16)
    labels[:, 3:21, 3:21], labels[:, 4:20, 4:20], labels[:, 9:15, 9:15] = 3, 1, 2
    labels[8:12, 6:8, 6:8] = 0
    organs = (Organ(1, "skeletal_muscle"), Organ(2, "femur_left"), Organ(3, "skin"))
    return LabelMap(VoxelGrid.from_spacing(labels.shape, (3.0, 3.0, 3.0)), labels, organs)


def test_vessels_pelvis_and_lesions_stay_in_their_organs():
    """Blood of 150, urine of 400 and lesions of 70 to 90 in organs of 50 to 60; nothing else changes."""
    names = ("air", "fat", "liver", "kidney", "blood", "urine", "spleen")
    place = {name: number for number, name in enumerate(names)}
    values = np.array([-1000.0, -100, 60, 50, 150, 400, 55])
    tissues = np.ones((40, 36, 30), np.uint8)
    tissues[2:22, 4:30, 4:26], tissues[26:38, 22:32, 4:20] = 2, 6
    i, j, k = np.ogrid[:40, :36, :30]
    tissues[((i - 30) / 6.3) ** 2 + ((j - 12) / 6.3) ** 2 + ((k - 14) / 10.3) ** 2 < 1] = 3
    deep = ndimage.binary_erosion(tissues == 3)
    tissue = torch.from_numpy(tissues)
    seen = {"blood": 0, "urine": 0, "lesion": 0}
    for seed in range(12):
        image = torch.from_numpy(values.astype(np.float32))[tissue.long()]
        add_organ_detail(image, tissue, place, values, (70.0, 90.0), np.random.default_rng(seed))
        found = image.numpy()
        np.testing.assert_array_equal(found[tissues == 1], -100)
        lesion = (found >= 70) & (found <= 90)
        liver, kidney, spleen = (tissues == n for n in (2, 3, 6))
        assert np.isin(found[liver & ~lesion], (60, 150)).all()
        assert (found[spleen & ~lesion] == 55).all()
        assert (found[kidney & ~deep & ~lesion] == 50).all()
        seen["blood"] += int((found[liver] == 150).sum())
        seen["urine"] += int((found[deep] == 400).sum())
        seen["lesion"] += int(lesion.sum())
        assert (found[liver] == 60).mean() > 0.5
    assert min(seen.values()) > 0


def test_labels_become_tissues_with_a_shell_of_bone_and_gas_where_nothing_is_named():
    tissues, names = tissues_of(body_labels())
    seen = np.array(names)[tissues]
    assert seen[10, 12, 12] == "spongiosa"
    assert seen[10, 9, 12] == "cortical"
    assert seen[10, 5, 12] == "muscle"
    assert seen[10, 3, 12] == "skin"
    assert seen[10, 7, 7] == "gas"
    assert (tissues[:, 0] == 0).all()


def test_labels_without_an_outline_make_no_image():
    labels = body_labels()
    alone = LabelMap(labels.grid, np.where(labels.labels == 2, 2, 0).astype(np.uint16), (Organ(2, "femur_left"),))
    with pytest.raises(SynthDoseError, match="show the whole body"):
        tissues_of(alone)


def test_a_chain_without_a_scanner_cannot_use_labels_alone():
    labels = body_labels()
    tissues, names = tissues_of(labels)
    case = TrainingCase("labels only", labels, tissues=tissues, tissue_names=names)
    shipped = read_recipe("torso_ct").configuration
    steps = [step for step in shipped["randomisation"]["transforms"] if step["_target_"] == "RandomWindowd"]
    changes = {"randomisation": {"_target_": "Compose", "transforms": steps}, "normalisation": []}
    with pytest.raises(SynthDoseError, match="no RandomScand"):
        WindowSource([case], read_recipe("torso_ct", changes)).window(0, 0)
    image, classes = WindowSource([case], read_recipe("torso_ct")).window(0, 0)
    assert image.shape == (1, 1, 96, 80, 80)
    assert float(image.min()) == -1  # the recipe's window of 800 HU, 0 HU in the middle
    assert float(image.max()) <= 1
    assert set(classes.unique().tolist()) <= {0, 10, 15}
