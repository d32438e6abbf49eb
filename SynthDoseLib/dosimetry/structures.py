"""Dose-volume histograms sampled finer than voxels, from contours or from labels on any grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import DoseMap, LabelMap, SynthDoseError, VoxelGrid
from .contours import ContourBody, evenly_spread
from .histogram import DoseVolumeHistogram

STEPS = 20_000  # equal-volume steps that a histogram keeps: its bins are narrow where the dose changes slowly with volume
SAMPLE_MM = 0.75  # wanted distance of samples in a label
MOST_SAMPLES = 4_000_000
MANY_VOXELS = 200_000  # a label of so many is its voxels: its surface decides nothing
MOST_PER_VOXEL = 5  # along each side
SMOOTH_INTERIOR = 0.15  # share of voxels without a face at the surface, from which a label is given a smooth surface
OUTSIDE_ALLOWED = 1e-3


def contour_histogram(
    dose: DoseMap,
    contours: Sequence[NDArray[np.float64]],
    name: str,
    *,
    slab_mm: float | None = None,
    sigma_Gy: float = float("nan"),
    gas: NDArray[np.bool_] | None = None,
) -> DoseVolumeHistogram:
    """Return the histogram of a structure drawn as contours, which need not know the grid of the dose.

    Parameters
    ----------
    dose : DoseMap
        Its voxels are means over their volume; inside them the dose follows the slope to the neighbours.
    contours : sequence of ndarray, (n, 3)
        Closed planar contours, RAS mm, as `io.read_structures` gives them; see `ContourBody` for what is between them.
    name : str
    slab_mm : float, optional
        Distance of planes, needed if there is only one.
    sigma_Gy : float
        One standard error of the mean dose, if known.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Voxels that are left out, unless the structure is nothing else: their dose is none to tissue.

    Returns
    -------
    DoseVolumeHistogram

    Raises
    ------
    SynthDoseError
        If the structure is empty, damaged, or reaches out of the dose grid by more than 0.1 % of its volume.
    """
    body = ContourBody(contours, slab_mm, name)
    values, volumes, solid, outside = [], [], [], 0.0
    for places, volume in body.pieces():
        ijk = dose.grid.to_ijk(places)
        sampled, inside = _dose_at(dose, ijk)
        outside += float((~inside).sum()) * volume
        values.append(sampled[inside])
        volumes.append(np.full(int(inside.sum()), volume))
        solid.append(_solid_at(gas, ijk[inside]))
    total = sum(float(v.sum()) for v in volumes) + outside
    _require_inside(name, outside, total)
    counted = _unless_none(np.concatenate(solid))
    return _histogram(name, np.concatenate(values)[counted], np.concatenate(volumes)[counted], sigma_Gy)


def label_histogram(
    dose: DoseMap,
    labels: LabelMap,
    organ: str,
    *,
    smooth: bool = True,
    sigma_Gy: float = float("nan"),
    gas: NDArray[np.bool_] | None = None,
) -> DoseVolumeHistogram:
    """Return the histogram of a label, sampled several times per voxel; labels may be on another grid than the dose.

    Parameters
    ----------
    dose : DoseMap
        Its voxels are means over their volume; inside them the dose follows the slope to the neighbours.
    labels : LabelMap
    organ : str
    smooth : bool
        Give the label a smooth surface of the same volume, unless it is so small or thin (a spinal cord of a few voxels across)
        that hardly a voxel lies inside it; otherwise it is made of blocks.
    sigma_Gy : float
        One standard error of the mean dose, if known.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        As for `contour_histogram`.

    Raises
    ------
    SynthDoseError
        If the label is unknown or empty, or reaches out of the dose grid.
    """
    return label_histograms(dose, labels, organs=[organ], smooth=smooth, sigma_Gy={organ: sigma_Gy}, gas=gas)[0]


def label_histograms(
    dose: DoseMap,
    labels: LabelMap,
    *,
    organs: Iterable[str] | None = None,
    smooth: bool = True,
    sigma_Gy: dict[str, float] | None = None,
    gas: NDArray[np.bool_] | None = None,
) -> tuple[DoseVolumeHistogram, ...]:
    """Return the sub-voxel histograms of `organs`, or of every label that has voxels, in the order of the table.

    `gas` is as for `contour_histogram`.
    """
    counts = labels.voxel_counts()
    names = [name for name, count in counts.items() if count] if organs is None else list(organs)
    known = sigma_Gy or {}
    boxes = ndimage.find_objects(labels.labels)  # one pass for all labels
    found = []
    for name in names:
        index = labels.organ(name).index
        if not counts[name]:
            raise SynthDoseError(f"The structure '{name}' is empty: it has no voxel, and so no dose-volume histogram.")
        box = boxes[index - 1]
        mask = labels.labels[box] == index
        found.append(_sampled(dose, labels.grid, mask, box, name, smooth, known.get(name, float("nan")), gas))
    return tuple(found)


def _sampled(
    dose: DoseMap,
    grid: VoxelGrid,
    mask: NDArray[np.bool_],
    box: tuple[slice, ...],
    organ: str,
    smooth: bool,
    sigma_Gy: float,
    gas: NDArray[np.bool_] | None,
) -> DoseVolumeHistogram:
    """Histogram of a label that is cut out of its map to `box`."""
    count = int(np.count_nonzero(mask))
    if count >= MANY_VOXELS and dose.grid.matches(grid):
        solid = _unless_none(mask[mask] if gas is None else ~gas[box][mask])
        values = dose.dose_Gy[box][mask][solid].astype(np.float64)
        return DoseVolumeHistogram(organ, values.size * grid.voxel_volume_ml, values, sigma_Gy)
    corner = np.array([part.start for part in box])
    ijk, volume_ml = _label_samples(mask, corner, grid, count, smooth=smooth and count < MANY_VOXELS)
    ijk = ijk if dose.grid.matches(grid) else dose.grid.to_ijk(grid.to_ras(ijk))
    sampled, inside = _dose_at(dose, ijk)
    _require_inside(organ, float((~inside).sum()), float(inside.size))
    solid = _unless_none(_solid_at(gas, ijk[inside]))
    return _histogram(organ, sampled[inside][solid], volume_ml / inside.size * 1000.0, sigma_Gy)


def _solid_at(gas: NDArray[np.bool_] | None, ijk: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the voxel coordinates (n, 3), all inside the grid, are not in gas."""
    if gas is None:
        return np.ones(len(ijk), bool)
    i, j, k = (np.clip(np.rint(along), 0, size - 1).astype(np.intp) for along, size in zip(ijk.T, gas.shape[::-1], strict=True))
    return np.asarray(~gas[k, j, i])


