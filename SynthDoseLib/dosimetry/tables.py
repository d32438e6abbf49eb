"""Reading the tables of ``Resources/dosimetry``, or a user's own in their place."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ..core import SynthDoseError, resource_path


def dosimetry_rows(
    name: str, columns: Sequence[str], path: str | os.PathLike[str] | None = None
) -> tuple[Mapping[str, str], ...]:
    """Rows of a table, one mapping of column to text per row.

    Parameters
    ----------
    name : str
        Table that ships with the library, without ``.csv``.
    columns : sequence of str
        Columns it has to have; more are kept.
    path : path-like, optional
        A file of the user with the same columns, instead of the table that ships.

    Raises
    ------
    SynthDoseError
        If the file cannot be read, or lacks a column.
    """
    if path is not None:
        return _read(str(path), tuple(columns))  # a user's file may have been edited since
    return _shipped(name, tuple(columns))


@lru_cache(maxsize=32)
def _shipped(name: str, columns: tuple[str, ...]) -> tuple[Mapping[str, str], ...]:
    return _read(str(resource_path("dosimetry", f"{name}.csv")), columns)


def _read(path: str, columns: tuple[str, ...]) -> tuple[Mapping[str, str], ...]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = tuple({key: (value or "").strip() for key, value in row.items() if key} for row in reader)
            found = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SynthDoseError(
            f"Cannot read the table {path}: {error}. A CSV file with columns {', '.join(columns)} is needed."
        ) from error
    lacking = [column for column in columns if column not in found]
    if lacking:
        raise SynthDoseError(
            f"The table {Path(path).name} lacks the column {', '.join(lacking)}. Found: {', '.join(found) or 'no header'}."
        )
    return rows


def number(row: Mapping[str, str], column: str, table: str) -> float:
    """A number of a table row; `SynthDoseError` that names row and column if it is none."""
    try:
        return float(row[column])
    except ValueError as error:
        text = ", ".join(v for v in list(row.values())[:2])
        raise SynthDoseError(f"Table {table}, row '{text}', column {column}: '{row[column]}' is not a number.") from error
