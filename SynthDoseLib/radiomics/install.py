"""Builds pyradiomics, which comes as source only: `python -m SynthDoseLib.radiomics.install`, with options of pip if need be.

The setup script of pyradiomics 3.0.1 uses two names of `configparser` that Python 3.12 no longer has (AIM-Harvard/pyradiomics,
issue 900); they are given back to it while it is built.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REQUIREMENT = "pyradiomics==3.0.1"
NEEDED_TO_BUILD = ("numpy", "setuptools", "wheel", "versioneer", "cython")
INSTALL = "python -m SynthDoseLib.radiomics.install (needs a C compiler and the headers of Python)"

OLD_NAMES = '''\
"""Gives configparser the names that Python 3.12 took away, then runs the sitecustomize that this one hides."""

import configparser
import os
import sys

if not hasattr(configparser, "SafeConfigParser"):

    class SafeConfigParser(configparser.ConfigParser):
        readfp = configparser.ConfigParser.read_file

    configparser.SafeConfigParser = SafeConfigParser

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ImportError:
    sys.modules["sitecustomize"] = ours
'''


def install_pyradiomics(options: Sequence[str] = (), python: str = sys.executable, requirement: str = REQUIREMENT) -> None:
    """Install what pyradiomics is built with, then build and install it.

    Parameters
    ----------
    options : sequence of str
        Of ``pip install``, such as ``--constraint FILE`` or ``--find-links FOLDER``.
    python : str
        Interpreter whose packages it goes to.
    requirement : str
        Version, or the path of its source.

    Raises
    ------
    subprocess.CalledProcessError
        If pip could not do it; it has said why.
    """
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", *options]
    subprocess.run([*pip, *NEEDED_TO_BUILD], check=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(OLD_NAMES, encoding="utf-8")
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        subprocess.run([*pip, "--no-build-isolation", requirement], check=True, env=environment)


def main() -> int:
    """Install with the options of the command line."""
    try:
        install_pyradiomics(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            "pyradiomics could not be built. It needs a C compiler and the headers of Python (Debian, Ubuntu: sudo apt-get "
            "install build-essential python3-dev). Everything but radiomics works without it.\n"
        )
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