def _unless_none(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The choice, or everything if it leaves nothing."""
    return chosen if chosen.any() else np.ones_like(chosen)


def _require_inside(name: str, outside: float, total: float) -> None:
    if total > 0 and outside > OUTSIDE_ALLOWED * total:
        raise SynthDoseError(
            f"{outside / total:.1%} of the structure '{name}' lie outside the dose grid, where no dose is known. "
            "Use a dose that covers the structure, or crop the structure to it."
        )


def _dose_at(dose: DoseMap, ijk: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Dose at voxel coordinates (n, 3), and which of them are inside the grid (up to the outer faces of its voxels).

    A voxel's dose is the mean over the voxel. Inside it the dose is taken to change linearly, along each axis with the smaller
    of the differences to both neighbours, and not at all between a higher and a lower one: gradients come out exactly, the
    mean of the voxel stays, and the edge of an organ that beta particles irradiate is not smeared into it. Where the three
    slopes together would make a corner of the voxel negative, they are lessened alike until it is 0.
    """
    shape = dose.grid.shape
    inside = np.ones(len(ijk), bool)
    if not len(ijk):
        return np.zeros(0), inside
    kji = [np.ascontiguousarray(ijk[:, 2 - axis]) for axis in range(3)]
    for at, size in zip(kji, shape, strict=True):
        inside &= (at >= -0.5) & (at <= size - 0.5)
    place = [np.clip(np.rint(at), 0, size - 1).astype(np.intp) for at, size in zip(kji, shape, strict=True)]
    # slopes belong to voxels, of which there are far fewer than places: those of a box around them
    box = tuple(slice(max(0, int(at.min()) - 1), int(at.max()) + 2) for at in place)
    part = dose.dose_Gy[box].astype(np.float64)
    where = tuple(at - side.start for at, side in zip(place, box, strict=True))
    result = part[where]
    slopes: dict[int, NDArray[np.float64]] = {}
    for axis in range(3):
        if shape[axis] < 2:
            continue
        steps = np.diff(part, axis=axis)
        first, last = (np.take(steps, [end], axis=axis) for end in (0, -1))
        # at the faces of the grid there is one neighbour, whose difference counts for both sides
        up, down = np.concatenate([steps, last], axis=axis), np.concatenate([first, steps], axis=axis)
        slopes[axis] = np.where(up * down > 0, np.where(np.abs(up) < np.abs(down), up, down), 0.0)
    deepest = sum((np.abs(slope) for slope in slopes.values()), np.zeros(part.shape)) / 2
    lessened = np.where(deepest > part, np.maximum(part, 0.0) / np.where(deepest > 0, deepest, 1.0), 1.0)
    for axis, slope in slopes.items():
        result += (slope * lessened)[where] * (kji[axis] - place[axis])
    return result, inside


def _label_samples(
    mask: NDArray[np.bool_], corner: NDArray[np.int_], grid: VoxelGrid, count: int, *, smooth: bool
) -> tuple[NDArray[np.float64], float]:
    """Voxel coordinates (n, 3) of evenly spread samples inside a label whose box starts at `corner`, and its volume, ml."""
    box = np.pad(mask, 2).astype(np.float32)
    lower = corner - 2
    spacing_kji = np.array(grid.spacing_mm[::-1])
    most = max(1, int((MOST_SAMPLES / box.size) ** (1 / 3)))
    per_voxel = np.clip(np.ceil(spacing_kji / SAMPLE_MM), 2, MOST_PER_VOXEL).astype(int)
    per_voxel = np.maximum(1, np.minimum(per_voxel, most))
    fine = [(np.arange(n * s) + 0.5) / s - 0.5 for n, s in zip(box.shape, per_voxel, strict=True)]
    wanted = count * int(per_voxel.prod())
    interior = int(np.count_nonzero(ndimage.binary_erosion(box > 0)))
    if smooth and interior >= SMOOTH_INTERIOR * count:
        field = ndimage.gaussian_filter(box, 0.7, mode="constant")
        for axis, places in enumerate(fine):
            field = _interpolate(field, places, axis)
        inside = np.argpartition(field.ravel(), -wanted)[-wanted:]
        kji = np.stack([fine[axis][index] for axis, index in enumerate(np.unravel_index(inside, field.shape))], axis=1)
    else:
        offsets = np.stack(np.meshgrid(*((np.arange(s) + 0.5) / s - 0.5 for s in per_voxel), indexing="ij"), axis=-1)
        voxels = np.argwhere(box > 0)
        kji = (voxels[:, None, :] + offsets.reshape(-1, 3)[None]).reshape(-1, 3)
    kji = kji + lower + evenly_spread(len(kji)) / per_voxel
    return kji[:, ::-1], count * grid.voxel_volume_ml


def _interpolate(field: NDArray[np.float32], places: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Linear interpolation along one axis."""
    lower = np.clip(np.floor(places).astype(int), 0, max(field.shape[axis] - 2, 0))
    shape = [1, 1, 1]
    shape[axis] = -1
    part = np.clip(places - lower, 0, 1).astype(np.float32).reshape(shape)
    upper = np.minimum(lower + 1, field.shape[axis] - 1)
    return np.asarray(np.take(field, lower, axis) * (1 - part) + np.take(field, upper, axis) * part)


def _histogram(
    name: str, dose: NDArray[np.float64], volume_mm3: NDArray[np.float64] | float, sigma_Gy: float
) -> DoseVolumeHistogram:
    """Histogram of samples of one volume or a volume each, in steps of equal volume; lowest and highest sample are kept."""
    if isinstance(volume_mm3, float):
        ordered, share = np.sort(dose), np.full(dose.size, volume_mm3)
    else:
        order = np.argsort(dose)
        ordered, share = dose[order], volume_mm3[order]
    total = float(share.sum())
    middle = (np.cumsum(share) - share / 2) / total
    steps = min(STEPS, max(2, dose.size))
    levels = np.interp((np.arange(steps) + 0.5) / steps, middle, ordered)
    levels[0], levels[-1] = ordered[0], ordered[-1]
    return DoseVolumeHistogram(name, total / 1000.0, levels, sigma_Gy)
