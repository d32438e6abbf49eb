"""Stages whose inputs have not changed are taken from an earlier run; the others, and those asked for, are calculated."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..core import SynthDoseError, atomic_path, copy_with_sha256, sha256_of
from .fingerprints import Fingerprints, program_fingerprint
from .kept_values import plain_from_value, value_from_plain

Value = TypeVar("Value")

STAGES = (
    "segment", "phantom", "activity", "transport", "results", "engines", "dose rate", "export", "radiomics", "scene", "report",
)  # fmt: skip
"""In the order of a run. A run can be started again from any of them."""

KEPT = 4
"""Results of each part of a stage that a store holds; the oldest go first."""

LARGEST_GB = 10.0
"""Size of a store, above which the oldest results go, of whatever stage."""

TAKEN_OVER, CALCULATED = "taken over", "calculated"

VALUE, STATE = "value.json", "state.npz"
_UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    EOFError,
    MemoryError,
    SynthDoseError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_value(path: Path, key: str, value: Any, files: Mapping[str, str] | None = None) -> None:
    """Write a value as JSON at `path` with its arrays beside it; `path` comes last, and is all or nothing.

    Parameters
    ----------
    path : Path
        Ends in ``.json``; its folder has to exist.
    key : str
        What decided the value: `read_value` wants the same.
    value : anything that `plain_from_value` takes
    files : mapping of str to str, optional
        SHA-256 of files that belong to the value.
    """
    arrays: dict[str, Any] = {}
    plain = plain_from_value(value, arrays)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with atomic_path(path.with_suffix(".npz")) as temporary:
        np.savez(temporary, **{"key": np.array(key), **arrays})
    record = {"key": key, "value": plain, "files": dict(files or {})}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record | {"seal": _seal(record, path.with_suffix(".npz"))}), encoding="utf-8")


def _seal(record: Mapping[str, Any], arrays: Path) -> str:
    """SHA-256 of a value and of the checksums of its arrays, which are compared as they are read: against editing by hand."""
    with zipfile.ZipFile(arrays) as members:
        sums = [(member.filename, member.CRC, member.file_size) for member in members.infolist()]
    return hashlib.sha256(json.dumps([record, sums], sort_keys=True).encode()).hexdigest()


def read_value(path: Path, key: str) -> tuple[Any, Mapping[str, str]] | None:
    """Value and files of `write_value`; None if there is none, it is of another key, damaged, edited, or of another version."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["key"] != key or record.pop("seal") != _seal(record, path.with_suffix(".npz")):
            return None
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return value_from_plain(record["value"], arrays.__getitem__), record["files"]
    except _UNREADABLE:
        return None


