"""Running MONAI bundles: the Model Zoo's structure works, and a stranger's bundle cannot run code."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_bundles import NAMES, THRESHOLDS, ball, metadata, write, write_thresholds, write_whole_body

from SynthDoseLib.core import Cancelled, ImageVolume, SynthDoseError
from SynthDoseLib.segmentation import fetch_bundle, read_bundle, segment_with_bundle
from SynthDoseLib.segmentation import zoo as zoo_module

torch = pytest.importorskip("torch")
pytest.importorskip("monai")


@pytest.fixture(scope="module")
def whole_body(tmp_path_factory) -> Path:
    return write_whole_body(tmp_path_factory.mktemp("zoo") / "wholeBody_ct_segmentation")


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("thresholds") / "bundle")


def test_the_folder_of_the_model_zoo_runs_with_the_same_call(whole_body):
    description = read_bundle(whole_body)
    assert description.modality == "CT"
    assert len(description.organs) == 104
    image = ball(shape=(12, 20, 20), spacing=(4.0, 4.0, 4.0), radius_mm=20)
    reports = []
    labels = segment_with_bundle(image, whole_body, device="cpu", progress=reports.append)
    assert labels.grid.matches(image.grid)
    assert [organ.name for organ in labels.organs] == NAMES[1:]
    assert any("Whole body CT segmentation 0.2.5" in note and "1.5 x 1.5 x 1.5 mm" in note for note in labels.notes)
    assert reports[-1].fraction == 1.0
    assert any("window" in report.message for report in reports)


def test_overrides_choose_the_low_resolution(whole_body):
    with pytest.raises(SynthDoseError, match=r"model_lowres\.pt.*holds model\.pt"):
        read_bundle(whole_body, {"displayable_configs#highres": False})


DIRECTIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]]),
}


@pytest.mark.parametrize("axes", DIRECTIONS)
def test_labels_come_back_on_the_images_own_grid(thresholds, axes):
    image = ball(directions=DIRECTIONS[axes])
    labels = segment_with_bundle(image, thresholds, device="cpu")
    assert labels.grid is image.grid
    for name, truth in (("liver", (image.values > 0) & (image.values < 500)), ("bone", image.values > 500)):
        found = labels.mask(name)
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9, (axes, name)
    assert not labels.labels[image.values < -100][::7].all()


def test_only_the_largest_part_is_kept_where_the_bundle_says_so(tmp_path, thresholds):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    keep = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}
    inference = copy.deepcopy(THRESHOLDS)
    inference["postprocessing"]["transforms"].append(keep)
    folder = write(tmp_path / "bundle", inference, metadata(["background", "Liver", "bone"]), weights)
    image = ball()
    values = image.values.copy()
    values[2:6, 2:6, 2:6] = 200
    image = ImageVolume(image.grid, values, modality="CT", unit="HU")
    assert segment_with_bundle(image, thresholds, device="cpu", clean=False).mask("liver")[3:5, 3:5, 3:5].all()
    assert not segment_with_bundle(image, folder, device="cpu", clean=False).mask("liver")[:8, :8, :8].any()
    mended = segment_with_bundle(image, thresholds, device="cpu")
    assert not mended.mask("liver")[:8, :8, :8].any()
    assert any("Islands were given" in note for note in mended.notes)
    keep["independent"] = False
    folder = write(tmp_path / "other", inference, metadata(["background", "Liver", "bone"]), weights)
    with pytest.raises(SynthDoseError, match="in a way that SynthDose does not run"):
        segment_with_bundle(image, folder, device="cpu")


def test_organs_can_be_chosen_and_unknown_ones_are_refused(thresholds):
    labels = segment_with_bundle(ball(), thresholds, device="cpu", organs=["skeleton"])
    assert [organ.name for organ in labels.organs] == ["bone"]
    assert set(np.unique(labels.labels)) == {0, 2}
    with pytest.raises(SynthDoseError, match=r"does not segment 'spleen'\. It segments: liver, bone"):
        segment_with_bundle(ball(), thresholds, device="cpu", organs=["spleen"])


def test_a_callback_can_stop_it_between_windows(thresholds):
    def stop(report):
        if "window 2" in report.message:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment_with_bundle(ball(shape=(60, 60, 60)), thresholds, device="cpu", progress=stop)


def test_another_modality_and_bad_values_are_refused(thresholds):
    image = ball()
    with pytest.raises(SynthDoseError, match="trained on CT images; this image is MR"):
        segment_with_bundle(ImageVolume(image.grid, image.values, modality="MR"), thresholds)
    with pytest.raises(SynthDoseError, match="not numbers"):
        segment_with_bundle(ImageVolume(image.grid, np.full_like(image.values, np.nan), modality="CT"), thresholds)
    with pytest.raises(SynthDoseError, match="not a device"):
        segment_with_bundle(image, thresholds, device="tpu")


class Payload:
    """What a malicious checkpoint would run when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def changed(path: tuple, value) -> dict:
    configuration = copy.deepcopy(THRESHOLDS)
    node = configuration
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return configuration


