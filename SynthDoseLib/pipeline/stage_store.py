"""Stages whose inputs have not changed are taken from an earlier run: organs of a network, and the transported dose."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core import ImageVolume, LabelMap, Organ, atomic_path
from ..segmentation import SegmentedImage
from .plan import SegmentationPlan

KEPT = 4
"""Results of each stage that a store holds; the oldest go first."""


class StageStore:
    """A folder of results by the hash of what decided them.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entry(self, stage: str, key: str) -> Path:
        """Folder of a result, made if need be; the oldest of the stage are removed."""
        path = self._folder / f"{stage}-{key[:24]}"
        path.mkdir(parents=True, exist_ok=True)
        entries = sorted(self._folder.glob(f"{stage}-*"), key=lambda entry: entry.stat().st_mtime)
        for old in entries[: max(0, len(entries) - KEPT)]:
            if old != path:
                for file in old.iterdir():
                    file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    old.rmdir()
        return path

    def organs(self, plan: SegmentationPlan, image: ImageVolume, find: Callable[[], SegmentedImage]) -> SegmentedImage:
        """Organs that a bundle found in this image before, or else what `find` returns.

        Only bundles are kept: the other ways are as quick as the reading, and an uncertainty is not kept.
        """
        if not plan.bundle or plan.uncertainty or plan.ensemble:
            return find()
        entry = self.entry("organs", _organs_key(plan, image))
        with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
            record = json.loads((entry / "organs.json").read_text(encoding="utf-8"))
            organs = tuple(Organ(**{**organ, "colour": tuple(organ["colour"])}) for organ in record["organs"])
            with np.load(entry / "labels.npz", allow_pickle=False) as arrays:
                return SegmentedImage(LabelMap(image.grid, arrays["labels"], organs, tuple(record["notes"])))
        found = find()
        with atomic_path(entry / "labels.npz") as temporary:
            np.savez_compressed(temporary, labels=found.labels.labels)
        record = {"organs": [dataclasses.asdict(organ) for organ in found.labels.organs], "notes": found.labels.notes}
        with atomic_path(entry / "organs.json") as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
        return found


def _organs_key(plan: SegmentationPlan, image: ImageVolume) -> str:
    bundle = Path(plan.bundle)
    files = sorted(path for path in bundle.rglob("*") if path.is_file()) if bundle.is_dir() else [bundle][: bundle.is_file()]
    stated: dict[str, Any] = {
        "version": __version__,
        "plan": dataclasses.asdict(plan),
        "bundle": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        "grid": image.grid.ijk_to_ras.tolist(),
        "modality": image.modality,
    }
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(image.values).tobytes())
    return digest.hexdigest()
