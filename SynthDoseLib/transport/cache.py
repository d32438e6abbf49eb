"""Where compiled kernels are kept between runs.

numba decides from a kernel's own file whether its cached code is fresh, and so loads stale code when only a function of another
file changed. The folder's name therefore carries a hash of all sources of the engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..core import resource_path

KEEP_SECONDS = 30 * 86400
PREFIX = "SynthDose-kernels-"


def user_cache_folder() -> Path:
    """Folder of the operating system for files that can be made again, with our own name at the end."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "SynthDose"


@cache
def engine_hash() -> str:
    """Sixteen hexadecimal digits that change with any source file of the engine."""
    return _hash_of(Path(__file__).parent.glob("*.py"))


@cache
def physics_hash() -> str:
    """The same for the modules and the tables that the engine draws its physics from."""
    code = (Path(__file__).resolve().parents[1] / "physics").glob("*.py")
    return _hash_of([*code, *resource_path("physics").glob("*.npz")])


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old_kernels(current: Path) -> None:
    """Remove kernels of other versions of the engine that nobody used for a month."""
    with contextlib.suppress(OSError):
        os.utime(current)
        for folder in current.parent.glob(f"{PREFIX}*"):
            if folder != current and time.time() - folder.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _usable(folder: Path) -> bool:
    """Make a folder that nobody else can write to, if need be, and say whether files can be written to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        # numba runs what it finds there: a folder for temporary files is open to everybody
        return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def prepare_kernel_cache() -> Path:
    """Tell numba where to keep the engine's compiled kernels; a NUMBA_CACHE_DIR of the user is respected.

    To be called before the first kernel is defined. Where the user's cache folder cannot be written, the folder for temporary
    files is used, and there one of this process alone if the name is taken by somebody else.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    # a parent process may have left the folder of an engine that has changed since
    if not chosen or Path(chosen).name.startswith(PREFIX):
        name = f"{PREFIX}{engine_hash()}"
        places = [user_cache_folder() / name, Path(tempfile.gettempdir()) / name]
        folder = next((place for place in places if _usable(place)), None)
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        elif folder == places[0]:
            _forget_old_kernels(folder)
        chosen = os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        # numba reads the environment once, when it is imported
        sys.modules["numba"].config.CACHE_DIR = chosen
    return Path(chosen)
