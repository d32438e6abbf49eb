"""A water cylinder with two organs, and the plan for it: small enough that a whole run takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SynthDoseLib.core import LabelMap, VoxelGrid, organ_table
from SynthDoseLib.io import write_segmentation, write_volume

PLAN = """
[image]
path = "ct.nrrd"
modality = "CT"
[segmentation]
path = "labels.seg.nrrd"
[therapy]
nuclide = "Lu-177"
administered_MBq = 1000
administered_at = 2024-01-31T10:00:00
[[activity]]
path = "spect.nrrd"
unit = "Bq/ml"
acquired_at = 2024-02-01T10:00:00
[kinetics]
rest_effective_half_life_h = 60.0
[dose]
histories = 4000
threads = 1
[output]
radiomics = false
scene = false
"""


def grid(size: int = 24, spacing_mm: float = 5.0) -> VoxelGrid:
    """A cube around the origin."""
    return VoxelGrid.from_spacing((size, size, size), (spacing_mm,) * 3)


def body_mask(where: VoxelGrid) -> np.ndarray:
    """A cylinder of 50 mm radius along the body."""
    k, j, i = np.indices(where.shape)
    ras = where.to_ras(np.stack([i, j, k], axis=-1))
    return np.hypot(ras[..., 0], ras[..., 1]) < 50


def hounsfield(where: VoxelGrid) -> np.ndarray:
    """Water in air."""
    return np.where(body_mask(where), 0.0, -1000.0).astype(np.float32)


def labels(where: VoxelGrid) -> LabelMap:
    """A liver on the patient's right, a spleen on the left, and an empty organ."""
    values = np.zeros(where.shape, np.uint16)
    k, j, i = np.indices(where.shape)
    ras = where.to_ras(np.stack([i, j, k], axis=-1))
    values[np.linalg.norm(ras - (25, 0, 0), axis=-1) < 20] = 1
    values[np.linalg.norm(ras - (-25, 0, 0), axis=-1) < 12] = 2
    return LabelMap(where, values, organ_table(["liver", "spleen", "pancreas"]))


def write_patient(folder: Path, plan: str = PLAN) -> Path:
    """Write images, labels and plan; return the path of the plan."""
    where = grid()
    organs = labels(where)
    write_volume(folder / "ct.nrrd", hounsfield(where), where, unit="HU")
    write_segmentation(folder / "labels.seg.nrrd", organs)
    activity = np.where(body_mask(where), 10.0, 0.0).astype(np.float32)
    activity[organs.labels == 1] = 1e5
    write_volume(folder / "spect.nrrd", activity, where, unit="Bq/ml")
    path = folder / "plan.toml"
    path.write_text(plan, encoding="utf-8")
    return path
