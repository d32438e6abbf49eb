"""Downloading a bundle of the MONAI Model Zoo, when the user asks for it by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core import Progress, ProgressReport, SynthDoseError, silent
from .archive import bundle_root, unpack
from .bundle_folder import bundle_store, find_bundle, read_bundle, shipped_bundles

INDEX_URL = "https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"
"""Index of the Model Zoo: per bundle and version where its archive is, and its SHA-1."""

MAX_ARCHIVE_BYTES = 4 << 30
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_BLOCK = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class BundleOffer:
    """What the Model Zoo says about a bundle before anything is downloaded.

    Attributes
    ----------
    name, version, url : str
    sha1 : str
        Of the archive; the only checksum the index gives.
    size_bytes : int or None
        None if the server does not say.
    licence : str
        First line of the bundle's licence file, "" if there is none.
    """

    name: str
    version: str
    url: str
    sha1: str
    size_bytes: int | None = None
    licence: str = ""

    def __str__(self) -> str:
        size = "of unknown size" if self.size_bytes is None else f"{self.size_bytes / 1e6:.1f} MB"
        return (
            f"{self.name} {self.version}: {size}, licence: {self.licence or 'not stated'}, SHA-1 {self.sha1 or 'not stated'}, "
            f"from {self.url}"
        )


def look_up_bundle(name: str, version: str | None = None, *, index_url: str = INDEX_URL) -> BundleOffer:
    """Ask the Model Zoo for size, licence and checksum of a bundle; nothing is downloaded.

    Raises
    ------
    SynthDoseError
        If there is no connection, or no such bundle.
    """
    if not _NAME.fullmatch(name):
        raise SynthDoseError(f"'{name}' is not a name of a Model Zoo bundle (letters, digits, _, - and .).")
    url, sha1, found = _look_up(name, version, index_url)
    with _open(url) as stream:
        size = int(stream.headers.get("Content-Length") or 0) or None
    return BundleOffer(name, found, url, sha1, size, _licence(name, index_url))


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
    parent = Path(folder) if folder is not None else bundle_store()
    if not _NAME.fullmatch(name):
        raise SynthDoseError(f"'{name}' is not a name of a Model Zoo bundle (letters, digits, _, - and .).")
    target = parent / name
    if (target / "configs" / "inference.json").is_file():
        return target
    progress(ProgressReport("download", 0.0, None, f"looking up {name}"))
    offer = look_up_bundle(name, version, index_url=index_url)
    progress(ProgressReport("download", 0.0, None, str(offer)))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    except OSError as error:
        raise SynthDoseError(f"Cannot write to {parent}: {error.strerror}. Give another folder.") from error
    try:
        archive = work / "bundle.zip"
        _download(offer.url, archive, offer.sha1, progress)
        unpack(archive, work / "unpacked")
        unpacked = bundle_root(work / "unpacked", archive.name)
        read_bundle(unpacked)  # what cannot be run is not kept
        os.replace(unpacked, target)
    except OSError as error:
        reason = error.strerror or error
        raise SynthDoseError(f"Cannot keep the bundle {name} {offer.version} in {parent}: {reason}.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(ProgressReport("download", 1.0, 0.0, f"{name} {offer.version} is in {target}"))
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


def _licence(name: str, index_url: str) -> str:
    """First line of the licence file that lies beside the bundle's sources; "" if there is none."""
    try:
        with _open(f"{index_url.rsplit('/', 1)[0]}/{name}/LICENSE") as stream:
            lines = stream.read(4096).decode("utf-8", errors="replace").splitlines()
    except (SynthDoseError, OSError):
        return ""
    return " ".join(next((line for line in lines if line.strip()), "").split())[:80]


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
