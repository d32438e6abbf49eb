"""Reading the tables that ship in ``Resources/physics``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from SynthDoseLib.core import SynthDoseError, resource_path, sha256_of


@cache
def load_table(name: str) -> Mapping[str, NDArray[Any]]:
    """Read ``Resources/physics/name.npz`` once; the arrays are read-only.

    Raises
    ------
    SynthDoseError
        If the file is not the one that its sidecar describes (checked by SHA-256).
    """
    path = _checked_path(f"{name}.npz")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for array in arrays.values():
        array.setflags(write=False)
    return MappingProxyType(arrays)


@cache
def load_rows(file_name: str) -> tuple[Mapping[str, str], ...]:
    """Read a CSV table of ``Resources/physics`` once, one mapping of column to text per row."""
    with open(_checked_path(file_name), encoding="utf-8", newline="") as stream:
        return tuple(MappingProxyType(row) for row in csv.DictReader(stream))


@cache
def about_table(name: str) -> Mapping[str, Any]:
    """What the sidecar says about the table `name`: source, edition, licence, changes, checks."""
    content: dict[str, Any] = json.loads(resource_path("physics", f"{name}.json").read_text(encoding="utf-8"))
    return MappingProxyType(content)


def _checked_path(file_name: str) -> Any:
    path = resource_path("physics", file_name)
    if sha256_of(path) != about_table(path.stem)["sha256"]:
        raise SynthDoseError(
            f"The physics table {file_name} differs from the one its sidecar describes (SHA-256). Install SynthDose again."
        )
    return path


def checked_energies(energies_MeV: ArrayLike, lowest: float, highest: float, what: str) -> NDArray[np.float64]:
    """Return the energies as an array; refuse those outside the table, because nothing is extrapolated."""
    energies = np.asarray(energies_MeV, dtype=np.float64)
    # energies such as 20.000000000000004 come out of geometric grids
    good = (energies >= lowest * (1 - 1e-9)) & (energies <= highest * (1 + 1e-9))
    if not good.all():
        bad = np.atleast_1d(energies)[~np.atleast_1d(good)][0]
        raise SynthDoseError(f"{what} are tabulated from {lowest:g} to {highest:g} MeV; found {bad:g} MeV.")
    return np.clip(energies, lowest, highest)
