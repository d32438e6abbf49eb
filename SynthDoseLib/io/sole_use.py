"""One process at a time writes into a folder of results, on one computer or on several that share a disk.

Locks of the system are not kept by every network disk, and clocks of computers differ. So whoever works in a folder leaves a
note there with its process and touches it every few seconds. Who finds a note of a process on the same computer asks the system
whether it lives; any other note is watched, and only one that nobody touches for a minute is of a process that died.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..core import Progress, ProgressReport, SynthDoseError, silent
from .text import clean_text

NOTE = ".in-use.json"
BEAT_S = 5.0
SILENCE_S = 60.0
LOOK_S, RETRIES = 0.5, 10
SAME_START_S = 1.0


@dataclass(frozen=True)
class _Owner:
    """What a note says: process, computer, when it began, and a text by which the note is known again."""

    pid: int
    host: str
    place: str
    born_s: float
    started: str
    token: str

    def describe(self) -> str:
        return f"process {self.pid} on {clean_text(self.host) or 'an unnamed computer'}, started {clean_text(self.started)}"


class SoleUse:
    """A folder that this process has for itself; see `sole_use`."""

    def __init__(self, note: Path, owner: _Owner) -> None:
        self._note, self._owner = note, owner
        self._successor: _Owner | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="folder in use", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise `SynthDoseError` if another process has taken the folder, because this one gave no sign of life for long."""
        if self._successor is not None:
            raise SynthDoseError(
                f"{self._note.parent} was taken over by {self._successor.describe()}, while this process stood still. "
                "It stops here, so that the two do not write into each other's files."
            )

    def watched(self, progress: Progress) -> Progress:
        """The same progress, which also ends the work when the folder was lost."""

        def tell(report: ProgressReport) -> None:
            self.require()
            progress(report)

        return tell

    def release(self) -> None:
        """Take the note away, unless it has become another's."""
        self._end.set()
        self._thread.join()
        for _ in range(RETRIES):
            owner, _ = _look(self._note)
            if owner is None or owner.token != self._owner.token:
                return
            try:
                self._note.unlink()
            except OSError:  # Windows removes no file that somebody looks into
                time.sleep(LOOK_S / RETRIES)

    def _keep(self) -> None:
        while not self._end.wait(BEAT_S):
            owner, _ = _look(self._note)
            if owner is not None and owner.token != self._owner.token:
                self._successor = owner
                return
            with suppress(OSError):
                if owner is None and not self._note.exists():
                    _write_new(self._note, self._owner)
                else:
                    os.utime(self._note)


@contextmanager
def sole_use(folder: Path, progress: Progress = silent) -> Iterator[SoleUse]:
    """Keep other processes from writing into a folder as long as the block runs.

    Parameters
    ----------
    folder : Path
        Made if need be; what was made is removed again if the block leaves it empty.
    progress : callable
        Told when a note of another computer has to be watched, for up to a minute.

    Yields
    ------
    SoleUse

    Raises
    ------
    SynthDoseError
        If another process that lives works there, or the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with sole_use(Path(tempfile.mkdtemp()) / "run") as use:
    ...     use.require()
    """
    note = Path(folder).absolute() / NOTE
    made: list[Path] = []
    try:
        made = _make(note.parent)
        use = SoleUse(note, _take(note, progress))
    except OSError as error:
        _remove_empty(made)
        raise SynthDoseError(
            f"Cannot write to {folder}: {error.strerror or error}. Check the free space and the permissions."
        ) from error
    except BaseException:
        _remove_empty(made)
        raise
    try:
        yield use
    finally:
        use.release()
        _remove_empty(made)


def holds_anything(folder: Path) -> bool:
    """Whether there is anything in a folder but the note of `sole_use`; False if there is no folder."""
    return folder.is_dir() and any(not entry.name.startswith(NOTE) for entry in folder.iterdir())


def _take(note: Path, progress: Progress) -> _Owner:
    own = _this_process()
    while not _write_new(note, own):
        silent_one = _wait_for_silence(note, progress)
        with _alone(note.with_name(f"{NOTE}.taking")):
            # of several that found the note of a dead process, one replaces it; the others find its own
            if _look(note) == silent_one:
                note.unlink(missing_ok=True)
                if _write_new(note, own):
                    break
    return own


