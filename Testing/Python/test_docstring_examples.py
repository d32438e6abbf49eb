"""The examples of the docstrings and of Docs/python.md do what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "SynthDoseLib"
HEAVY = ("mrml", "transport/cuda_", "segmentation/training.py")  # need Slicer, a GPU, or torch


def _with_examples() -> list[str]:
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        name = path.relative_to(LIBRARY).as_posix()
        if not name.startswith(HEAVY) and ">>> " in path.read_text(encoding="utf-8"):
            found.append(".".join(("SynthDoseLib", *path.relative_to(LIBRARY).with_suffix("").parts)))
    return found


@pytest.mark.parametrize("module", _with_examples())
def test_the_examples_of_a_module_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_page_on_python_holds():
    page = Path(__file__).parents[2] / "Docs" / "python.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 30
    assert result.failed == 0
