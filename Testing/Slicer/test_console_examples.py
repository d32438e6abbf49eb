"""The page on the Python console does what it says."""

from __future__ import annotations

import doctest
import importlib.util

import pytest
from surroundings import REPOSITORY

MODULES = ("SynthDoseSegmentation", "SynthDosePhantom", "SynthDoseMonteCarlo", "SynthDoseRadiomics")


@pytest.mark.slow
def test_the_examples_of_the_console_page_run(host, scene, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.mrml.panel.PackageInstaller", lambda: lambda requirements: True)
    for name in MODULES:
        host.loadModule(REPOSITORY / "SynthDose" / f"{name}.py")
    page = (REPOSITORY / "Docs" / "console.md").read_text(encoding="utf-8")
    if importlib.util.find_spec("radiomics") is None:
        page = page.partition("## Radiomics")[0]
    examples = doctest.DocTestParser().get_doctest(page, {}, "console.md", "console.md", 0)
    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert found.attempted > 40
    assert found.failed == 0
