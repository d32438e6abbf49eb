"""The state of a simulation on disk, so that one that was stopped or killed can be gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
import time
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Emission, VoxelPhantom
from .batches import Batches, Statistics
from .cache import engine_hash, physics_hash
from .limits import Plan
from .sources import Source
from .values import CheckpointError, RunSettings, part_name

FORMAT = 1
SECONDS_BETWEEN = 20.0
SHARE_OF_TIME = 0.05  # that writing may take of a run: large phantoms are written less often
_SECONDS_PER_BYTE = 2e-9  # before it is known better
QUICK_SECONDS = 0.5
_DECIDE_DOSE = ("histories", "relative_sigma", "organs", "max_seconds", "seed", "estimator", "components")
_DAMAGED = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, IndexError, NotImplementedError,
    RuntimeError, MemoryError, SyntaxError, tokenize.TokenError,
)  # fmt: skip
"""What reading a file raises whose bytes have changed: of the archive, of the headers in it, and of what they say."""
_SCALARS = ("emitted", "escaped", "excess", "cpu_s")


def problem_key(phantom: VoxelPhantom, source: Source, emissions: Sequence[Emission], settings: RunSettings, kind: str) -> str:
    """Hash of everything that decides the result, the sources of the engine included; not of the number of threads."""
    digest = hashlib.blake2b(digest_size=20)
    decisive = [getattr(settings, name) for name in _DECIDE_DOSE]
    notes_do_not_matter = dataclasses.replace(phantom, notes=(), labels=dataclasses.replace(phantom.labels, notes=()))
    _feed(digest, [FORMAT, kind, engine_hash(), physics_hash(), decisive, notes_do_not_matter, source, list(emissions)])
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add a value and its type to a hash: data classes, arrays, mappings, sequences, and what has a plain text form."""
    digest.update(f"<{type(value).__name__}>".encode())
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _feed(digest, getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _feed(digest, key)
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())


@dataclasses.dataclass(eq=False)
class State:
    """What a checkpoint holds: the plan, how many batches it has come to, the sums, and the time that they took."""

    plan: Plan
    planned: int
    statistics: Statistics
    wall_s: float


class Checkpoint:
    """A file that the state of one simulation is kept in.

    Parameters
    ----------
    path : path-like
        Its folder is made when there is something to keep; the file is replaced in one piece.
    key : str
        See `problem_key`.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self.path = Path(path)
        self.failure = ""
        self._key = key
        self._write_seconds = 0.0
        self._written_at = time.monotonic()
        self._writing = threading.Lock()

    def load(self) -> State | None:
        """Read the state; None if there is no file.

        Raises
        ------
        CheckpointError
            If the file is of another simulation, or not a whole checkpoint.
        """
        advice = "Remove the file to start anew, or choose another one."
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                if arrays.zip.testzip() is not None:  # reading an array does not look at bytes that its header leaves out
                    raise zipfile.BadZipFile
                if str(arrays["key"]) != self._key:
                    raise CheckpointError(
                        f"The checkpoint {self.path} is of another simulation: phantom, source, settings or the version of the "
                        f"engine differ. {advice}"
                    )
                return _unpack(arrays)
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            raise CheckpointError(f"{self.path} is not a checkpoint, or it is damaged. {advice}") from error

    def due(self) -> bool:
        """Whether it is time to write again."""
        pause = max(SECONDS_BETWEEN, self._write_seconds / SHARE_OF_TIME)
        return not self.failure and time.monotonic() - self._written_at > pause

    def worth_waiting(self, statistics: Statistics, seconds: float = QUICK_SECONDS) -> bool:
        """Whether writing takes less than so many seconds; by default, little enough for somebody who has cancelled."""
        needed = self._write_seconds or _SECONDS_PER_BYTE * 2 * statistics.energy.nbytes
        return not self.failure and statistics.done > 0 and needed < seconds

    def save(self, state: State) -> None:
        """Write the state; a failure (a full disk) is remembered in `failure`, and does not end the run."""
        temporary = self.path.with_name(part_name(self.path.name))
        with self._writing:
            begun = time.monotonic()
            try:
                temporary.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as stream:
                    np.savez(stream, key=np.array(self._key), **_pack(state))
                os.replace(temporary, self.path)
            except OSError as error:
                self.failure = f"The checkpoint {self.path} could not be written: {error.strerror}."
                with contextlib.suppress(OSError):
                    temporary.unlink()
            self._written_at = time.monotonic()
            self._write_seconds = self._written_at - begun


def _pack(state: State) -> dict[str, Any]:
    statistics, batches = state.statistics, state.plan.batches
    return {
        "rates": batches.rates,
        "open_group": np.array(batches.open_group),
        "yields": batches.yields,
        "plan": np.array([state.plan.planned, state.plan.uses, state.plan.most, state.planned]),
        "scale": np.array([state.plan.scale, state.wall_s]),
        "energy": statistics.energy,
        "energy_squared": statistics.energy_squared,
        "organ_energy": np.array(statistics.organ_energy[: statistics.done]),
        "counts": statistics.counts,
        "scalars": np.array([getattr(statistics, name) for name in _SCALARS]),
        "with_map": np.array(statistics.with_map),
    }


def _unpack(arrays: Any) -> State:
    begun_with, uses, most, planned = (int(n) for n in arrays["plan"])
    scale, wall_s = (float(number) for number in arrays["scale"])
    batches = Batches(arrays["rates"], int(arrays["open_group"]), arrays["yields"])
    plan = Plan(batches, begun_with, scale, uses, most)
    organ_energy = arrays["organ_energy"]
    statistics = Statistics(0, organ_energy.shape[-1], 0, with_map=bool(arrays["with_map"]))
    statistics.done = len(organ_energy)
    statistics.energy, statistics.energy_squared = arrays["energy"], arrays["energy_squared"]
    statistics.organ_energy = list(organ_energy)
    statistics.counts = arrays["counts"]
    for name, value in zip(_SCALARS, arrays["scalars"], strict=True):
        setattr(statistics, name, float(value))
    return State(plan, planned, statistics, wall_s)
