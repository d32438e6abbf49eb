"""Inference in little memory gives what MONAI gives in much: windows, sums, probabilities, preprocessing."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_bundles import THRESHOLDS, ball, metadata, write, write_thresholds

from SynthDoseLib.core import Cancelled, ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.segmentation import BundleOptions, memory, read_bundle, segment_image, segment_with_bundle
from SynthDoseLib.segmentation.preparation import prepare
from SynthDoseLib.segmentation.probabilities import ProbabilityMap
from SynthDoseLib.segmentation.uncertainty import motions, relative_volume_sigmas, volume_interval
from SynthDoseLib.segmentation.windows import Scratch, scratch, slide, window_count

torch = pytest.importorskip("torch")
monai_inferers = pytest.importorskip("monai.inferers")

ROOM = 1 << 30


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("thresholds") / "bundle")


def two_channels(patches):
    """A network that sees its surroundings: local mean and its square."""
    mean = torch.nn.functional.avg_pool3d(patches, 5, stride=1, padding=2)
    return torch.cat([mean, mean**2], dim=1)


@pytest.mark.parametrize("shape", [(50, 33, 41), (20, 64, 30), (10, 12, 90), (24, 24, 24)])
@pytest.mark.parametrize(("overlap", "mode"), [(0.25, "gaussian"), (0.7, "constant"), (0.0, "gaussian")])
def test_slabs_together_are_what_monai_gives_at_once(shape, overlap, mode):
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 1, *shape), dtype=np.float32))
    settings = {"mode": mode, "padding_mode": "replicate"}
    window = memory.Window((24, 16, 20), 3, overlap, channels=2, settings=settings)
    expected = monai_inferers.sliding_window_inference(volume, window.roi, 3, two_channels, overlap=overlap, **settings)[0]
    calls = []

    def predict(patches):
        calls.append(len(patches))
        return two_channels(patches)

    found, seen = torch.zeros_like(expected), torch.zeros(shape)
    with scratch(ROOM) as space:
        for slab in slide(predict, volume, window, space, torch.device("cpu")):
            found[(slice(None), *slab.place)] = slab.logits
            seen[slab.place] += 1
    assert (seen == 1).all()
    assert sum(calls) == window_count(shape, window)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_sums_that_do_not_fit_are_kept_in_files_that_are_gone_afterwards():
    volume = torch.rand((1, 1, 40, 30, 30))
    window = memory.Window((16, 16, 16), 1, 0.5, channels=2)
    results = []
    for room in (ROOM, 1000):
        space = Scratch(room)
        results.append(torch.cat([slab.logits for slab in slide(two_channels, volume, window, space, torch.device("cpu"))], 1))
        assert bool(space.on_disk) is (room == 1000)
        assert space.in_memory <= room
        folder = space._folder
        space.close()
        assert folder is None or not folder.exists()
    assert torch.equal(*results)


AXES = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]]),
}


@pytest.mark.parametrize("axes", AXES)
def test_preprocessing_is_that_of_monai(thresholds, axes):
    from monai.data import MetaTensor
    from monai.transforms import Compose, Orientationd, ScaleIntensityRanged, Spacingd

    grid = VoxelGrid.from_spacing((20, 26, 31), (1.7, 2.3, 3.1), (11, -7, 40), AXES[axes])
    values = np.random.default_rng(1).uniform(-1000, 1000, grid.shape).astype(np.float32)
    steps = [
        Orientationd(keys="image", axcodes="RAS"),
        Spacingd(keys="image", pixdim=(2, 2, 2), mode="bilinear"),
        ScaleIntensityRanged(keys="image", a_min=-1000, a_max=1000, b_min=-1, b_max=1),
    ]
    data = MetaTensor(torch.from_numpy(values.transpose(2, 1, 0).copy())[None], affine=torch.from_numpy(grid.ijk_to_ras.copy()))
    expected = Compose(steps)({"image": data})["image"]
    found, where = prepare(ImageVolume(grid, values, modality="CT"), read_bundle(thresholds), ROOM)
    np.testing.assert_allclose(where.ijk_to_ras, np.asarray(expected.affine), atol=1e-9)
    np.testing.assert_allclose(found[0].numpy(), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("axes", AXES)
def test_the_most_probable_class_is_that_of_interpolated_probabilities(axes):
    """The shortcut for neighbours that agree changes nothing."""
    rng = np.random.default_rng(2)
    grid = VoxelGrid.from_spacing((9, 10, 11), (4.0, 4.0, 4.0))
    logits = torch.from_numpy(rng.normal(0, 2, (4, 11, 10, 9)).astype(np.float32))
    logits[1, :, :, :4] += 6  # a quiet corner, where all neighbours agree
    target = VoxelGrid.from_spacing((30, 20, 25), (1.5, 2.0, 1.7), directions=AXES[axes])
    found = ProbabilityMap(grid, 4, Scratch(ROOM), keep=True)
    for first in range(0, 11, 4):
        place = (slice(first, min(11, first + 4)), slice(0, 10), slice(0, 9))
        found.put(type("Slab", (), {"place": place, "logits": logits[(slice(None), *place)]}))
    p = torch.softmax(logits, dim=0).numpy().astype(np.float16).astype(np.float64)
    k, j, i = np.meshgrid(*(np.arange(n) for n in target.shape), indexing="ij")
    at = grid.to_ijk(target.to_ras(np.stack([i, j, k], axis=-1)))
    inside = ((at >= -0.5) & (at <= np.array([10.5, 9.5, 8.5]))).all(axis=-1)
    from scipy import ndimage

    values = [ndimage.map_coordinates(channel, np.moveaxis(at, -1, 0), order=1, mode="nearest") for channel in p]
    margin = np.diff(np.sort(values, axis=0)[-2:], axis=0)[0]
    sure = margin > 1e-4
    labels = found.labels_on(target)
    np.testing.assert_array_equal(labels[sure], np.where(inside, np.argmax(values, axis=0), 0)[sure])
    assert sure.mean() > 0.99


def test_little_memory_changes_no_label(thresholds):
    image = ball(shape=(60, 60, 60))
    plain = segment_with_bundle(image, thresholds, device="cpu")
    small = segment_with_bundle(image, thresholds, device="cpu", max_memory_bytes=12_000_000)
    assert not any("temporary files" in note for note in plain.notes)
    assert any("of them in temporary files" in note for note in small.notes)
    np.testing.assert_array_equal(plain.labels, small.labels)
    with pytest.raises(SynthDoseError, match=r"0\.0001 GB may be used"):
        segment_with_bundle(image, thresholds, device="cpu", max_memory_bytes=100_000)


def test_a_spacing_that_no_memory_holds_is_refused_before_it_is_tried(tmp_path, thresholds):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    steps: list[dict] = [
        {"_target_": "Spacingd", "pixdim": [0.01] * 3},
        {"_target_": "Resized", "spatial_size": [20000] * 3},
        {"_target_": "BorderPadd", "spatial_border": 30000},
    ]
    for step in steps:
        inference = copy.deepcopy(THRESHOLDS)
        inference["preprocessing"]["transforms"].append({**step, "keys": "image"})
        folder = write(tmp_path / step["_target_"], inference, metadata(["background", "Liver", "bone"]), weights)
        with pytest.raises(SynthDoseError, match=r"would have .* voxels, which take"):
            segment_with_bundle(ball(), folder, device="cpu")


def test_sizes_in_a_network_definition_that_no_network_has_are_refused(tmp_path, thresholds):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    for number, change in enumerate(({"channels": [3, 10**9]}, {"num_res_units": 10**6}, {"strides": [1] * 5000})):
        inference = copy.deepcopy(THRESHOLDS)
        inference["network_def"].update(change)
        folder = write(tmp_path / str(number), inference, metadata(["background", "Liver", "bone"]), weights)
        with pytest.raises(SynthDoseError, match=r"at most \d+ (is|are) taken"):
            segment_with_bundle(ball(), folder, device="cpu")


def test_the_uncertainty_is_small_where_the_answer_is_plain_and_large_at_boundaries(thresholds):
    image = ball()
    options = BundleOptions(device="cpu", samples=4)
    found = segment_image(image, thresholds, options)
    again = segment_image(image, thresholds, options)
    np.testing.assert_array_equal(found.entropy, again.entropy)
    assert found.entropy.shape == image.grid.shape
    distance = np.linalg.norm(
        image.grid.to_ras(np.stack(np.meshgrid(*(np.arange(n) for n in image.grid.shape[::-1]), indexing="ij"), axis=-1))
        - (12.0, 3.0, -15.0), axis=-1,
    ).transpose(2, 1, 0)  # fmt: skip
    edge, core = found.entropy[np.abs(distance - 30) < 2].mean(), found.entropy[distance < 8].mean()
    assert core < 0.1 * edge
    liver = next(volume for volume in found.volumes if volume.organ == "liver")
    truth = 4 / 3 * np.pi * (30**3 - 15**3) / 1000
    assert liver.low_ml < truth < liver.high_ml
    assert len(liver.inferences_ml) == 5
    assert 0 < liver.relative_sigma < 0.2
    # the mean of inferences finds what one finds, but for the boundary
    plain = segment_with_bundle(image, thresholds, device="cpu")
    assert (plain.labels != found.labels.labels).mean() < 0.02


def test_changes_of_an_image_keep_its_grid_a_grid_and_its_volumes_known(thresholds):
    image = ball()
    for motion in motions(image, 5, seed=3):
        _, grid = prepare(image, read_bundle(thresholds), ROOM, motion)
        np.testing.assert_allclose(grid.directions.T @ grid.directions, np.eye(3), atol=1e-9)
        zoom = np.linalg.det(motion.matrix[:3, :3])
        assert grid.voxel_volume_ml == pytest.approx(0.008 * zoom, rel=1e-9)


def test_groups_are_as_sure_as_their_sum():
    """Two kidneys that take voxels from each other are unsure, both together are not."""
    left = volume_interval("kidney_left", 150.0, [140, 160, 145, 155])
    right = volume_interval("kidney_right", 150.0, [160, 140, 155, 145])
    sigmas = relative_volume_sigmas([left, right])
    assert sigmas["kidneys"] == pytest.approx(0, abs=1e-12)
    assert sigmas["kidney_left"] == pytest.approx(np.std([140, 160, 145, 155], ddof=1) / 150)


def test_an_inference_can_be_stopped_in_every_pass(thresholds):
    passes = []

    def stop(report):
        passes.append(report.fraction)
        if report.fraction > 0.6:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment_image(ball(), thresholds, BundleOptions(device="cpu", samples=3), progress=stop)
    assert passes == sorted(passes)
