"""Finding what ships with the library, and writing results so that a killed run leaves no half file."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import SynthDoseError

_LIBRARY = Path(__file__).resolve().parents[1]


def resource_path(*parts: str) -> Path:
    """Path of a file or folder in ``Resources/``, from a checkout, a wheel or a Slicer extension alike.

    Raises
    ------
    SynthDoseError
        If the installation lacks it.
    """
    for root in (_LIBRARY / "Resources", _LIBRARY.parent / "Resources"):
        candidate = root.joinpath(*parts)
        if candidate.exists():
            return candidate
    raise SynthDoseError(
        f"The installation of SynthDose is incomplete: Resources/{'/'.join(parts)} is missing. Install it again."
    )


def user_path(*parts: str) -> Path:
    """Return where something is kept for the user between runs, in ``.synthdose`` in the home folder; it need not exist."""
    return Path.home().joinpath(".synthdose", *parts)


def bare_name(source: str | os.PathLike[str]) -> str:
    """Name of a file or folder of any system without the way there, which is nobody's business in what is passed on.

    Examples
    --------
    >>> bare_name("/home/me/patients/lu177/"), bare_name("C:\\\\bundles\\\\torso"), bare_name("synthetic:64:7")
    ('lu177', 'torso', 'synthetic:64:7')
    """
    return os.fspath(source).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` with the same suffixes; rename it to `path` when the block succeeds.

    Parameters
    ----------
    path : path-like
        Final name; its folder has to exist.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "dose.csv"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("organ,dose_Gy")
    >>> target.read_text()
    'organ,dose_Gy'
    """
    target = Path(path)
    # the suffix stays last, because image writers choose the format by it
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        reason = error.strerror or str(error)
        raise SynthDoseError(
            f"Cannot write {target}: {reason}. Check the free space and the permissions of the folder."
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def copy_with_sha256(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Copy a file atomically, and return the SHA-256 of what was copied, in hexadecimal; the source is read once."""
    digest = hashlib.sha256()
    with atomic_path(target) as temporary, open(source, "rb") as reader, open(temporary, "wb") as writer:
        while block := reader.read(1 << 20):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
