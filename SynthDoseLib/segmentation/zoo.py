"""Downloading a bundle of the MONAI Model Zoo, when the user asks for it by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..core import Progress, ProgressReport, SynthDoseError, silent
from .bundle_folder import bundle_store, find_bundle, read_bundle, shipped_bundles

INDEX_URL = "https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"
"""Index of the Model Zoo: per bundle and version where its archive is, and its SHA-1."""

MAX_ARCHIVE_BYTES = 4 << 30
MAX_UNPACKED_BYTES = 8 << 30
MAX_MEMBERS = 5000
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_BLOCK = 1 << 20
_TIMEOUT_S = 30


def fetch_bundle(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    version: str | None = None,
    index_url: str = INDEX_URL,
    progress: Progress = silent,
) -> Path:
    """Download a bundle of the MONAI Model Zoo and keep it. Nothing about the user or the patient is sent.

    Parameters
    ----------
    name : str
        As the Model Zoo spells it, for example "wholeBody_ct_segmentation".
    folder : path-like, optional
        Where the bundle's folder is made; `bundle_store` if not given, where `segment_with_bundle` finds it by name.
    version : str, optional
        The newest if not given.
    index_url : str
        Another index of the same form (a mirror; ``file://`` for an archive at hand).
    progress : Progress
        May raise `Cancelled`; then nothing is left behind.

    Returns
    -------
    Path
        Folder of the bundle. One that is there already is returned as it is.

    Raises
    ------
    SynthDoseError
        If there is no connection, no such bundle, the checksum is wrong, or the archive holds names that lead elsewhere.
    """
    if not _NAME.fullmatch(name):
        raise SynthDoseError(f"'{name}' is not a name of a Model Zoo bundle (letters, digits, _, - and .).")
    parent = Path(folder) if folder is not None else bundle_store()
    target = parent / name
    if (target / "configs" / "inference.json").is_file():
        return target
    progress(ProgressReport("download", 0.0, None, f"looking up {name}"))
    url, sha1, found = _look_up(name, version, index_url)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    except OSError as error:
        raise SynthDoseError(f"Cannot write to {parent}: {error.strerror}. Give another folder.") from error
    try:
        archive = work / "bundle.zip"
        _download(url, archive, sha1, progress)
        unpacked = _unpack(archive, work / "unpacked", name)
        read_bundle(unpacked)  # what cannot be run is not kept
        os.replace(unpacked, target)
    except OSError as error:
        raise SynthDoseError(f"Cannot keep the bundle {name} {found} in {parent}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(ProgressReport("download", 1.0, 0.0, f"{name} {found} is in {target}"))
    return target


def obtain_bundle(bundle: str | os.PathLike[str], *, progress: Progress = silent) -> Path:
    """Return the folder of a bundle; a name that is not at hand is downloaded from the MONAI Model Zoo.

    Raises
    ------
    SynthDoseError
        If it is neither at hand nor can be downloaded.
    """
    try:
        return find_bundle(bundle)
    except SynthDoseError as not_here:
        text = os.fspath(bundle)
        if not _NAME.fullmatch(text) or Path(text).exists():
            raise
        try:
            return fetch_bundle(text, progress=progress)
        except SynthDoseError as not_there:
            shipped = ", ".join(shipped_bundles()) or "none"
            raise SynthDoseError(
                f"There is no bundle '{text}' on this computer (shipped: {shipped}). {not_there}"
            ) from not_here


def _look_up(name: str, version: str | None, index_url: str) -> tuple[str, str, str]:
    """URL, SHA-1 and version of a bundle."""
    with _open(index_url) as stream:
        content = stream.read(64 << 20)
    try:
        index: Any = json.loads(content)
        entries = {key: (str(value["source"]), str(value["checksum"])) for key, value in index.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise SynthDoseError(f"The index of the Model Zoo at {index_url} is not what it was: {error!r}.") from error
    versions = {key[len(name) + 2 :]: entry for key, entry in entries.items() if key.startswith(f"{name}_v")}
    if not versions:
        names = sorted({key.rsplit("_v", 1)[0] for key in entries})
        raise SynthDoseError(f"The Model Zoo has no bundle '{name}'. It has: {', '.join(names)}.")
    wanted = version or max(versions, key=lambda v: [int(n) for n in re.findall(r"\d+", v)])
    if wanted not in versions:
        raise SynthDoseError(f"The Model Zoo has no version {wanted} of {name}; it has {', '.join(sorted(versions))}.")
    url, sha1 = versions[wanted]
    if urlsplit(url).scheme not in ("https", urlsplit(index_url).scheme):
        raise SynthDoseError(f"The Model Zoo's index gives an address that is not https: {url}")
    return url, sha1, wanted


def _open(url: str) -> Any:
    if urlsplit(url).scheme not in ("https", "file"):
        raise SynthDoseError(f"Bundles are downloaded by https only; found {url}")
    try:
        return urllib.request.urlopen(url, timeout=_TIMEOUT_S)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise SynthDoseError(
            f"Cannot reach the MONAI Model Zoo ({url}): {reason}. Check the internet connection or proxy, or download the "
            "bundle on another computer, unpack it, and give its folder as the bundle. Without a download: an existing "
            'segmentation, method = "tissue", and the bundles that ship.'
        ) from error


def _download(url: str, archive: Path, sha1: str, progress: Progress) -> None:
    start = time.monotonic()
    digest = hashlib.sha1(usedforsecurity=False)  # the only checksum the index gives
    with _open(url) as stream, archive.open("wb") as file:
        total = int(stream.headers.get("Content-Length") or 0)
        size = 0
        while True:
            try:
                block = stream.read(_BLOCK)
            except OSError as error:
                raise SynthDoseError(f"The download of {url} broke off after {size} bytes: {error}. Try again.") from error
            if not block:
                break
            size += len(block)
            if size > MAX_ARCHIVE_BYTES:
                raise SynthDoseError(f"The archive at {url} is larger than {MAX_ARCHIVE_BYTES >> 30} GiB, which is refused.")
            digest.update(block)
            file.write(block)
            fraction = min(1.0, size / total) if total else 0.0
            left = (time.monotonic() - start) * (1 - fraction) / fraction if fraction else None
            progress(ProgressReport("download", 0.95 * fraction, left, f"{size / 1e6:.0f} MB"))
    if sha1 and digest.hexdigest() != sha1.lower():
        raise SynthDoseError(
            f"The archive from {url} is damaged or not the one the Model Zoo lists (SHA-1 {digest.hexdigest()}, listed "
            f"{sha1}). Nothing was kept; try again."
        )


def _unpack(archive: Path, folder: Path, name: str) -> Path:
    """Unpack after all names were checked; return the folder that holds ``configs``."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            _check_members(members)
            for member in members:
                if not member.is_dir():
                    path = folder.joinpath(*PurePosixPath(member.filename).parts)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with content.open(member) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target, _BLOCK)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise SynthDoseError(f"The archive of {name} cannot be unpacked: {error}.") from error
    for candidate in (folder, folder / name, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / "configs" / "inference.json").is_file():
            return candidate
    raise SynthDoseError(f"The archive of {name} holds no configs/inference.json: it is no bundle that can be run.")


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise SynthDoseError("The archive unpacks to more files or bytes than a bundle has, which is refused.")
    for member in members:
        path = PurePosixPath(member.filename)
        climbs = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if climbs or is_link or not path.parts:
            raise SynthDoseError(f"The archive holds '{member.filename}', which leads out of its folder or is a link: refused.")
