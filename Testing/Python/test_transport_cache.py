"""What the engine keeps between runs: compiled kernels and tables, wherever the user may write, never in the installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import SynthDoseLib
from SynthDoseLib.core import Material
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import cache
from SynthDoseLib.transport.alphas import AlphaTables, build_alpha_tables
from SynthDoseLib.transport.table_store import kept_tables, table_recipe
from SynthDoseLib.transport.tables import PhotonTables, build_photon_tables

LIBRARY = Path(SynthDoseLib.__file__).parent
# one small kernel stands for all: they are compiled and kept by the same machinery
USE_A_KERNEL = """
import numpy as np
from SynthDoseLib.transport import sampling
keep, alias = sampling.build_alias(np.array([1.0, 2.0, 5.0]))
print(keep.tolist(), alias.tolist(), sum(sampling._build_alias.stats.cache_hits.values()))
"""


def environment(home: Path, library: Path = LIBRARY) -> dict[str, str]:
    """Of a process whose user folder is `home`."""
    names = ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE")
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", *names)}
    own = dict.fromkeys(names, str(home))
    return {**kept, **own, "PYTHONPATH": str(library.parent), "PYTHONDONTWRITEBYTECODE": "1"}


def start(home: Path, library: Path = LIBRARY) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", USE_A_KERNEL]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(home, library), stdout=pipe, stderr=pipe, text=True, cwd=library.parent)


def files_below(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def installation(tmp_path) -> Path:
    """A copy of the library that nobody may write to."""
    copy = tmp_path / "installed" / "SynthDoseLib"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__", "Resources"))
    resources = LIBRARY.parent / "Resources"
    resources = resources if resources.is_dir() else LIBRARY / "Resources"
    shutil.copytree(resources, copy.parent / "Resources", ignore=shutil.ignore_patterns("segmentation"))
    for path in [copy.parent, *copy.parent.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield copy
    for path in [copy.parent, *copy.parent.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_installation_keeps_its_kernels_with_the_user(installation, tmp_path):
    before = files_below(installation.parent)
    home = tmp_path / "home"
    results = [start(home, installation).communicate() for _ in range(2)]
    first, second = (out.split() for out, _ in results)
    assert first, results[0][1]
    assert first[:-1] == second[:-1]
    assert (first[-1], second[-1]) == ("0", "1")  # compiled, then loaded
    assert files_below(installation.parent) == before
    assert any(cache.PREFIX in part for file in files_below(home) for part in file.parts)


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path):
    home = tmp_path / "home"
    home.write_text("not a folder")
    out, errors = start(home).communicate()
    assert out.startswith("[0.375, 0.75, 1.0]"), errors
    assert home.read_text() == "not a folder"


def test_processes_that_compile_at_the_same_time_do_not_disturb_each_other(tmp_path):
    both = [start(tmp_path / "home") for _ in range(2)]
    outputs = [process.communicate() for process in both]
    for process, (out, errors) in zip(both, outputs, strict=True):
        assert process.returncode == 0, errors
        assert out.startswith("[0.375, 0.75, 1.0]")
    assert start(tmp_path / "home").communicate()[0].split()[-1] == "1"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner number on this system")
def test_kernels_of_another_user_are_not_run(tmp_path, monkeypatch):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = cache.prepare_kernel_cache()
    assert shared.parent == tmp_path
    assert shared.stat().st_mode & 0o077 == 0
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert cache.prepare_kernel_cache() != shared


def test_kept_tables_are_those_that_were_built(tmp_path, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.transport.table_store.user_cache_folder", lambda: tmp_path)
    water, kinds = get_material("water"), (PhotonTables, AlphaTables)
    builds = []

    def build():
        builds.append(1)
        return build_photon_tables([water], 1.0), build_alpha_tables([water], True)

    recipe = table_recipe([water], 1.0, True)
    built, kept = (kept_tables(recipe, kinds, build) for _ in range(2))
    assert len(builds) == 1
    for one, two in zip(built, kept, strict=True):
        assert type(one) is type(two)
        for name in one._fields:
            first, second = getattr(one, name), getattr(two, name)
            assert type(first) is type(second)
            assert np.array_equal(first, second)
    for other in (Material("water", 1.1, water.mass_fractions), Material("water", 1.0, {"H": 0.12, "O": 0.88})):
        assert table_recipe([other], 1.0, True) != recipe
    assert table_recipe([Material("H2O", water.density_g_cm3, water.mass_fractions)], 1.0, True) == recipe
    (file,) = (tmp_path / "tables").iterdir()
    file.write_bytes(file.read_bytes()[:500])
    kept_tables(recipe, kinds, build)
    assert len(builds) == 2
    monkeypatch.setattr("SynthDoseLib.transport.table_store.user_cache_folder", lambda: file)  # a file, not a folder
    kept_tables(recipe, kinds, build)
    assert len(builds) == 3
