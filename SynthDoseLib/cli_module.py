"""Verbs of the command line as command line modules of 3D Slicer."""

from __future__ import annotations

from collections.abc import Sequence

from .cli import main


def stated(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the options that the user left empty, which Slicer passes as empty texts.

    Examples
    --------
    >>> stated(["--bundle", "", "--device", "cpu", "ct.nrrd"])
    ['--device', 'cpu', 'ct.nrrd']
    """
    kept: list[str] = []
    for argument in arguments:
        if argument:
            kept.append(argument)
        elif kept and kept[-1].startswith("--"):
            kept.pop()
    return kept


def runVerb(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb with the arguments of a Slicer module; return its exit status."""
    return main([verb, *stated(arguments)])
