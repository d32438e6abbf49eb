"""Bundles from strangers: archives, programs in place of weights, sizes that would fill the computer."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_bundles import THRESHOLDS, ball, metadata, write, write_thresholds

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.segmentation import archive, find_bundle, look_up_bundle, read_bundle, segment_with_bundle
from SynthDoseLib.segmentation.expressions import ConfigurationReader

torch = pytest.importorskip("torch")
pytest.importorskip("monai")


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("thresholds") / "bundle")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The user's home, where archives are unpacked."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


def packed(folder: Path, path: Path, inside: str = "demo") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as content:
            for file in sorted(folder.rglob("*")):
                content.write(file, f"{inside}/{file.relative_to(folder).as_posix()}")
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as content:
            content.add(folder, inside)
    return path


@pytest.mark.parametrize("name", ["demo.zip", "demo.tar", "demo.tar.gz", "demo.TGZ"])
def test_an_archive_is_a_bundle_and_is_unpacked_once(tmp_path, thresholds, home, name):
    path = packed(thresholds, tmp_path / name)
    assert segment_with_bundle(ball(), path, device="cpu").voxel_counts()["liver"] > 0
    folder = find_bundle(path)
    assert folder.is_relative_to(home)
    marked = folder / "models" / "model.pt"
    before = marked.stat().st_mtime_ns
    assert find_bundle(str(path)) == folder
    assert marked.stat().st_mtime_ns == before
    assert len(list(folder.parent.parent.iterdir())) == 1


def test_an_archive_of_two_bundles_and_impossible_names_are_refused(tmp_path, thresholds):
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as content:
        for root in ("first", "second"):
            for file in sorted(thresholds.rglob("*")):
                content.write(file, f"{root}/{file.relative_to(thresholds).as_posix()}")
    with pytest.raises(SynthDoseError, match=r"several bundles \(first, second\)"):
        find_bundle(path)
    for name in ("", "a" * 5000, "a\0b", "../" * 3000 + "x"):
        with pytest.raises(SynthDoseError, match="There is no bundle"):
            find_bundle(name)


def evil_tar(path: Path, change) -> Path:
    with tarfile.open(path, "w:gz") as content:
        item = tarfile.TarInfo("demo/configs/inference.json")
        data = b"{}"
        item.size = len(data)
        data = change(item) or data
        item.size = len(data) if item.isreg() else 0
        content.addfile(item, io.BytesIO(data))
    return path


def renamed(name):
    def change(item):
        item.name = name

    return change


def linked(kind, target):
    def change(item):
        item.type, item.linkname = kind, target

    return change


@pytest.mark.parametrize(
    "change",
    [
        renamed("../evil"),
        renamed("/etc/evil"),
        renamed("a/../../evil"),
        renamed("C:\\evil"),
        renamed("demo/x:stream"),
        linked(tarfile.SYMTYPE, "/etc/passwd"),
        linked(tarfile.LNKTYPE, "/etc/passwd"),
        linked(tarfile.CHRTYPE, ""),
        linked(tarfile.FIFOTYPE, ""),
    ],
)
def test_tar_members_that_lead_elsewhere_or_are_no_files_are_refused(tmp_path, home, change):
    with pytest.raises(SynthDoseError, match="refused"):
        find_bundle(evil_tar(tmp_path / "demo.tar.gz", change))
    assert not [path for path in home.rglob("*") if path.is_file()]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, home, monkeypatch, kind):
    monkeypatch.setattr(archive, "SMALL_BYTES", 1 << 20)
    path = tmp_path / f"bomb.{kind}"
    zeros = bytes(30 << 20)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("demo/configs/inference.json", zeros)
    else:
        evil_tar(path, lambda item: zeros)
    assert path.stat().st_size < 50_000
    with pytest.raises(SynthDoseError, match="more files or bytes than a bundle has"):
        find_bundle(path)
    assert not [file for file in home.rglob("*") if file.is_file()]


def test_many_members_names_given_twice_and_damage_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as content:
        for number in range(11):
            content.writestr(f"{number}", "")
    with pytest.raises(SynthDoseError, match="more files"):
        find_bundle(path)
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("demo/A", "")
        content.writestr("demo/a", "")
    with pytest.raises(SynthDoseError, match="twice"):
        find_bundle(path)
    for name, data in (("cut.zip", b"PK\x03\x04cut"), ("cut.tar.gz", b"\x1f\x8b\x08cut"), ("empty.tar", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SynthDoseError, match=r"cannot be unpacked|no configs"):
            find_bundle(tmp_path / name)


def script_bundle(folder: Path) -> Path:
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), 8 * x, 24 * x - 8], dim=1)

    write(folder, THRESHOLDS, metadata(["background", "Liver", "bone"]), {})
    (folder / "models" / "model.pt").unlink()
    torch.jit.script(Halves()).save(str(folder / "models" / "model.ts"))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_runs_only_if_the_user_trusts_it(tmp_path, thresholds):
    folder = script_bundle(tmp_path / "script")
    with pytest.raises(SynthDoseError, match=r"TorchScript.*--trust-bundle"):
        segment_with_bundle(ball(), folder, device="cpu")
    trusted = segment_with_bundle(ball(), folder, device="cpu", trusted=True)
    np.testing.assert_array_equal(trusted.labels, segment_with_bundle(ball(), thresholds, device="cpu").labels)
    assert any("taken as trusted" in note for note in trusted.notes)
    meta = metadata(["background", "Liver", "bone", "heart"])
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(SynthDoseError, match="3 output channels, its metadata name 4"):
        segment_with_bundle(ball(), folder, device="cpu", trusted=True)


class Wrapper:
    """A checkpoint with an object in it, as some training scripts save."""

    def __init__(self, epoch):
        self.epoch = epoch


def test_a_pickled_checkpoint_is_read_only_if_the_user_trusts_it(tmp_path, thresholds):
    state = torch.load(thresholds / "models" / "model.pt", weights_only=True)
    content = {"model": state, "trainer": Wrapper(3)}
    folder = write(tmp_path / "pickled", THRESHOLDS, metadata(["background", "Liver", "bone"]), content)
    with pytest.raises(SynthDoseError, match=r"pickled objects.*--trust-bundle"):
        segment_with_bundle(ball(), folder, device="cpu")
    assert segment_with_bundle(ball(), folder, device="cpu", trusted=True).voxel_counts()["liver"] > 0


def test_weights_that_unpack_to_more_than_the_memory_are_refused(tmp_path, thresholds):
    folder = write(tmp_path / "bomb", THRESHOLDS, metadata(["background", "Liver", "bone"]), {})
    with zipfile.ZipFile(folder / "models" / "model.pt", "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("archive/data/0", bytes(60 << 20))
    with pytest.raises(SynthDoseError, match=r"take 0\.063 GB"):
        segment_with_bundle(ball(), folder, device="cpu", max_memory_bytes=50_000_000)


def test_references_that_double_again_and_again_are_refused_at_once():
    configuration = {f"x{n}": [f"@x{n + 1}"] * 10 for n in range(12)} | {"x12": "deep"}
    for text in ("@x0", "$str(@x0)", "$[@x1] + [@x1]", "$@x0 == @x0"):
        start = time.perf_counter()
        with pytest.raises(SynthDoseError, match=r"too many values|more than 20000 values"):
            ConfigurationReader({**configuration, "y": text}).get("y")
        assert time.perf_counter() - start < 2


def test_the_model_zoo_is_asked_for_size_licence_and_checksum_before_the_download(tmp_path, thresholds):
    path = packed(thresholds, tmp_path / "demo_v0.1.0.zip")
    index = {"demo_v0.1.0": {"source": path.as_uri(), "checksum": "ab" * 20}}
    (tmp_path / "model_info.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "LICENSE").write_text("\n   Apache License\n Version 2.0\n", encoding="utf-8")
    offer = look_up_bundle("demo", index_url=(tmp_path / "model_info.json").as_uri())
    assert (offer.version, offer.licence, offer.size_bytes) == ("0.1.0", "Apache License", path.stat().st_size)
    assert "ab" * 20 in str(offer)
    (tmp_path / "demo" / "LICENSE").unlink()
    assert "licence: not stated" in str(look_up_bundle("demo", index_url=(tmp_path / "model_info.json").as_uri()))


def test_the_name_of_an_archive_is_no_way_round_the_checks(tmp_path):
    (tmp_path / "notes.txt").write_text("no bundle")
    with pytest.raises(SynthDoseError, match=r"is a file\. A bundle is a folder or archive"):
        read_bundle(tmp_path / "notes.txt")
