"""pyradiomics is built where Python no longer has what its setup script uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from SynthDoseLib.radiomics.install import OLD_NAMES, install_pyradiomics

SETUP = """
import configparser
parser = configparser.SafeConfigParser()
with open("setup.cfg") as file:
    parser.readfp(file)
from setuptools import setup
setup(name="builds_as_pyradiomics_does", version=parser.get("metadata", "version"), py_modules=[])
"""


def test_a_setup_script_of_the_old_names_is_built(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text(SETUP, encoding="utf-8")
    (source / "setup.cfg").write_text("[metadata]\nversion = 7.1\n", encoding="utf-8")
    options = ["--quiet", "--no-index", "--no-deps", "--target", str(tmp_path / "packages")]
    asked = []

    def without_index(command, **keywords):  # what it is built with is installed where the tests run
        asked.append(command)
        if str(source) in command:
            run(command, **keywords)

    run = subprocess.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", without_index)
        install_pyradiomics(options, requirement=str(source))
    assert len(asked) == 2
    assert {"numpy", "setuptools", "wheel", "versioneer", "cython"} <= set(asked[0])
    assert list((tmp_path / "packages").glob("builds_as_pyradiomics_does-7.1*"))


@pytest.mark.parametrize("hidden", [True, False])
def test_the_old_names_are_there_and_a_hidden_sitecustomize_runs(tmp_path, hidden):
    without = "import configparser\nif hasattr(configparser, 'SafeConfigParser'): del configparser.SafeConfigParser\n"
    for name, text in (("ours", without + OLD_NAMES), ("theirs", "import os; os.environ['THEIRS'] = 'ran'")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text, encoding="utf-8")
    read = "import configparser, io, json, os, sys; p = configparser.SafeConfigParser(); p.readfp(io.StringIO('[a]\\nb = 1'))"
    tell = "print(json.dumps([p.get('a', 'b'), os.environ.get('THEIRS'), sys.path]))"
    paths = [str(tmp_path / "ours"), *([str(tmp_path / "theirs")] if hidden else [])]
    done = subprocess.run(
        [sys.executable, "-c", f"{read}; {tell}"], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    value, theirs, path = json.loads(done.stdout)
    assert (value, theirs) == ("1", "ran" if hidden else None)
    assert "sitecustomize" not in done.stderr
    assert str(tmp_path / "ours") not in [str(Path(folder)) for folder in path]
