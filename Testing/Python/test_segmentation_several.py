"""Organs that overlap (a sigmoid per channel), and bundles that are averaged."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_bundles import ball, write_linear

from SynthDoseLib import cli
from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import write_volume
from SynthDoseLib.segmentation import BundleOptions, read_bundle, segment_image, segment_with_bundle
from SynthDoseLib.segmentation.probabilities import ProbabilityMap
from SynthDoseLib.segmentation.windows import Scratch, Slab

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
BACK = {"_target_": "Invertd", "keys": "pred", "nearest_interp": False}


def discrete(**how) -> dict:
    return {"_target_": "AsDiscreted", "keys": "pred", **how}


def ball_ml(radius_mm: float) -> float:
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def even(hu: float) -> ImageVolume:
    grid = VoxelGrid.from_spacing((16, 16, 16), (2.0, 2.0, 2.0))
    values = np.full(grid.shape, hu, np.float32)
    values[0, 0, 0] = -1000.0  # a CT without air is refused
    return ImageVolume(grid, values, modality="CT", unit="HU")


@pytest.mark.parametrize(
    ("names", "slopes", "offsets"),
    [
        (["Liver", "bone"], (8.0, 24.0), (0.0, -12.0)),
        (["bone", "Liver"], (24.0, 8.0), (-12.0, 0.0)),
        (["background", "bone", "Liver"], (50.0, 24.0, 8.0), (9.0, -12.0, 0.0)),
    ],
)
@pytest.mark.parametrize("first", ["probabilities", "labels"])
def test_a_voxel_in_several_organs_gets_the_smallest(tmp_path, names, slopes, offsets, first):
    """Above 0 HU is liver and above 500 HU bone too; the core of the ball is both."""
    steps = [SIGMOID, BACK, discrete(threshold=0.5)] if first == "probabilities" else [SIGMOID, discrete(threshold=0.5), BACK]
    folder = write_linear(tmp_path / "bundle", names, slopes, offsets, steps)
    assert [organ.name for organ in read_bundle(folder).organs] == [name for name in names if name != "background"]
    found = segment_with_bundle(ball(), folder, device="cpu")
    volumes = {name: count * found.grid.voxel_volume_ml for name, count in found.voxel_counts().items()}
    assert volumes["bone"] == pytest.approx(ball_ml(15), rel=0.05)
    assert volumes["liver"] == pytest.approx(ball_ml(30) - ball_ml(15), rel=0.05)
    assert any("given to the smallest of them (by size: Liver, bone)" in note for note in found.notes)


def test_the_threshold_is_the_bundles(tmp_path):
    """At 200 HU the probability of liver is 1 / (1 + exp(-1.6)) = 0.832."""
    for threshold, found in ((0.82, True), (0.84, False)):
        steps = [SIGMOID, BACK, discrete(threshold=threshold)]
        folder = write_linear(tmp_path / str(threshold), ["Liver"], (8.0,), (0.0,), steps)
        labels = segment_with_bundle(even(200.0), folder, device="cpu").labels
        assert bool(labels[4:].all()) is bool(labels.any()) is found
    folder = write_linear(
        tmp_path / "none", ["background", "Liver"], (0.0, 8.0), (0.0, 0.0), [SIGMOID, discrete(threshold=1.5)]
    )
    with pytest.raises(SynthDoseError, match=r"threshold 1\.5"):
        segment_with_bundle(even(200.0), folder, device="cpu")


def test_sigmoid_with_argmax_excludes_as_softmax_does(tmp_path):
    names, slopes, offsets = ["background", "Liver", "bone"], (0.0, 8.0, 24.0), (0.0, 0.0, -8.0)
    plain = write_linear(tmp_path / "softmax", names, slopes, offsets)
    folder = write_linear(tmp_path / "sigmoid", names, slopes, offsets, [SIGMOID, BACK, discrete(argmax=True)])
    one, other = (segment_with_bundle(ball(), bundle, device="cpu").labels for bundle in (plain, folder))
    np.testing.assert_array_equal(one, other)


def region_map(shares: np.ndarray, space: Scratch) -> ProbabilityMap:
    """Probabilities of overlapping organs (organs, ni, nj, nk) on a grid of 1 mm."""
    result = ProbabilityMap(
        VoxelGrid.from_spacing(shares.shape[:0:-1], (1.0, 1.0, 1.0)), len(shares) + 1, space, keep=True, threshold=0.5
    )
    result.put(Slab(tuple(slice(0, n) for n in shares.shape[1:]), torch.logit(torch.from_numpy(shares))))
    result.settle()
    return result


def test_regions_are_averaged_and_doubted_one_by_one():
    """Nested regions of 27, 8 and 1 voxels; a second inference is in two minds about the middle one."""
    shares = np.full((3, 5, 5, 5), 0.01)
    for region, (channel, size) in enumerate(((1, 3), (2, 2), (0, 1))):
        shares[channel][(slice(1, 1 + size),) * 3] = 0.99 - 0.01 * region
    space = Scratch(1 << 20)
    mean = region_map(shares, space)
    assert mean.order == (2, 3, 1)
    assert np.bincount(mean.labels.ravel()).tolist() == [125 - 27, 1, 27 - 8, 8 - 1]
    np.testing.assert_array_equal(mean.labels_on(mean.grid), mean.labels.transpose(2, 1, 0))
    unsure = shares.copy()
    unsure[2][shares[2] > 0.5] = 0.01
    mean.average(region_map(unsure, space), 2)
    p = (0.98 + 0.01) / 2
    expected = sum(-q * np.log(q) - (1 - q) * np.log(1 - q) for q in (0.97, 0.99, p))
    assert mean.entropy()[1, 1, 1] == pytest.approx(expected, abs=3e-3)  # half precision
    assert np.bincount(mean.labels.ravel(), minlength=4).tolist() == [125 - 27, 1, 27 - 1, 0]  # 0.495 is not half


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Bone from 500 HU, bone from 1000 HU, and the latter with its channels in another order."""
    folder = tmp_path_factory.mktemp("members")
    names = ["background", "Liver", "bone"]
    return (
        write_linear(folder / "a", names, (0.0, 8.0, 24.0), (0.0, 0.0, -8.0)),
        write_linear(folder / "b", names, (0.0, 8.0, 24.0), (0.0, 0.0, -16.0)),
        write_linear(folder / "c", ["background", "bone", "liver"], (0.0, 24.0, 8.0), (0.0, -16.0, 0.0)),
    )