class StageStore:
    """A folder with results of stages by the hash of what decided them; the same that run folders hold.

    Parameters
    ----------
    folder : Path
        Made when something is kept.

    Raises
    ------
    SynthDoseError
        If it is a file.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise SynthDoseError(f"{folder} is a file; stages are kept in a folder (--reuse), which is made if need be.")
        self._folder = folder

    def entry(self, part: str, key: str) -> Path:
        """Folder of a result, which need not exist."""
        return self._folder / f"{part.replace(' ', '-')}-{key[:24]}"

    def load(self, part: str, key: str, into: Path | None = None) -> tuple[Any] | None:
        """The value kept for a key, its files copied to `into`; None if there is none, or not whole."""
        entry = self.entry(part, key)
        found = read_value(entry / VALUE, key)
        if found is None:
            return None
        value, files = found
        try:
            for name, digest in files.items():
                if into is None or sha256_of(entry / "files" / name) != digest:
                    return None
            for name in files:
                assert into is not None
                (into / name).parent.mkdir(exist_ok=True)
                with atomic_path(into / name) as temporary:
                    shutil.copyfile(entry / "files" / name, temporary)
            entry.touch()  # the least recently used go first
        except _UNREADABLE:
            return None
        return (value,)

    def save(self, part: str, key: str, value: Any, folder: Path | None = None, files: Sequence[str] = ()) -> None:
        """Keep a value, and copies of those `files` of `folder` that exist.

        Raises
        ------
        OSError, SynthDoseError
            If they cannot be written.
        """
        entry = self.entry(part, key)
        (entry / VALUE).unlink(missing_ok=True)
        self._forget_oldest(part, entry)
        entry.mkdir(parents=True, exist_ok=True)
        digests = {}
        for name in files:
            if folder is not None and (folder / name).is_file():
                (entry / "files" / name).parent.mkdir(parents=True, exist_ok=True)
                digests[name] = copy_with_sha256(folder / name, entry / "files" / name)
        write_value(entry / VALUE, key, value, digests)
        (entry / STATE).unlink(missing_ok=True)
        self._shrink(entry)

    def share(self, part: str, key: str, path: Path) -> bool:
        """Put a kept value without files at `path`, as `write_value` would; where links can be made nothing is written again.

        Returns
        -------
        bool
            False if it is not kept, or cannot be had there.
        """
        entry = self.entry(part, key)
        try:
            path.unlink(missing_ok=True)
            for suffix in (".npz", path.suffix):  # the value itself comes last, and says that it is whole
                with atomic_path(path.with_suffix(suffix)) as temporary:
                    _link_or_copy((entry / VALUE).with_suffix(suffix), temporary)
        except (OSError, SynthDoseError):
            return False
        return True

    def _forget_oldest(self, part: str, new: Path) -> None:
        pattern = f"{self.entry(part, '').name}" + "?" * 24
        entries = sorted((e for e in self._folder.glob(pattern) if e != new), key=lambda entry: entry.stat().st_mtime)
        for old in entries[: max(0, len(entries) - KEPT + 1)]:
            _forget(old)

    def _shrink(self, new: Path) -> None:
        """Forget the oldest results while the store is too large; the newest one stays."""
        entries = sorted((e for e in self._folder.iterdir() if e.is_dir()), key=lambda entry: entry.stat().st_mtime)
        sizes = {entry: sum(file.stat().st_size for file in entry.rglob("*") if file.is_file()) for entry in entries}
        for old in entries:
            if sum(sizes.values()) <= LARGEST_GB * 1e9:
                return
            if old != new:
                _forget(old)
                del sizes[old]


def _link_or_copy(source: Path, target: Path) -> None:
    # neither file is ever changed in place: a later value replaces it under its name
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _forget(entry: Path) -> None:
    (entry / VALUE).unlink(missing_ok=True)  # first, so that half an entry is none
    shutil.rmtree(entry, ignore_errors=True)


class Stages:
    """The stages of one run: which were taken over, and which were calculated.

    Parameters
    ----------
    store : StageStore, optional
        Without one everything is calculated and nothing is kept.
    begin : str
        This stage and all after it are calculated, whatever the store has; "" if none has to be.

    Attributes
    ----------
    outcome : dict of str to str
        `TAKEN_OVER` (all of it) or `CALCULATED` by stage, in the order in which they came.
    notes : list of str
        What could not be kept.

    Raises
    ------
    SynthDoseError
        If there is no such stage, or nothing to take the earlier ones from.
    """

    def __init__(self, store: StageStore | None = None, begin: str = "") -> None:
        if begin and begin not in STAGES:
            raise SynthDoseError(f"There is no stage '{begin}' to start from. Stages: {', '.join(STAGES)}.")
        if begin and store is None:
            raise SynthDoseError(
                f"To start again from '{begin}', name with --reuse the folder that earlier stages are kept in."
            )
        self.outcome: dict[str, str] = {}
        self.notes: list[str] = []
        self._store = store
        self._fresh = STAGES[STAGES.index(begin) :] if begin else ()
        self._fingerprints = Fingerprints()

    def take(
        self,
        stage: str,
        inputs: Any,
        make: Callable[[], Value],
        *,
        part: str = "",
        folder: Path | None = None,
        files: Sequence[str] = (),
        whole: Callable[[Value], bool] = lambda value: True,
    ) -> Value:
        """The result of a stage, or of a `part` of it: of an earlier run with equal `inputs`, otherwise what `make` returns.

        Parameters
        ----------
        stage : str
            One of `STAGES`.
        inputs
            Everything that decides the result, see `Fingerprints`.
        make : callable
            Returns a value that `kept_values` can keep; may write `files` into `folder`.
        files : sequence of str
            Names of all files that `make` can write; they come with the result.
        whole : callable
            Whether a result is good for another run, too.
        """
        if self._store is None:
            self.outcome[stage] = CALCULATED
            return make()
        name = f"{stage}.{part}" if part else stage
        key = self.key(name, inputs)
        found = self._store.load(name, key, folder) if stage not in self._fresh else None
        if found is not None:
            self.outcome.setdefault(stage, TAKEN_OVER)
            value: Value = found[0]
            return value
        self.outcome[stage] = CALCULATED
        made = make()
        if not whole(made):
            return made
        try:
            self._store.save(name, key, made, folder, files)
        except (OSError, SynthDoseError) as error:
            # without the path, which may name the patient
            reason = getattr(error, "strerror", None) or "its folder cannot be written to"
            self.notes.append(f"'{stage}' could not be kept for another run: {reason}.")
        return made

    def keep_beside(self, stage: str, inputs: Any, path: Path, value: Any) -> None:
        """Keep a value at `path`, too, for an interrupted run that goes on without the store; see `write_value`."""
        key = self.key(stage, inputs)
        if self._store is None or not self._store.share(stage, key, path):
            write_value(path, key, value)

    def unfinished(self, stage: str, inputs: Any) -> Path | None:
        """Where a stage may keep its state while it goes on, for a run with the same inputs; None without a store."""
        if self._store is None:
            return None
        path = self._store.entry(stage, self.key(stage, inputs)) / STATE
        if stage in self._fresh:
            path.unlink(missing_ok=True)
        return path

    def key(self, name: str, inputs: Any) -> str:
        """Hash of the program, of the name of a stage or part, and of its inputs."""
        return self._fingerprints.of((program_fingerprint(), name, inputs))
