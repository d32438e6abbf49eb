"""How well two segmentations agree: overlap, surface distance and volume per organ, by MONAI's metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import LabelMap, MissingPackageError, SynthDoseError, resample_labels
from .cleaning import Shape, organ_shapes
from .tables import organ_group

TOLERANCE_MM = 2.0
_MARGIN = 2  # voxels around both organs: their surfaces need an outside


@dataclass(frozen=True)
class OrganAgreement:
    """One organ in two segmentations.

    Attributes
    ----------
    organ : str
    volume_a_ml, volume_b_ml : float
    dice : float
        2 |A and B| / (|A| + |B|); nan if neither has it.
    hd95_mm : float
        95th percentile of the distances between the surfaces, the larger of both directions; nan unless both have it.
    surface_dice : float
        Share of both surfaces that lies within the tolerance of the other; nan unless both have it.
    """

    organ: str
    volume_a_ml: float
    volume_b_ml: float
    dice: float
    hd95_mm: float
    surface_dice: float

    @property
    def volume_difference_percent(self) -> float:
        """Of B from A, in per cent of A; nan if A has none."""
        return 100 * (self.volume_b_ml / self.volume_a_ml - 1) if self.volume_a_ml > 0 else math.nan


def compare_labels(
    a: LabelMap, b: LabelMap, organs: Sequence[str] = (), *, tolerance_mm: float = TOLERANCE_MM
) -> tuple[OrganAgreement, ...]:
    """Compare two segmentations organ by organ.

    Parameters
    ----------
    a, b : LabelMap
        `a` is what percentages refer to; `b` is brought to its grid (nearest neighbour) if it is on another.
    organs : sequence of str
        Organs or groups (see `organ_group`); those that either has if empty.
    tolerance_mm : float
        Of the surface Dice.

    Raises
    ------
    SynthDoseError
        If neither has an organ that is asked for, nothing overlaps, or the tolerance is negative.
    MissingPackageError
        Without MONAI.

    References
    ----------
    Dice, Ecology 26 (1945) 297-302; Nikolov et al., J. Med. Internet Res. 23 (2021) e26151 (surface Dice).
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SynthDoseError(f"The tolerance of the surface Dice has to be 0 or more; found {tolerance_mm} mm.")
    b = resample_labels(b, a.grid)
    names = {organ.name for labels in (a, b) for organ in labels.organs}
    wanted = tuple(organs) or tuple(dict.fromkeys(organ.name for labels in (a, b) for organ in labels.organs))
    for name in wanted:
        if not names & set(organ_group(name)):
            raise SynthDoseError(f"Neither segmentation has '{name}'. They have: {', '.join(sorted(names))}.")
    found = (_agreement(a, b, name, tolerance_mm) for name in wanted)
    return tuple(row for row in found if row is not None)


def common_organs(a: LabelMap, b: LabelMap) -> tuple[str, ...]:
    """Organs with voxels in both, without containers such as the body."""
    filled = [{name for name, count in labels.voxel_counts().items() if count} for labels in (a, b)]
    return tuple(
        o.name for o in a.organs if o.name in filled[0] & filled[1] and not organ_shapes().get(o.name, Shape()).container
    )


def _mask(labels: LabelMap, name: str) -> NDArray[np.bool_]:
    members = set(organ_group(name)) if all(organ.name != name for organ in labels.organs) else {name}
    return np.asarray(np.isin(labels.labels, [organ.index for organ in labels.organs if organ.name in members]))


def _agreement(a: LabelMap, b: LabelMap, name: str, tolerance_mm: float) -> OrganAgreement | None:
    masks = [_mask(labels, name) for labels in (a, b)]
    boxes = ndimage.find_objects((masks[0] | masks[1]).astype(np.uint8))
    if not boxes:
        return None
    box = tuple(slice(max(0, s.start - _MARGIN), s.stop + _MARGIN) for s in boxes[0])
    one, other = (mask[box] for mask in masks)
    sizes = [int(one.sum()), int(other.sum())]
    voxel_ml = a.grid.voxel_volume_ml
    volumes = [size * voxel_ml for size in sizes]
    dice = 2 * int((one & other).sum()) / sum(sizes)
    if not all(sizes):
        return OrganAgreement(name, volumes[0], volumes[1], dice, math.nan, math.nan)
    hd95, surface = _surfaces(one, other, a.grid.spacing_mm[::-1], tolerance_mm)
    return OrganAgreement(name, volumes[0], volumes[1], dice, hd95, surface)


def _surfaces(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float]:
    try:
        import torch
        from monai.metrics import compute_hausdorff_distance, compute_surface_dice
    except ImportError as error:
        missing = (error.name or "monai").split(".")[0]
        raise MissingPackageError(missing, "Comparing surfaces", 'pip install "synthdose[segmentation]"') from None
    pair = [torch.from_numpy(np.pad(mask, 1))[None, None] for mask in (other, one)]
    spacing = [float(s) for s in spacing_mm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about its own arguments
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
        surface = compute_surface_dice(
            *pair, class_thresholds=[tolerance_mm], include_background=True, spacing=spacing, use_subvoxels=True
        )
    return float(hd95), float(surface)
