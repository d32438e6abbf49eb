"""How well two images lie on each other: numbers, and slices for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import ImageVolume, LabelMap, VoxelGrid, resample
from .transforms import SpatialTransform, sampled, voxel_centres
from .values import REST

Images = NDArray[np.float32]
BINS = 64
CT_BODY_HU = -300.0
SMALLEST_ML, LARGEST_ML = 20.0, 3000.0  # of organs whose place is followed
MARGIN_MM = 20.0  # around an organ; the outer half is its surroundings
STANDS_OUT = 2.0  # mean of an organ over nearly the highest of its surroundings
ACTIVITY_BODY = 0.02  # of the 99.9th percentile


@dataclass(frozen=True)
class RegistrationQuality:
    """Numbers of one registration, over the body in the reference.

    Attributes
    ----------
    nmi_before, nmi_after : float
        Normalised mutual information, (H(A) + H(B))/H(A, B): 1 for images that share nothing, 2 for equal ones.
    body_dice_before, body_dice_after : float
        Overlap of the bodies (2 for the volume in common over the sum of both).
    mean_displacement_mm, largest_displacement_mm : float
        Of points of the body.
    smallest_jacobian, largest_jacobian : float
        Local change of volume.
    folded_fraction : float
        Share of the body where space folds (Jacobian 0 or less).
    """

    nmi_before: float
    nmi_after: float
    body_dice_before: float
    body_dice_after: float
    mean_displacement_mm: float
    largest_displacement_mm: float
    smallest_jacobian: float
    largest_jacobian: float
    folded_fraction: float

    def summary(self) -> str:
        """One sentence for people."""
        return (
            f"normalised mutual information {self.nmi_before:.3f} before, {self.nmi_after:.3f} after; Dice of the body "
            f"{self.body_dice_before:.3f}, {self.body_dice_after:.3f}; displacement {self.mean_displacement_mm:.1f} mm in "
            f"the mean, {self.largest_displacement_mm:.1f} mm at most; local change of volume {self.smallest_jacobian:.2f} to "
            f"{self.largest_jacobian:.2f}"
        )


def residual_displacement_mm(images: Sequence[ImageVolume], labels: LabelMap) -> tuple[float, int] | None:
    """How far organs lie from their common place in registered scans: standard deviation along one axis, and of how many.

    The centre of the activity above its surroundings is found in every organ that stands out in every scan, in a box around
    it; what scatters from scan to scan is what registration, breathing and filling left. Root mean square of the axes, median
    of the organs. None if no organ stands out, or there is one scan.

    Parameters
    ----------
    images : sequence of ImageVolume
        Activity, registered to `labels`.
    labels : LabelMap
    """
    if len(images) < 2:
        return None
    boxes = ndimage.find_objects(labels.labels)
    spreads = []
    for organ in labels.organs:
        box = boxes[organ.index - 1] if 0 < organ.index <= len(boxes) else None
        if box is None or organ.name in (REST, "body", "skeleton"):
            continue
        mask = labels.labels[box] == organ.index
        volume_ml = int(mask.sum()) * labels.grid.voxel_volume_ml
        if not SMALLEST_ML <= volume_ml <= LARGEST_ML:
            continue
        centres = [_activity_centre(image, labels, box, organ.index) for image in images]
        known = [centre for centre in centres if centre is not None]
        if len(known) == len(images):
            spreads.append(float(np.sqrt(np.var(np.array(known), axis=0, ddof=1).mean())))
    return (float(np.median(spreads)), len(spreads)) if spreads else None


def _activity_centre(image: ImageVolume, labels: LabelMap, box: tuple[slice, ...], index: int) -> NDArray[np.float64] | None:
    """Centre, RAS mm, of what is above the surroundings near an organ; None if it does not stand out."""
    steps = np.asarray(labels.grid.spacing_mm[::-1])
    margin = np.ceil(MARGIN_MM / steps).astype(int)
    start = [max(0, s.start - m) for s, m in zip(box, margin, strict=True)]
    stop = [min(n, s.stop + m) for s, m, n in zip(box, margin, labels.grid.shape, strict=True)]
    near = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    mask = labels.labels[near] == index
    grid = labels.grid.crop((start[0], start[1], start[2]), (mask.shape[0], mask.shape[1], mask.shape[2]))
    values = resample(image.values, image.grid, grid).astype(np.float64)
    away = ndimage.distance_transform_edt(~mask, sampling=steps)
    shell = (away > MARGIN_MM / 2) & (away <= MARGIN_MM)
    if not shell.any():
        return None
    background = float(np.percentile(values[shell], 90))
    if float(values[mask].mean()) < STANDS_OUT * max(background, 1e-300):
        return None
    weight = np.where(away <= MARGIN_MM / 2, np.maximum(values - background, 0), 0)
    ras = grid.to_ras(np.argwhere(weight > 0)[:, ::-1])
    return np.asarray(np.average(ras, axis=0, weights=weight[weight > 0]))


def body_of(values: Images, modality: str) -> NDArray[np.bool_]:
    """Largest connected region above air (CT) or above a fiftieth of the highest activity."""
    threshold = CT_BODY_HU if modality == "CT" else ACTIVITY_BODY * float(np.percentile(values, 99.9))
    inside = values > threshold
    if modality != "CT":
        inside = ndimage.binary_closing(inside, iterations=2)
    parts, count = ndimage.label(inside)
    if count < 2:
        return inside
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def normalised_mutual_information(a: Images, b: Images, mask: NDArray[np.bool_], bins: int = BINS) -> float:
    """(H(A) + H(B))/H(A, B) of two arrays of one shape inside a mask, from a joint histogram between their percentiles.

    References
    ----------
    Studholme, Hill & Hawkes, Pattern Recognit. 32 (1999) 71-86.
    """
    if not mask.any():
        return 1.0
    joint = np.histogram2d(_spread(a[mask]), _spread(b[mask]), bins=bins)[0]
    joint /= joint.sum()
    own = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    both = _entropy(joint)
    return float(own / both) if both > 0 else 2.0


def _spread(values: Images) -> NDArray[np.float64]:
    """Values between their percentiles from 0 to 1."""
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values.astype(np.float64) - low) / max(float(high - low), 1e-12), 0, 1)


def _entropy(share: NDArray[np.float64]) -> float:
    filled = share[share > 0]
    return float(-(filled * np.log(filled)).sum())


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """2 |A ∩ B|/(|A| + |B|); 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def assess(
    fixed: Images, grid: VoxelGrid, moving: Images, moving_grid: VoxelGrid, transform: SpatialTransform, modality: str
) -> RegistrationQuality:
    """Compare the images on the grid of the reference, before and after."""
    fill = -1000.0 if modality == "CT" else 0.0
    before = resample(moving, moving_grid, grid, fill=fill)
    after = before if transform.is_identity else sampled(moving, moving_grid, transform, grid, fill=fill)
    body = body_of(fixed, modality)
    region = ndimage.binary_dilation(body, iterations=2)
    places = voxel_centres(grid)[body]
    moved = np.linalg.norm(transform.points(places) - places, axis=-1) if places.size else np.zeros(1)
    jacobian = transform.jacobian(grid)[body] if body.any() else np.ones(1)
    return RegistrationQuality(
        normalised_mutual_information(fixed, before, region),
        normalised_mutual_information(fixed, after, region),
        dice(body, body_of(before, modality)),
        dice(body, body_of(after, modality)),
        float(moved.mean()),
        float(moved.max()),
        float(jacobian.min()),
        float(jacobian.max()),
        float((jacobian <= 0).mean()),
    )


def checkerboard(a: Images, b: Images, fields: int = 8) -> Images:
    """Picture of two images in turn, in `fields` squares along the longer side; arrays (rows, columns) of one shape."""
    size = max(1, -(-max(a.shape) // fields))
    rows, columns = np.indices(a.shape) // size
    return np.where((rows + columns) % 2 == 0, a, b)


def difference(a: Images, b: Images) -> Images:
    """`a` minus `b`."""
    return np.asarray(a - b, np.float32)