TRANSFORMS = ("preprocessing", "transforms", 0)


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        (changed(("network_def",), {"_target_": "os.system", "command": "echo"}), "asks for os.system as network"),
        (changed(TRANSFORMS, {"_target_": "Lambdad", "keys": "image", "func": "$print"}), "does not run"),
        (changed(TRANSFORMS, {"_target_": "monai.transforms.Lambdad", "keys": "image"}), "Allowed, all of MONAI"),
        (changed(TRANSFORMS, {"_target_": "evil.transforms.Spacingd", "keys": "image"}), "evil.transforms.Spacingd"),
        (changed((*TRANSFORMS, "axcodes"), "$__import__('os').system('echo')"), "never executed"),
        (changed((*TRANSFORMS, "axcodes"), "$(lambda: 'RAS')()"), "never executed"),
        (changed((*TRANSFORMS, "axcodes"), "$''.__class__.__mro__[1].__subclasses__()"), "never executed"),
        (changed((*TRANSFORMS, "axcodes"), "$[x for x in 'RAS']"), "never executed"),
        (changed((*TRANSFORMS, "axcodes"), "%../secret.json#key"), "includes another file"),
        (changed(("inferer",), {"_target_": "SlidingWindowInferer", "roi_size": "$9**9**9"}), "not allowed"),
        (changed(("inferer",), {"_target_": "SlidingWindowInferer", "roi_size": "$[32] * 3"}), "numbers only"),
        (changed((*TRANSFORMS, "axcodes"), "@preprocessing#transforms#0#axcodes"), "refers to itself"),
        (changed((*TRANSFORMS, "axcodes"), "@nowhere"), "does not define"),
        (changed((*TRANSFORMS, "axcodes"), "XYZ"), "fails on this image|cannot be built"),
        (changed(("network_def", "out_channels"), 4), "network has 4 output channels, its metadata name 3"),
        (changed(("network_def", "in_channels"), 2), "needs 2 input channels"),
        (changed(("network_def", "channels"), [4, 4]), "do not fit the network"),
        (changed(("checkpointloader",), {"_target_": "CheckpointLoader", "load_path": "../../x.pt"}), "outside its own folder"),
        (changed(("checkpointloader",), {"_target_": "CheckpointLoader", "load_path": "C:\\x.pt"}), "outside its own folder"),
        (
            changed(("checkpointloader",), {"_target_": "CheckpointLoader", "load_path": "models/\0.pt"}),
            "outside its own folder",
        ),
        (changed(("checkpointloader",), {"_target_": "CheckpointLoader", "load_path": "a" * 5000}), "outside its own folder"),
        (changed(("inferer", "mode"), "evil"), "Allowed: constant, gaussian"),
        (changed(("inferer", "padding_mode"), "evil"), "Allowed: constant, reflect"),
        (changed(("inferer", "sigma_scale"), "wide"), "sigma_scale 'wide'"),
        (changed(("inferer", "sigma_scale"), 0), "sigma_scale 0"),
        (changed(("inferer", "cval"), float("nan")), "cval nan"),
        (changed(("postprocessing", "transforms"), [{"_target_": "Activationsd", "softmax": True}]), "neither AsDiscreted"),
    ],
)
def test_configurations_with_code_or_contradictions_are_refused(tmp_path, thresholds, inference, message):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    folder = write(tmp_path / "bundle", inference, metadata(["background", "Liver", "bone"]), weights)
    with pytest.raises(SynthDoseError, match=message):
        segment_with_bundle(ball(shape=(16, 16, 16)), folder, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight * float("nan"),
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.complex64),
        lambda weight: torch.zeros(1).expand(10**11),
    ],
    ids=["not a number", "sparse", "without numbers", "complex", "endless"],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, thresholds, change):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    first = next(iter(weights))
    weights[first] = change(weights[first])
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", "Liver", "bone"]), weights)
    with pytest.raises(SynthDoseError, match="no plain finite numbers"):
        segment_with_bundle(ball(shape=(16, 16, 16)), folder, device="cpu")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 300, ["liver"], None])
