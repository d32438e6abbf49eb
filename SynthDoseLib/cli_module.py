"""Verbs of the command line as command line modules of 3D Slicer."""

from __future__ import annotations

from collections.abc import Sequence

from .cli import main

LISTS = ("--ensemble", "--export", "--organs")
"""Options of several words, which Slicer passes as one with commas."""


def stated(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the options that the user left empty, which Slicer passes as empty texts; lists come last.

    Examples
    --------
    >>> stated(["--bundle", "", "--device", "cpu", "ct.nrrd"])
    ['--device', 'cpu', 'ct.nrrd']
    >>> stated(["--organs", "liver, spleen", "ct.nrrd"])
    ['ct.nrrd', '--organs', 'liver', 'spleen']
    """
    kept: list[str] = []
    lists: list[str] = []
    for argument in arguments:
        if kept and kept[-1] in LISTS:
            words = [word.strip() for word in argument.split(",") if word.strip()]
            option = kept.pop()
            lists += [option, *words] if words else []
        elif argument:
            kept.append(argument)
        elif kept and kept[-1].startswith("--"):
            kept.pop()
    return [*kept, *lists]


def runVerb(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb with the arguments of a Slicer module, with progress as Slicer reads it; return its exit status."""
    return main([verb, "--progress", "slicer", *stated(arguments)])
