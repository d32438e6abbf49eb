"""Write a table and its sidecar so that the same numbers always give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1]
RETRIEVED = "2026-11-21"


def write_table(name: str, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write ``name.npz`` and ``name.json``; `about` holds columns, source, edition, licence, changes and checks."""
    path = FOLDER / f"{name}.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            # numpy.savez would store the time of the run: a rebuilt table would get another checksum
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue(), compresslevel=9)
    write_sidecar(path, about)


def write_text_table(file_name: str, text: str, about: Mapping[str, Any]) -> None:
    """Write a CSV table and its sidecar."""
    path = FOLDER / file_name
    path.write_text(text, encoding="utf-8", newline="\n")
    write_sidecar(path, about)


def write_sidecar(path: Path, about: Mapping[str, Any]) -> None:
    """Write the JSON file that says where the numbers of `path` come from."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    content = {"schema": 1, "file": path.name, **about, "retrieved": RETRIEVED, "sha256": digest}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8", newline="\n")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