def test_channels_without_a_proper_name_are_refused(tmp_path, thresholds, name):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", name, "bone"]), weights)
    with pytest.raises(SynthDoseError, match="no name of an organ"):
        read_bundle(folder)


def test_pickled_objects_are_not_loaded(tmp_path):
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", "Liver", "bone"]), {"model": Payload()})
    with pytest.raises(SynthDoseError, match="pickled objects"):
        segment_with_bundle(ball(shape=(16, 16, 16)), folder, device="cpu")


def test_unreadable_bundles_say_what_is_missing(tmp_path, thresholds):
    image = ball(shape=(16, 16, 16))
    with pytest.raises(SynthDoseError, match=r"no bundle 'nonsense'.*fetch_bundle"):
        segment_with_bundle(image, "nonsense")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SynthDoseError, match=r"configs/inference\.json is missing"):
        segment_with_bundle(image, empty)
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", "Liver", "bone"]), {})
    with pytest.raises(SynthDoseError, match="no table of tensors"):
        segment_with_bundle(image, folder, device="cpu")
    folder = write(tmp_path / "swapped", THRESHOLDS, {**metadata(["background", "Liver", "bone"]), "weights_sha256": "0"}, {})
    with pytest.raises(SynthDoseError, match="SHA-256"):
        segment_with_bundle(image, folder, device="cpu")
    folder = tmp_path / "bundle"
    (folder / "models" / "model.pt").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(SynthDoseError, match="Cannot read the weights"):
        segment_with_bundle(image, folder, device="cpu")
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(SynthDoseError, match="has no weights models/model"):
        segment_with_bundle(image, folder, device="cpu")
    (folder / "configs" / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(SynthDoseError, match="has to be a JSON file"):
        segment_with_bundle(image, folder, device="cpu")


def test_links_in_a_bundle_are_refused(tmp_path, thresholds):
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", "Liver", "bone"]), {})
    secret = tmp_path / "secret.pt"
    (folder / "models" / "model.pt").replace(secret)
    try:
        (folder / "models" / "model.pt").symlink_to(secret)
    except OSError:
        pytest.skip("this computer makes no symbolic links")
    with pytest.raises(SynthDoseError, match="symbolic link"):
        read_bundle(folder)


def test_a_network_may_go_by_monais_other_name(tmp_path, thresholds):
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    other = changed(("network_def", "_target_"), "Unet")
    folder = write(tmp_path / "bundle", other, metadata(["background", "Liver", "bone"]), weights)
    image = ball(shape=(16, 16, 16))
    found, plain = (segment_with_bundle(image, bundle, device="cpu").labels for bundle in (folder, thresholds))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("target", ["HighResNet", "MedNeXt", "SegResNet", "BasicUnet"])
def test_further_networks_of_monai_are_built_and_run(tmp_path, target):
    import monai.networks.nets as nets

    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    if target == "HighResNet":
        arguments |= {"layer_params": [{"name": "conv_0", "n_features": 4, "kernel_size": 3},
                                       {"name": "res_1", "n_features": 4, "kernels": [3, 3], "repeat": 1},
                                       {"name": "conv_1", "n_features": 4, "kernel_size": 1},
                                       {"name": "conv_2", "kernel_size": 1}]}  # fmt: skip
    if target == "MedNeXt":
        arguments |= {"init_filters": 2, "blocks_down": [1, 1, 1, 1], "blocks_up": [1, 1, 1, 1]}
    torch.manual_seed(4)
    network = getattr(nets, target)(**arguments)
    inference = changed(("network_def",), {"_target_": target, **arguments})
    folder = write(tmp_path / "bundle", inference, metadata(["background", "Liver", "bone"]), network.state_dict())
    found = segment_with_bundle(ball(shape=(16, 16, 16)), folder, device="cpu")
    assert [organ.name for organ in found.organs] == ["liver", "bone"]


def test_safetensors_are_read(tmp_path, thresholds):
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    folder = write(tmp_path / "bundle", THRESHOLDS, metadata(["background", "Liver", "bone"]), {})
    (folder / "models" / "model.pt").unlink()
    save_file(weights, folder / "models" / "model.safetensors")
    assert segment_with_bundle(ball(), folder, device="cpu").voxel_counts()["bone"] > 0


def zoo(tmp_path: Path, archive: Path) -> str:
    """An index like the Model Zoo's, of one bundle."""
    sha1 = hashlib.sha1(archive.read_bytes(), usedforsecurity=False).hexdigest()
    index = {"demo_v0.1.0": {"source": archive.as_uri(), "checksum": sha1}, "other_v1.0.0": {"source": "x", "checksum": ""}}
    path = tmp_path / "model_info.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    return path.as_uri()


def test_a_model_zoo_archive_is_fetched_checked_and_runs(tmp_path, thresholds):
    archive = tmp_path / "demo_v0.1.0.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(thresholds.rglob("*")):
            content.write(path, f"demo/{path.relative_to(thresholds).as_posix()}")
    folder = fetch_bundle("demo", tmp_path / "bundles", index_url=zoo(tmp_path, archive))
    assert folder == tmp_path / "bundles" / "demo"
    assert segment_with_bundle(ball(), folder, device="cpu").voxel_counts()["liver"] > 0
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["demo"]
    with pytest.raises(SynthDoseError, match=r"no bundle 'nothing'\. It has: demo, other"):
        fetch_bundle("nothing", tmp_path / "bundles", index_url=zoo(tmp_path, archive))


@pytest.mark.parametrize("member", ["../evil.json", "/evil.json", "demo/..\\evil.json", "C:evil.json"])
def test_archives_that_lead_elsewhere_are_refused(tmp_path, member):
    archive = tmp_path / "demo.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(member, "{}")
    with pytest.raises(SynthDoseError, match="refused"):
        fetch_bundle("demo", tmp_path / "bundles", index_url=zoo(tmp_path, archive))
    assert not list((tmp_path / "bundles").iterdir())


def test_a_wrong_checksum_and_no_connection_are_reported(tmp_path, thresholds):
    archive = tmp_path / "demo.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("demo/configs/inference.json", "{}")
    url = zoo(tmp_path, archive)
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(SynthDoseError, match="SHA-1"):
        fetch_bundle("demo", tmp_path / "bundles", index_url=url)
    with pytest.raises(SynthDoseError, match="Cannot reach the MONAI Model Zoo"):
        fetch_bundle("demo", tmp_path / "bundles", index_url="https://synthdose.invalid/model_info.json")
    with pytest.raises(SynthDoseError, match="https only"):
        fetch_bundle("demo", tmp_path / "bundles", index_url="http://example.org/model_info.json")


def test_a_name_may_be_looked_for_in_the_model_zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_module, "fetch_bundle", lambda name, progress: tmp_path / name)
    assert zoo_module.obtain_bundle("spleen_ct_segmentation") == tmp_path / "spleen_ct_segmentation"
    with pytest.raises(SynthDoseError, match="There is no bundle"):
        zoo_module.obtain_bundle("../spleen_ct_segmentation")

    def offline(name, progress):
        raise SynthDoseError("Cannot reach the MONAI Model Zoo.")

    monkeypatch.setattr(zoo_module, "fetch_bundle", offline)
    with pytest.raises(SynthDoseError, match=r"no bundle 'lungz' on this computer .* Cannot reach"):
        segment_with_bundle(ball(shape=(16, 16, 16)), "lungz", download=True)


def test_importing_the_package_loads_neither_torch_nor_monai():
    import subprocess
    import sys

    code = "import sys, SynthDoseLib.segmentation; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