@contextmanager
def _alone(guard: Path) -> Iterator[None]:
    """Let one process at a time into the block, which takes no time; a guard that stays is of one that died in it."""
    began = time.monotonic()
    while True:
        try:
            guard.open("x").close()
            break
        except FileExistsError:
            if time.monotonic() - began > SILENCE_S:
                with suppress(OSError):
                    guard.unlink()
            time.sleep(LOOK_S / RETRIES)
    try:
        yield
    finally:
        with suppress(OSError):
            guard.unlink()


def _wait_for_silence(note: Path, progress: Progress) -> tuple[_Owner | None, int | None]:
    """What `_look` says of a note whose process is known to have ended; raise `SynthDoseError` when it lives."""
    owner, touched = _look(note)
    if owner is not None and _is_alive(owner):
        time.sleep(LOOK_S)  # it may just be ending
        owner, touched = _look(note)
    alive = None if owner is None else _is_alive(owner)
    if alive and owner is not None:
        raise SynthDoseError(_in_use(note.parent, owner))
    began = time.monotonic()
    while alive is None and touched is not None and (waited := time.monotonic() - began) < SILENCE_S:
        of_whom = "an earlier run" if owner is None else owner.describe()
        said = f"{note.parent} was in use by {of_whom}: looking whether it still is"
        progress(ProgressReport("read", min(1.0, waited / SILENCE_S), SILENCE_S - waited, said))
        time.sleep(LOOK_S)
        again, later = _look(note)
        if again is not None and later is not None and later != touched:
            raise SynthDoseError(_in_use(note.parent, again))
        owner, touched = again, later
    return owner, touched


def _in_use(folder: Path, owner: _Owner) -> str:
    return (
        f"{folder} is in use by another process of SynthDose ({owner.describe()}), which is alive. Two runs in one folder "
        "would mix their results: choose another folder, or wait until it has ended, or stop it."
    )


def _is_alive(owner: _Owner) -> bool | None:
    """Whether a process lives; None if that cannot be told from here, or its number may have been given to another."""
    if owner.place != _place():
        return None
    import psutil  # here, because a fresh Slicer lacks it, and 'synthdose check' comes through this package

    try:
        process = psutil.Process(owner.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return True if abs(process.create_time() - owner.born_s) <= SAME_START_S else None
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None


def _this_process() -> _Owner:
    import psutil

    return _Owner(
        os.getpid(),
        platform.node(),
        _place(),
        psutil.Process().create_time(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        uuid.uuid4().hex,
    )


def _place() -> str:
    """Where process numbers mean the same: a computer since it was switched on, and a container on it."""
    parts = [platform.node()]
    with suppress(OSError):  # Linux only; several computers, or containers, can have one name
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _write_new(note: Path, owner: _Owner) -> bool:
    """Write a note where there is none; False if there is one."""
    try:
        with open(note, "x", encoding="utf-8") as stream:
            json.dump(owner.__dict__, stream)
    except FileExistsError:
        return False
    return True


def _look(note: Path) -> tuple[_Owner | None, int | None]:
    """What a note says, None if nothing that is understood, and when it was touched last, ns; None if there is none."""
    try:
        # opening is what makes a network disk look again
        with open(note, encoding="utf-8") as stream:
            touched = os.fstat(stream.fileno()).st_mtime_ns
            text = stream.read(10_000)
    except OSError:
        return None, None
    except UnicodeDecodeError:
        return None, touched
    try:
        said = json.loads(text)
        if not isinstance(said, Mapping):
            return None, touched
        words = {name: str(said[name]) for name in ("host", "place", "started", "token")}
        return _Owner(pid=int(said["pid"]), born_s=float(said["born_s"]), **words), touched
    except (KeyError, TypeError, ValueError):
        return None, touched


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, the innermost first."""
    missing = [folder, *folder.parents]
    missing = missing[: next((n for n, path in enumerate(missing) if path.exists()), len(missing))]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
