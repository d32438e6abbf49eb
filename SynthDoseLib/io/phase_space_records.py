"""What the readers of phase spaces share: records, counts and memory are checked, other particles are counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import PARTICLES, SynthDoseError

_BYTES_PER_PARTICLE = 120  # while a file is turned into a list and its tables
_MEMORY_SHARE = 0.8


def read_records(path: Path, record: np.dtype[np.void], header_count: int | None) -> tuple[NDArray[np.void], tuple[str, ...]]:
    """Map the records of a binary file; its size decides how many, and has to fit the header.

    Parameters
    ----------
    header_count : int or None
        Particles the header speaks of. A file with fewer is truncated; one with more is used whole, with a note.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SynthDoseError(f"Cannot read the phase space {path}: {error.strerror}.") from error
    count, rest = divmod(size, record.itemsize)
    if rest:
        raise SynthDoseError(
            f"{path.name} has {size} bytes, which is not a whole number of records of {record.itemsize} bytes. The file is "
            "truncated, or its header belongs to another file."
        )
    notes = count_notes(path, count, header_count)
    require_memory(path, count)
    return np.memmap(path, dtype=record, mode="r", shape=(count,)), notes


def count_notes(path: Path, count: int, header_count: int | None) -> tuple[str, ...]:
    """Compare the number of particles found with the header's; see `read_records`."""
    if count == 0:
        raise SynthDoseError(f"The phase space {path.name} holds no particle.")
    if header_count is None or count == header_count:
        return ()
    if count < header_count:
        raise SynthDoseError(
            f"{path.name} holds {count} particles, its header speaks of {header_count}: the file is truncated. Copy it again, "
            "or correct the header (with the original histories of the part that is there)."
        )
    return (
        f"The header of {path.name} speaks of {header_count} particles, the file holds {count}: all of them are used. The dose "
        "is per original history of the header; give original_histories if that number belongs to another file.",
    )


def require_memory(path: Path, count: int) -> None:
    """Raise `SynthDoseError` if a list of `count` particles does not fit into free memory."""
    import psutil  # Slicer does not have it, and everything that reads images comes through this package

    needed, free = count * _BYTES_PER_PARTICLE, psutil.virtual_memory().available * _MEMORY_SHARE
    if needed > free:
        raise SynthDoseError(
            f"The {count} particles of {path.name} need {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free. "
            "Cut the file into parts, with their share of the original histories."
        )


def select_known(names: Sequence[str], kinds: NDArray[np.int64]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which particles are followed, and a note that counts the others; `kinds` are places in `names`, "" for an unknown one."""
    known = np.isin(kinds, [n for n, name in enumerate(names) if name in PARTICLES[:3]])
    if known.all():
        return known, ()
    counts = np.bincount(kinds[~known], minlength=len(names))
    left_out = ", ".join(f"{count} {names[n] or 'unknown'}" for n, count in enumerate(counts) if count)
    if not known.any():
        raise SynthDoseError(f"The phase space holds no photon, electron or positron; it has {left_out} particles.")
    return known, (
        f"{int(counts.sum())} of {kinds.size} particles of the phase space were left out ({left_out}): only photons, electrons "
        "and positrons are followed, and the dose is theirs alone.",
    )


def firsts_of_kept(first: NDArray[np.bool_], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """First particles of histories among those that are kept."""
    history = np.cumsum(first)[kept]
    return np.concatenate([[True], history[1:] != history[:-1]])
