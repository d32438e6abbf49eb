"""Phase-space files: particles that another Monte Carlo program recorded, from IAEA, TOPAS or CSV files."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from ..core import PARTICLES, ParticleList, SynthDoseError
from .phase_space_iaea import read_iaea
from .phase_space_records import require_memory
from .phase_space_topas import read_topas

HEADER_SUFFIXES = (".header", ".IAEAheader")
DATA_SUFFIXES = (".phsp", ".IAEAphsp")
CSV_COLUMNS = ("particle", "energy_MeV", "x_mm", "y_mm", "z_mm", "u", "v", "w")
CSV_OPTIONAL = ("weight", "history")
_HEADER_BYTES = 1 << 20


def read_phase_space(path: str | os.PathLike[str], *, original_histories: float | None = None) -> ParticleList:
    """Read the photons, electrons and positrons of a phase-space file; others are left out, with a note that counts them.

    Parameters
    ----------
    path : path-like
        Either file of an IAEA pair (``.phsp`` or ``.IAEAphsp`` with ``.header`` or ``.IAEAheader``; IAEA report INDC(NDS)-0484)
        or of a TOPAS pair (``.phsp`` with ``.header``, ASCII or binary), or a CSV file with the columns particle, energy_MeV,
        x_mm, y_mm, z_mm, u, v, w and, if need be, weight and history (equal numbers in following rows: one history).
    original_histories : float, optional
        In place of what the header says: for a file that holds a part of what its header speaks of. A CSV file without it
        has as many original histories as histories in it.

    Returns
    -------
    ParticleList
        In the frame of the file, mm.

    Raises
    ------
    SynthDoseError
        If a file is missing, truncated or of another format, does not fit its header, or does not fit into memory.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path, original_histories)
    header, data = _pair(path)
    text = read_header(header)
    if "$RECORD_CONTENTS" in text.upper():
        return read_iaea(text, data, original_histories)
    if text.lstrip().startswith("TOPAS"):
        return read_topas(text, data, original_histories)
    raise SynthDoseError(
        f"{header} is the header of no phase space that is known: neither IAEA ($RECORD_CONTENTS) nor TOPAS (its first line)."
    )


def _pair(path: Path) -> tuple[Path, Path]:
    """Header and data file of a pair of which one is given."""
    lower = path.suffix.lower()
    for own, others in ((HEADER_SUFFIXES, DATA_SUFFIXES), (DATA_SUFFIXES, HEADER_SUFFIXES)):
        if lower not in [suffix.lower() for suffix in own]:
            continue
        if not path.is_file():
            raise SynthDoseError(f"There is no phase-space file {path}.")
        wanted = {(path.stem + suffix).lower() for suffix in others}
        found = sorted(file for file in path.parent.iterdir() if file.name.lower() in wanted)
        if not found:
            raise SynthDoseError(f"The phase space {path} lacks its other file, {path.stem}{' or '.join(others)}.")
        return (path, found[0]) if own is HEADER_SUFFIXES else (found[0], path)
    raise SynthDoseError(
        f"'{path.name}' is no phase-space file that is known. Allowed: {', '.join((*DATA_SUFFIXES, *HEADER_SUFFIXES))} or .csv."
    )


def read_header(path: Path) -> str:
    """Text of a header; a file too large to be one is refused."""
    try:
        if path.stat().st_size > _HEADER_BYTES:
            raise SynthDoseError(f"{path} has {path.stat().st_size} bytes: that is no header of a phase space.")
        return path.read_text(encoding="latin-1")
    except OSError as error:
        raise SynthDoseError(f"Cannot read the phase-space header {path}: {error.strerror}.") from error


def _read_csv(path: Path, original_histories: float | None) -> ParticleList:
    try:
        require_memory(path, path.stat().st_size // 20)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            header = [name.strip() for name in next(rows, [])]
            unknown = [name for name in header if name not in CSV_COLUMNS + CSV_OPTIONAL]
            missing = [name for name in CSV_COLUMNS if name not in header]
            if unknown or missing or len(set(header)) != len(header):
                raise SynthDoseError(
                    f"The particle list {path} needs a header row with the columns {', '.join(CSV_COLUMNS)} and perhaps "
                    f"{', '.join(CSV_OPTIONAL)}; found {', '.join(header) or 'nothing'}."
                )
            kind_at = header.index("particle")
            kinds: list[int] = []
            numbers: list[list[float]] = []
            for line, row in enumerate(rows, start=2):
                if not row:
                    continue
                kinds.append(_csv_kind(row, kind_at, len(header), path, line))
                numbers.append(_csv_numbers(row, kind_at, path, line))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SynthDoseError(f"Cannot read the particle list {path}: {error}.") from error
    if not kinds:
        raise SynthDoseError(f"The particle list {path} holds no particle.")
    table = np.array(numbers)
    names = [name for name in header if name != "particle"]
    column = {name: table[:, n] for n, name in enumerate(names)}
    first = np.ones(len(kinds), np.bool_)
    if "history" in column:
        first[1:] = np.diff(column["history"]) != 0
    return ParticleList(
        np.stack([column["x_mm"], column["y_mm"], column["z_mm"]], axis=-1),
        np.stack([column["u"], column["v"], column["w"]], axis=-1),
        column["energy_MeV"],
        np.array(kinds, np.uint8),
        column.get("weight", np.ones(len(kinds))),
        first,
        float(np.count_nonzero(first)) if original_histories is None else original_histories,
    )


def _csv_kind(row: list[str], kind_at: int, columns: int, path: Path, line: int) -> int:
    if len(row) != columns:
        raise SynthDoseError(f"Line {line} of {path} has {len(row)} cells; its header has {columns}.")
    name = row[kind_at].strip()
    if name not in PARTICLES[:3]:
        raise SynthDoseError(f"Line {line} of {path}: the particle is '{name}'. Allowed: {', '.join(PARTICLES[:3])}.")
    return PARTICLES.index(name)


def _csv_numbers(row: list[str], kind_at: int, path: Path, line: int) -> list[float]:
    try:
        return [float(cell) for n, cell in enumerate(row) if n != kind_at]
    except ValueError as error:
        raise SynthDoseError(f"Line {line} of {path} holds something that is not a number: {error}.") from error