def test_the_mean_of_the_members_probabilities_decides(members):
    """x = 0.6: softmax of (0, 4.8, 6.4) and of (0, 4.8, -1.6); their mean is for liver, the first member for bone."""
    image = even(600.0)
    shares = np.mean([np.exp(row) / np.exp(row).sum() for row in ((0, 4.8, 6.4), (0, 4.8, -1.6))], axis=0)
    for other in members[1:]:
        found = segment_image(image, members[0], BundleOptions(device="cpu", ensemble=(str(other),), clean=False))
        assert (found.labels.labels[4:] == 1).all()
        np.testing.assert_allclose(found.entropy[4:], -(shares * np.log(shares)).sum(), atol=2e-3)
        volumes = {volume.organ: volume.inferences_ml for volume in found.volumes}
        assert volumes["bone"] == (pytest.approx(32.76, abs=0.02), 0.0)
        assert volumes["liver"][1] == pytest.approx(32.76, abs=0.02)
        assert sum("Organs by the MONAI bundle" in note for note in found.labels.notes) == 2
    alone = segment_with_bundle(image, members[0], device="cpu", clean=False)
    assert (alone.labels[4:] == 2).all()


def test_members_and_changed_images_are_all_inferences(members):
    options = BundleOptions(device="cpu", ensemble=(str(members[1]),), samples=2)
    found = segment_image(ball(), members[0], options)
    assert {len(volume.inferences_ml) for volume in found.volumes} == {2 * 3}


def test_members_of_other_organs_are_refused(tmp_path, members):
    other = write_linear(tmp_path / "other", ["background", "Liver", "heart"], (0.0, 8.0, 24.0), (0.0, 0.0, -8.0))
    overlapping = write_linear(
        tmp_path / "overlap", ["background", "Liver", "bone"], (0.0, 8.0, 24.0), (0.0, 0.0, -8.0), [SIGMOID, BACK]
    )
    for bundle, message in ((other, "same organs .*heart"), (overlapping, "organs overlap in the one")):
        with pytest.raises(SynthDoseError, match=message):
            segment_image(even(0.0), members[0], BundleOptions(ensemble=(str(bundle),)))


def test_an_ensemble_by_command_writes_intervals_and_entropy(tmp_path, capsys, members):
    image = ball(shape=(24, 24, 24))
    write_volume(tmp_path / "ct.nrrd", image.values, image.grid, unit="HU")
    out = tmp_path / "out.seg.nrrd"
    words = ["segment", tmp_path / "ct.nrrd", "--modality", "CT", "--bundle", members[0], "--ensemble", *members[1:]]
    assert cli.main([str(word) for word in [*words, "--out", out]]) == 0
    assert "95 % interval" in capsys.readouterr().out
    with (tmp_path / "out.volumes.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["inferences"] for row in csv.DictReader(stream)} == {"3"}
    assert (tmp_path / "out.entropy.nrrd").is_file()
