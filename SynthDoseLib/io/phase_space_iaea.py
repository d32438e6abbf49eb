"""IAEA phase spaces: fixed records whose layout the header describes.

R. Capote et al., "Phase-space database for external beam radiotherapy", IAEA report INDC(NDS)-0484 (2006). A record is: kind of
particle (1 byte, negative where the third direction cosine is), energy (float32, MeV, negative for the first particle of an
original history), then as float32 those of X, Y, Z (cm), U, V and the weight that are stored, extra floats, and extra int32.
W is never stored: its flag says that it follows from U and V.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import PARTICLES, ParticleList, SynthDoseError
from .phase_space_records import firsts_of_kept, read_records, select_known

KINDS = ("", "photon", "electron", "positron", "neutron", "proton")
_FIELDS = ("x", "y", "z", "u", "v", "w", "weight")
_MOST_EXTRA = 10
_DIRECTION_SLACK = 1e-3  # of u2 + v2 over 1, from single precision


def read_iaea(header: str, data: Path, original_histories: float | None) -> ParticleList:
    """Read a phase space from the text of its header and its data file; see `read_phase_space`."""
    sections = _sections(header)
    stored, extra_floats, extra_longs = _contents(sections)
    constants = _constants(sections, stored)
    record, w_stored = _record(sections, stored, extra_floats, extra_longs)
    particles = _number(sections, "PARTICLES")
    original = _number(sections, "ORIG_HISTORIES") if original_histories is None else original_histories
    records, notes = read_records(data, record, None if particles is None else int(particles))
    if original is None:
        raise SynthDoseError(f"The header of {data.name} does not say $ORIG_HISTORIES. Give original_histories.")
    kinds = np.abs(records["kind"].astype(np.int64))
    kinds = np.where(kinds < len(KINDS), kinds, 0)
    known, left_out = select_known(KINDS, kinds)
    first = records["energy"] < 0
    if not first.any():
        first = np.ones(records.size, np.bool_)
        notes += (f"{data.name} does not mark where a history begins: every particle counts as one of its own.",)
    rows = records[known]
    direction = _directions(rows, stored, constants, w_stored)
    columns = [_column(rows, name, stored, constants) for name in ("x", "y", "z", "weight")]
    names = {name: n for n, name in enumerate(PARTICLES)}
    code = np.array([names.get(name, 0) for name in KINDS], np.uint8)
    return ParticleList(
        (10.0 * np.stack(columns[:3], axis=-1)).astype(np.float32),
        direction.astype(np.float32),
        np.abs(rows["energy"]),
        code[kinds[known]],
        columns[3].astype(np.float32),
        firsts_of_kept(first, known),
        original,
        (*notes, *_kind_notes(sections, kinds, data), *left_out),
    )


def _sections(header: str) -> dict[str, list[str]]:
    """Lines of each section, without comments and blanks."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in header.splitlines():
        if match := re.match(r"\s*\$\s*([A-Za-z0-9_]+)\s*:?", line):
            lines = sections.setdefault(match[1].upper(), [])
        elif text := line.split("//")[0].strip():
            lines.append(text)
    return sections


def _number(sections: dict[str, list[str]], name: str) -> float | None:
    lines = sections.get(name)
    if not lines:
        return None
    try:
        value = float(lines[0].split()[0])
    except ValueError as error:
        raise SynthDoseError(f"The phase-space header has ${name}: '{lines[0]}', which is not a number.") from error
    if not (np.isfinite(value) and value >= 0):
        raise SynthDoseError(f"The phase-space header has ${name}: {value:g}; it has to be 0 or more.")
    return value


def _contents(sections: dict[str, list[str]]) -> tuple[dict[str, bool], int, int]:
    """Which of the fields are stored, and how many extra floats and integers."""
    try:
        flags = [int(line.split()[0]) for line in sections.get("RECORD_CONTENTS", [])]
    except ValueError as error:
        raise SynthDoseError(f"$RECORD_CONTENTS of the phase-space header holds what is no number: {error}.") from error
    if len(flags) < 9 or any(flag not in (0, 1) for flag in flags[:7]) or any(not 0 <= n <= _MOST_EXTRA for n in flags[7:9]):
        raise SynthDoseError(
            "$RECORD_CONTENTS of the phase-space header has to hold nine numbers: 0 or 1 for X, Y, Z, U, V, W and weight, and "
            f"how many extra floats and integers there are (at most {_MOST_EXTRA}); found {flags}."
        )
    return dict(zip(_FIELDS, map(bool, flags[:7]), strict=True)), flags[7], flags[8]


