"""A bundle in an archive: unpacked only after every name, kind and size was looked at."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..core import SynthDoseError, sha256_of

MAX_UNPACKED_BYTES = 8 << 30
MAX_MEMBERS = 5000
MAX_RATIO = 200  # unpacked to packed: weights hardly shrink, a bomb shrinks a thousandfold
SMALL_BYTES = 64 << 20  # up to here any ratio is harmless
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_file: bool


def is_archive(path: Path) -> bool:
    """Whether a path is an existing file whose name ends like that of an archive."""
    return os.path.isfile(path) and path.name.lower().endswith(SUFFIXES)


def unpacked_bundle(archive: Path, store: Path) -> Path:
    """Return the folder of a bundle that an archive holds, unpacked once into `store`, under the archive's SHA-256.

    Raises
    ------
    SynthDoseError
        If the archive is damaged, holds what no bundle has, or cannot be unpacked there.
    """
    target = store / "archives" / sha256_of(archive)[:32]
    if target.is_dir():
        return bundle_root(target, archive.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".unpacking.", dir=target.parent))
        try:
            unpack(archive, work / "content")
            bundle_root(work / "content", archive.name)  # what is no bundle is not kept
            os.replace(work / "content", target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise SynthDoseError(f"Cannot unpack {archive} into {target.parent}: {error.strerror or error}.") from error
    return bundle_root(target, archive.name)


def bundle_root(folder: Path, name: str) -> Path:
    """Folder in an unpacked archive that holds ``configs``.

    Raises
    ------
    SynthDoseError
        If there is none, or more than one.
    """
    candidates = (folder, *sorted(path for path in folder.iterdir() if path.is_dir()))
    found = [candidate for candidate in candidates if (candidate / "configs" / "inference.json").is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(candidate.name for candidate in found)
        raise SynthDoseError(f"The archive {name} holds several bundles ({names}). Unpack it, and give the folder of one.")
    raise SynthDoseError(f"The archive {name} holds no configs/inference.json: it is no bundle that can be run.")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a folder that does not exist.

    Every name is checked before it is used: no absolute or climbing path, drive, link, device or name given twice. Sizes are
    counted while they are read, whatever the archive says about them.

    Raises
    ------
    SynthDoseError
        If the archive is damaged or holds anything of this, or more files or bytes than a bundle has.
    """
    room = min(MAX_UNPACKED_BYTES, int(0.9 * shutil.disk_usage(archive.parent).free))
    allowed = min(room, max(SMALL_BYTES, MAX_RATIO * archive.stat().st_size))
    written = 0
    seen: set[str] = set()
    try:
        for number, (member, source) in enumerate(_members(archive), start=1):
            _check(member, seen)
            if number > MAX_MEMBERS or written + member.size > allowed:
                raise SynthDoseError(
                    f"The archive {archive.name} unpacks to more files or bytes than a bundle has ({number} files, "
                    f"{(written + member.size) / 1e9:.2g} GB), which is refused."
                )
            path = folder.joinpath(*PurePosixPath(member.name).parts)
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                written += _copied(source, target, allowed - written, archive.name)
    except _DAMAGED as error:
        raise SynthDoseError(f"The archive {archive.name} cannot be unpacked: {error}.") from error


def _copied(source: IO[bytes] | None, target: IO[bytes], allowed: int, name: str) -> int:
    size = 0
    while source is not None and (block := source.read(_BLOCK)):
        size += len(block)
        if size > allowed:
            raise SynthDoseError(f"The archive {name} unpacks to more than it says, which is refused.")
        target.write(block)
    return size


def _members(archive: Path) -> Iterator[tuple[_Member, IO[bytes] | None]]:
    """Members one by one, each with a stream of its content; none is written."""
    with archive.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"  # not is_zipfile: a tar archive may end with weights, which are a zip archive
    if is_zip:
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                is_link = stat.S_ISLNK(info.external_attr >> 16)
                member = _Member(info.filename, info.file_size, info.is_dir(), not info.is_dir() and not is_link)
                if not member.is_file:
                    yield member, None
                    continue
                with content.open(info) as source:
                    yield member, source
        return
    # as a stream, so that a bomb is met member by member
    with tarfile.open(archive, "r|*") as packed:
        for item in packed:
            member = _Member(item.name, item.size, item.isdir(), item.isreg())
            yield member, packed.extractfile(item) if item.isreg() else None


def _check(member: _Member, seen: set[str]) -> None:
    path = PurePosixPath(member.name)
    climbs = path.is_absolute() or ".." in path.parts or any(sign in member.name for sign in "\\:\0")
    if climbs or not (member.is_folder or member.is_file) or (member.is_file and not path.parts):
        raise SynthDoseError(
            f"The archive holds '{member.name[:120]}', which leads out of its folder or is a link or device: refused."
        )
    key = str(path).casefold()  # Windows and macOS take names of other case for the same file
    if member.is_file and key in seen:
        raise SynthDoseError(f"The archive holds '{member.name[:120]}' twice, which is refused.")
    seen.add(key)
