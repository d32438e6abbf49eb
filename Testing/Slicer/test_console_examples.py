"""The page on the Python console does what it says."""

from __future__ import annotations

import doctest

import pytest
from surroundings import REPOSITORY

MODULES = ("SynthDosePhantom", "SynthDoseMonteCarlo")


@pytest.mark.slow
def test_the_examples_of_the_console_page_run(host, scene, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.mrml.panel.PackageInstaller", lambda: lambda requirements: True)
    for name in MODULES:
        host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    found = doctest.testfile(str(REPOSITORY / "Docs" / "console.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 20
    assert found.failed == 0