def _constants(sections: dict[str, list[str]], stored: dict[str, bool]) -> dict[str, float]:
    """Values of the fields that are not stored, in their order; W may be left out, since it follows from U and V."""
    lines = sections.get("RECORD_CONSTANT", [])
    wanted = [name for name in _FIELDS if not stored[name]]
    if len(lines) == len(wanted) - 1 and "w" in wanted:
        wanted.remove("w")
    if len(lines) < len(wanted):
        raise SynthDoseError(
            f"The phase space stores no {', '.join(wanted)}, and $RECORD_CONSTANT of its header gives {len(lines)} of these "
            f"{len(wanted)} values."
        )
    try:
        return {name: float(line.split()[0]) for name, line in zip(wanted, lines, strict=False)}
    except ValueError as error:
        raise SynthDoseError(f"$RECORD_CONSTANT of the phase-space header holds what is no number: {error}.") from error


def _record(
    sections: dict[str, list[str]], stored: dict[str, bool], extra_floats: int, extra_longs: int
) -> tuple[np.dtype[np.void], bool]:
    """Layout of a record, and whether W is in it (against the format, but the header's length tells)."""
    order = {"1234": "<", "4321": ">"}.get("".join(sections.get("BYTE_ORDER", [])[:1]))
    if order is None:
        raise SynthDoseError(
            f"$BYTE_ORDER of the phase-space header has to be 1234 or 4321; found {sections.get('BYTE_ORDER', 'none')}."
        )
    length = _number(sections, "RECORD_LENGTH")
    for w_stored in (False, True) if stored["w"] else (False,):
        names = [name for name in _FIELDS if stored[name] and (name != "w" or w_stored)]
        fields: list[tuple[str, str]] = [("kind", "i1"), ("energy", f"{order}f4"), *((name, f"{order}f4") for name in names)]
        fields += [(f"float{n}", f"{order}f4") for n in range(extra_floats)]
        fields += [(f"long{n}", f"{order}i4") for n in range(extra_longs)]
        record = np.dtype(fields)
        if length is None or record.itemsize == length:
            return record, w_stored
    raise SynthDoseError(
        f"The phase-space header has $RECORD_LENGTH {length:g}, but the fields of $RECORD_CONTENTS take {record.itemsize} "
        "bytes. One of the two is wrong."
    )


def _column(rows: NDArray[np.void], name: str, stored: dict[str, bool], constants: dict[str, float]) -> NDArray[np.float64]:
    if stored[name]:
        return np.asarray(rows[name], np.float64)
    return np.full(rows.size, constants[name])


def _directions(
    rows: NDArray[np.void], stored: dict[str, bool], constants: dict[str, float], w_stored: bool
) -> NDArray[np.float64]:
    u, v = (_column(rows, name, stored, constants) for name in ("u", "v"))
    if w_stored:
        return np.stack([u, v, np.asarray(rows["w"], np.float64)], axis=-1)
    if not (stored["u"] or stored["v"] or stored["w"]) and "w" in constants:
        return np.stack([u, v, np.full(rows.size, constants["w"])], axis=-1)
    across = u * u + v * v
    bad = int(np.count_nonzero(~(across <= 1 + _DIRECTION_SLACK)))
    if bad:
        raise SynthDoseError(
            f"{bad} of {rows.size} particles of the phase space have direction cosines U and V whose squares sum to more "
            "than 1. The header does not fit the file."
        )
    w = np.sqrt(np.maximum(0.0, 1.0 - across)) * np.where(rows["kind"] < 0, -1.0, 1.0)
    return np.stack([u, v, w], axis=-1)


def _kind_notes(sections: dict[str, list[str]], kinds: NDArray[np.int64], data: Path) -> tuple[str, ...]:
    """Say where the header's counts of each kind are not those of the file."""
    counts = np.bincount(kinds, minlength=len(KINDS))
    wrong = []
    for place, name in enumerate(KINDS):
        said = _number(sections, f"{name.upper()}S") if name else None
        if said is not None and said != counts[place]:
            wrong.append(f"{said:.0f} {name}s where there are {counts[place]}")
    return (f"The header of {data.name} speaks of {', '.join(wrong)}; the file was believed.",) if wrong else ()
