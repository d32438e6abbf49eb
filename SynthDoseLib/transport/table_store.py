"""Tables of the engine, kept on disk: to compute them is most of the time before the first history."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Material
from .cache import KEEP_SECONDS, engine_hash, physics_hash, user_cache_folder

FOLDER = "tables"


def table_recipe(materials: Sequence[Material], *numbers: float) -> str:
    """Everything that decides tables, as text; what the materials are called does not."""
    about = [{**asdict(m), "name": "", "mass_fractions": dict(sorted(m.mass_fractions.items()))} for m in materials]
    return json.dumps([engine_hash(), physics_hash(), about, [repr(number) for number in numbers]])


def kept_tables(recipe: str, kinds: Sequence[type[Any]], build: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return tables from the user's cache, or build and keep them.

    Parameters
    ----------
    recipe : str
        See `table_recipe`.
    kinds : sequence of NamedTuple classes
        Of the tables; their fields are arrays or numbers.
    build : callable
        Returns one table of each kind.

    Returns
    -------
    tuple
        Of the same tables, bit by bit, whether they were kept or built. A cache that cannot be read or written only costs time.
    """
    path = user_cache_folder() / FOLDER / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.npz"
    found = _read(path, recipe, kinds)
    if found is not None:
        return found
    tables = build()
    _write(path, recipe, tables)
    return tables


def _read(path: Path, recipe: str, kinds: Sequence[type[Any]]) -> tuple[Any, ...] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["recipe"]) != recipe:
                return None
            tables = tuple(
                kind(*(_value(arrays[f"{place}.{name}"]) for name in kind._fields)) for place, kind in enumerate(kinds)
            )
        os.utime(path)
        return tables
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _value(array: np.ndarray[Any, Any]) -> Any:
    return array.item() if array.ndim == 0 else array


def _write(path: Path, recipe: str, tables: tuple[Any, ...]) -> None:
    values = {f"{place}.{name}": getattr(table, name) for place, table in enumerate(tables) for name in table._fields}
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.npz")
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(temporary, recipe=np.array(recipe), **values)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in path.parent.glob("*.npz"):
            if time.time() - old.stat().st_mtime > KEEP_SECONDS:
                old.unlink(missing_ok=True)
