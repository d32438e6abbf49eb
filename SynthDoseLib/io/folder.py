"""Output folders and tables, so that no result is overwritten by accident and none is left half-written."""

from __future__ import annotations

import csv
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core import SynthDoseError, atomic_path
from .text import harmless_cell


def prepare_output_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, needed_MB: float = 0.0, marker: str = "provenance.json"
) -> Path:
    """Make a folder for results, and check that they can be written there before hours are spent on them.

    Parameters
    ----------
    path : path-like
        Made if it does not exist, with the folders above it.
    overwrite : bool
        Whether results of an earlier run (`marker`) may be replaced; other files are never touched.
    needed_MB : float
        Free space that the results will take.
    marker : str
        File by which an earlier run is recognised.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    SynthDoseError
        If it is a file, holds earlier results, may not be written to, or has too little space.
    """
    folder = Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise SynthDoseError(f"{folder} is a file; a folder for the results is needed. Give another name.")
    if not overwrite and (folder / marker).exists():
        raise SynthDoseError(
            f"{folder} already holds the results of a run ({marker}). Give another folder, or delete it first."
        )
    probe = folder / f".{uuid.uuid4().hex[:8]}.probe"
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
        free_MB = shutil.disk_usage(folder).free / 1e6
    except OSError as error:
        _forget(probe, folder, existed)
        raise SynthDoseError(
            f"Cannot write to {folder}: {error.strerror or error}. Check the free space and the permissions."
        ) from error
    if free_MB < needed_MB:
        _forget(probe, folder, existed)
        raise SynthDoseError(
            f"{folder} has {free_MB:.0f} MB free, about {needed_MB:.0f} MB are needed. Free some space, or choose another disk."
        )
    probe.unlink(missing_ok=True)
    return folder


def _forget(probe: Path, folder: Path, existed: bool) -> None:
    """Remove what the check left, as far as that is possible where it failed."""
    with suppress(OSError):
        probe.unlink(missing_ok=True)
    if not existed:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` when the block succeeds, delete it otherwise.

    Raises
    ------
    SynthDoseError
        If `path` exists and is not an empty folder, or cannot be written.
    """
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SynthDoseError(f"{target} already exists and is not empty. Give another folder, or delete it first.")
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise SynthDoseError(
            f"Cannot write {target}: {error.strerror or error}. Check the free space and the permissions of the folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]], *, digits: int = 7
) -> None:
    """Write a plain table: one header row, one line per row, UTF-8, written to a temporary name and renamed.

    Floats are written with so many significant digits, None as an empty field; text is kept from being run as a formula.

    Raises
    ------
    SynthDoseError
        If a row has another number of fields than the header, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp()) / "organs.csv"
    >>> write_csv(table, ("organ", "dose_Gy"), [("liver", 0.1234567891)])
    >>> print(table.read_text().rstrip())
    organ,dose_Gy
    liver,0.1234568
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            if len(row) != len(header):
                raise SynthDoseError(f"{path}: a row has {len(row)} fields, the header {len(header)}: {list(row)[:4]} …")
            writer.writerow([_field(value, digits) for value in row])
        stream.flush()
        os.fsync(stream.fileno())


def _field(value: object, digits: int) -> object:
    if value is None:
        return ""
    # numpy's floats are not all Python floats
    if isinstance(value, float) or type(value).__name__ in ("float32", "float64"):
        return f"{float(value):.{digits}g}"  # type: ignore[arg-type]
    return harmless_cell(value) if isinstance(value, str) else value
