"""TOPAS phase spaces, ASCII and binary, by the columns that their header lists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import PARTICLES, ParticleList, SynthDoseError
from .phase_space_records import count_notes, firsts_of_kept, read_records, require_memory, select_known

_COLUMNS = {
    "x": "position x", "y": "position y", "z": "position z", "u": "direction cosine x", "v": "direction cosine y",
    "energy": "energy", "weight": "weight", "kind": "particle type", "w_negative": "third direction cosine is negative",
    "first": "first scored particle from this history",
}  # fmt: skip
_UNITS = {"x": ("cm", {"cm": 10.0, "mm": 1.0, "m": 1000.0}), "energy": ("MeV", {"MeV": 1.0, "keV": 1e-3, "GeV": 1e3})}
_BYTES_OF_OLD = {1: "i1", 4: "<f4", 8: "<f8"}
_DIRECTION_SLACK = 1e-3
_PDG_CODES = {22: "photon", 11: "electron", -11: "positron", 2212: "proton", 2112: "neutron"}
_EMPTY_HISTORIES = 0  # as a particle type: stands for histories that reached nothing


def read_topas(header: str, data: Path, original_histories: float | None) -> ParticleList:
    """Read a phase space from the text of its header and its data file; see `read_phase_space`."""
    binary = "binary" in header.lstrip().splitlines()[0].lower()
    described = _described(header, data)
    particles = _number(header, "Number of Scored Particles")
    original = _number(header, "Number of Original Histories") if original_histories is None else original_histories
    if original is None:
        raise SynthDoseError(f"The header of {data.name} does not say how many original histories there were.")
    expected = None if particles is None else int(particles)
    if binary:
        columns, notes = _read_binary(header, data, described, expected)
    else:
        columns, notes = _read_ascii(data, described, expected)
    pdg = np.rint(columns["kind"]).astype(np.int64)
    real = pdg != _EMPTY_HISTORIES
    pdg, first = pdg[real], (columns["first"] != 0)[real]
    codes, kinds = np.unique(pdg, return_inverse=True)
    names = [_PDG_CODES.get(int(code), f"PDG {code}") for code in codes]
    known, left_out = select_known(names, kinds.astype(np.int64))
    column = {name: values[real][known] for name, values in columns.items()}
    across = column["u"] ** 2 + column["v"] ** 2
    if not (across <= 1 + _DIRECTION_SLACK).all():
        raise SynthDoseError(f"{data.name} has direction cosines whose squares sum to more than 1: header and file do not fit.")
    w = np.sqrt(np.maximum(0.0, 1.0 - across)) * np.where(column["w_negative"] != 0, -1.0, 1.0)
    to_mm, to_MeV = _unit(described, "x"), _unit(described, "energy")
    places = np.array([PARTICLES.index(name) if name in PARTICLES else 0 for name in names], np.uint8)
    return ParticleList(
        (to_mm * np.stack([column["x"], column["y"], column["z"]], axis=-1)).astype(np.float32),
        np.stack([column["u"], column["v"], w], axis=-1).astype(np.float32),
        (to_MeV * column["energy"]).astype(np.float32),
        places[kinds[known]],
        column["weight"].astype(np.float32),
        firsts_of_kept(first, known),
        original,
        (*notes, *left_out),
    )


def _number(header: str, name: str) -> float | None:
    match = re.search(rf"^\s*{re.escape(name)}:\s*([0-9.eE+]+)\s*$", header, re.MULTILINE)
    return float(match[1]) if match else None


def _described(header: str, data: Path) -> list[tuple[str, str]]:
    """Place (a column number, a range of bytes or a type) and description of every column, in order."""
    lines = re.findall(r"^\s*(\d+\s*-\s*\d+|\d+|[fibuS]\d+)\s*:\s*(\S.*?)\s*$", header, re.MULTILINE)
    missing = [text for text in _COLUMNS.values() if not any(text in line.lower() for _, line in lines)]
    if missing:
        raise SynthDoseError(
            f"The TOPAS header of {data.name} lists no column '{missing[0]}'. Write the phase space in TOPAS' format ASCII or "
            "Binary."
        )
    return lines


def _place(described: list[tuple[str, str]], name: str) -> int:
    return next(n for n, (_, text) in enumerate(described) if _COLUMNS[name] in text.lower())


def _unit(described: list[tuple[str, str]], name: str) -> float:
    usual, factors = _UNITS[name]
    match = re.search(r"[(\[](\w+)[)\]]", described[_place(described, name)][1])
    unit = match[1] if match else usual
    if unit not in factors:
        raise SynthDoseError(f"The TOPAS header gives {_COLUMNS[name]} in {unit}. Allowed: {', '.join(factors)}.")
    return factors[unit]


def _read_ascii(
    data: Path, described: list[tuple[str, str]], expected: int | None
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    try:
        require_memory(data, data.stat().st_size // 20)
        table = np.loadtxt(data, dtype=np.float64, ndmin=2, usecols=range(len(described)), comments=None)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise SynthDoseError(
            f"{data.name} does not hold {len(described)} columns of numbers as its header says: {error}."
        ) from error
    notes = count_notes(data, len(table), expected)
    return {name: table[:, _place(described, name)] for name in _COLUMNS}, notes


def _read_binary(
    header: str, data: Path, described: list[tuple[str, str]], expected: int | None
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    fields = [(f"f{n}", _type(place, text)) for n, (place, text) in enumerate(described)]
    record = np.dtype(fields)
    length = _number(header, "Number of Bytes per Particle")
    if length is not None and length != record.itemsize:
        raise SynthDoseError(
            f"The TOPAS header of {data.name} speaks of {length:g} bytes per particle; its columns take {record.itemsize}."
        )
    records, notes = read_records(data, record, expected)
    return {name: records[f"f{_place(described, name)}"].astype(np.float64) for name in _COLUMNS}, notes


def _type(place: str, text: str) -> str:
    """numpy's name of a column's type, from a range of bytes (old headers) or a type such as f4 (newer ones)."""
    if match := re.match(r"(\d+)\s*-\s*(\d+)$", place):
        size = int(match[2]) - int(match[1]) + 1
        whole = "particle type" in text.lower() or re.search(r"\bID\b|number", text)
        kind = "<i4" if whole and size == 4 else _BYTES_OF_OLD.get(size)
    else:
        kind = {"b1": "i1", "i1": "i1", "i4": "<i4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}.get(place)
        kind = place if place.startswith("S") and 0 < int(place[1:]) <= 256 else kind
    if kind is None:
        raise SynthDoseError(f"The TOPAS header has a column '{place}: {text}' of a type that is not known.")
    return kind
