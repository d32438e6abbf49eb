"""Hashes of what a stage of a run reads: values, arrays, the files that a plan names, and the program itself."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import computer, resource_path, versions

WHERE_READ = "source_files"
"""Field of an image that says where it was read from, which decides nothing."""


class Fingerprints:
    """Hashes of values by what is in them; an array that cannot change is read once.

    Data classes, mappings (in their order, which decides that of rows), sequences, arrays, plain values and times count. A
    `Path`, and a text that is one (of a CSV file, or with a separator), count by name and contents: moved files are the same.

    Examples
    --------
    >>> known = Fingerprints()
    >>> known.of(("liver", 1.0)) == known.of(("liver", 1.0)), known.of("1") == known.of(1)
    (True, False)
    """

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[NDArray[Any], bytes]] = {}

    def of(self, value: Any) -> str:
        """SHA-256 of a value, in hexadecimal.

        Raises
        ------
        TypeError
            For a value that is none of those above.
        """
        digest = hashlib.sha256()
        self._add(digest, value)
        return digest.hexdigest()

    def _add(self, digest: Any, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        digest.update(f"<{type(value).__name__}".encode())
        if value is None or isinstance(value, bool | int | float | date):
            digest.update(repr(value).encode())
        elif isinstance(value, str):
            digest.update(value.encode())
            if _names_a_file(value):
                _add_files(digest, Path(value))
        elif isinstance(value, Path):
            digest.update(value.name.encode())
            _add_files(digest, value)
        elif isinstance(value, np.ndarray):
            digest.update(self._of_array(value))
        elif isinstance(value, Mapping):
            self._add_all(digest, [item for pair in value.items() for item in pair])
        elif isinstance(value, tuple | list):
            self._add_all(digest, value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            digest.update(type(value).__qualname__.encode())
            self._add_all(digest, [getattr(value, f.name) for f in dataclasses.fields(value) if f.name != WHERE_READ])
        else:
            raise TypeError(f"A {type(value).__name__} has no fingerprint.")
        digest.update(b">")

    def _add_all(self, digest: Any, values: Any) -> None:
        digest.update(str(len(values)).encode())
        for value in values:
            self._add(digest, value)

    def _of_array(self, array: NDArray[Any]) -> bytes:
        known = self._arrays.get(id(array))
        if known is not None:
            return known[1]
        if array.dtype.hasobject:
            raise TypeError("An array of objects has no fingerprint.")
        digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
        if not array.flags.writeable:
            self._arrays[id(array)] = (array, digest.digest())  # the array is kept, so that its id is not given away again
        return digest.digest()


def _names_a_file(text: str) -> bool:
    # not Path.is_file, which raises for sentences that no system takes for a name
    return (text.endswith(".csv") or "/" in text or os.sep in text) and os.path.isfile(text)


def _add_files(digest: Any, path: Path) -> None:
    """Add the contents of a file, or names and contents of all files of a folder; a path that leads nowhere adds nothing."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path] if path.is_file() else []
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())


@functools.cache
def program_fingerprint() -> str:
    """Hash of SynthDose's sources and data, of the packages it calculates with, and of the kind of computer."""
    digest = hashlib.sha256(repr((sorted(versions().items()), sorted(computer().items()))).encode())
    library = Path(__file__).resolve().parents[1]
    for root, pattern in ((library, "*.py"), (resource_path(), "*")):
        for path in sorted(root.rglob(pattern)):
            if path.is_file():
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
