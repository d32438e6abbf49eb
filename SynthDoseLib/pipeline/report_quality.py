"""What a reader should know about a segmentation before believing its doses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..core import ImageVolume, SynthDoseError, VoxelPhantom

SMALL_VOXELS = 50


@dataclass(frozen=True)
class SegmentationRow:
    """One organ of the segmentation.

    Attributes
    ----------
    organ : str
    voxels : int
    volume_ml, mass_g : float
    mean_HU, sd_HU : float or None
        None without a CT, or for an organ without voxels.
    remarks : tuple of str
        "empty", "cut by the image edge", "3 pieces", "only 12 voxels".
    """

    organ: str
    voxels: int
    volume_ml: float
    mass_g: float
    mean_HU: float | None = None
    sd_HU: float | None = None
    remarks: tuple[str, ...] = ()


def segmentation_rows(phantom: VoxelPhantom, ct: ImageVolume | None = None) -> tuple[SegmentationRow, ...]:
    """Return volume, mass, CT numbers and remarks per organ, in the order of the label table.

    Parameters
    ----------
    phantom : VoxelPhantom
    ct : ImageVolume, optional
        HU, on the grid of the phantom.

    Raises
    ------
    SynthDoseError
        If the CT is on another grid.
    """
    if ct is not None and not ct.grid.matches(phantom.grid):
        raise SynthDoseError("The CT is on another grid than the phantom.")
    masses = phantom.mass_g()
    boxes = ndimage.find_objects(np.asarray(phantom.labels.labels, dtype=np.int32))
    rows = []
    for organ in phantom.labels.organs:
        box = boxes[organ.index - 1] if organ.index <= len(boxes) else None
        if box is None:
            rows.append(SegmentationRow(organ.name, 0, 0.0, 0.0, remarks=("empty",)))
            continue
        mask = phantom.labels.labels[box] == organ.index
        voxels = int(np.count_nonzero(mask))
        remarks = []
        if any(s.start == 0 or s.stop == n for s, n in zip(box, phantom.grid.shape, strict=True)):
            remarks.append("cut by the image edge")
        if organ.name != "rest_of_body" and (pieces := _pieces(mask)) > 1:
            remarks.append(f"{pieces} pieces")
        if voxels < SMALL_VOXELS:
            remarks.append(f"only {voxels} voxel{'s' if voxels > 1 else ''}")
        values = None if ct is None else ct.values[box][mask].astype(np.float64)
        mean, spread = (None, None) if values is None else (float(values.mean()), float(values.std()))
        volume = voxels * phantom.grid.voxel_volume_ml
        rows.append(SegmentationRow(organ.name, voxels, volume, masses[organ.name], mean, spread, tuple(remarks)))
    return tuple(rows)


def _pieces(mask: np.ndarray) -> int:
    """Number of separate parts that hold at least 1 % of the organ (26 neighbours)."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    return int(np.count_nonzero(sizes >= 0.01 * mask.sum())) if count > 1 else count
