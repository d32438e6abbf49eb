#!/usr/bin/env python-real
"""``synthdose simulate`` as a command line module of Slicer: the same arguments, the same files."""

from __future__ import annotations

import pathlib
import sys

_HERE = pathlib.Path(__file__).resolve().parent
# installed, built with a folder per configuration, or in a checkout
for _folder in (*(parent / "qt-scripted-modules" for parent in _HERE.parents[:2]), _HERE.parents[1]):
    if (_folder / "SynthDoseLib").is_dir() and str(_folder) not in sys.path:
        sys.path.append(str(_folder))

from SynthDoseLib.cli_module import runVerb  # noqa: E402

if __name__ == "__main__":
    sys.exit(runVerb("simulate", sys.argv[1:]))
