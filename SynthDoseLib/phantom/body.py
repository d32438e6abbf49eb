"""Finding the patient in a CT: without couch, table, blankets and the air around."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid

BODY_HU = -300.0
PADDING_HU = -1500.0  # scanners fill what they did not see with -2000 or less
RIM_HU = -850.0  # a surface voxel with 15 % tissue
OPENING_MM = 3.0  # couch shells are thinner than twice this, chest walls are not
WORKING_SPACING_MM = 3.0
SECOND_PART_FRACTION = 0.03  # arms and legs can be parts of their own
SECOND_PART_MEAN_HU = -150.0  # foam, wood and straps are lighter


def find_body(ct: ImageVolume, threshold_hu: float = BODY_HU) -> NDArray[np.bool_]:
    """Outline the patient in a CT.

    Voxels above the threshold, after an opening that cuts thin couch shells and cables off, form parts; the largest one is the
    body, others of at least 3 % of its size and tissue-like CT numbers (arms, legs) go with it. Air inside (lungs,
    bowel, throat) is filled slice by slice, and surface voxels that are partly air are taken in.

    Parameters
    ----------
    ct : ImageVolume
        CT numbers, HU.
    threshold_hu : float
        Between air and fat.

    Returns
    -------
    ndarray of bool, (nk, nj, ni)

    Raises
    ------
    SynthDoseError
        If nothing in the image is denser than the threshold.
    """
    tissue = np.asarray(ct.values > threshold_hu)
    if not tissue.any():
        raise SynthDoseError(
            f"No voxel of the CT is above {threshold_hu:g} HU (highest: {float(ct.values.max()):g} HU): no body. "
            "Check that the image is a CT in Hounsfield units (hu_offset in the plan shifts other scales)."
        )
    spacing_kji = np.asarray(ct.grid.spacing_mm)[::-1]
    factor = np.maximum(1, np.floor(WORKING_SPACING_MM / spacing_kji + 1e-3)).astype(int)
    # the margin keeps a couch at the box's border apart from a patient cut by the image's border
    box = _bounding_box(tissue, margin=2 * int(factor.max()))
    inner, values = tissue[box], ct.values[box]
    coarse, light = _block_fraction(inner, factor) >= 0.5, spacing_kji * factor
    opened = _open(coarse, OPENING_MM, light)
    parts, count = ndimage.label(opened if opened.any() else coarse)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = int(sizes.argmax())
    keep = np.zeros(count + 1, bool)
    keep[largest] = True
    candidates = [int(n) for n in np.flatnonzero(sizes >= SECOND_PART_FRACTION * sizes[largest]) if n != largest]
    if candidates:
        sampled = values[tuple(slice(f // 2, None, f) for f in factor)]
        matching = parts[tuple(slice(0, n) for n in sampled.shape)]
        means = ndimage.mean(sampled, matching, candidates)
        keep[candidates] = np.asarray(means) > SECOND_PART_MEAN_HU
    core = keep[parts]
    # what the opening rounded off comes back: tissue within its reach
    grown = _within(core, 2.5 * OPENING_MM, light)
    body = np.zeros_like(tissue)
    fine = _repeat(grown, factor, inner.shape) & inner
    body[box] = _largest_touching(fine, _repeat(core, factor, inner.shape))
    # the rim can close a pocket of air: it is filled too
    return fill_air(_with_rim(fill_air(body, ct.grid), ct.values), ct.grid)


def fill_air(mask: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.bool_]:
    """Fill what a mask encloses in axial slices (the slices across the axis nearest to superior)."""
    axis = 2 - int(np.abs(grid.directions[2]).argmax())
    box = _bounding_box(mask, margin=1)
    structure = ndimage.generate_binary_structure(3, 1)
    structure[tuple(slice(None) if n != axis else slice(0, 3, 2) for n in range(3))] = False
    holes, count = ndimage.label(~mask[box], structure)
    outside = np.zeros(count + 1, bool)
    for n in range(3):
        if n != axis:
            outside[np.take(holes, 0, axis=n)] = True
            outside[np.take(holes, -1, axis=n)] = True
    outside[0] = False
    result = mask.copy()
    result[box] |= ~outside[holes]
    return result


def largest_parts(mask: NDArray[np.bool_], grid: VoxelGrid) -> NDArray[np.bool_]:
    """The largest connected part of a mask after an opening of `OPENING_MM`, and others of at least 3 % of its size."""
    spacing_kji = np.asarray(grid.spacing_mm)[::-1]
    opened = _open(mask, OPENING_MM, spacing_kji)
    core, count = ndimage.label(opened if opened.any() else mask)
    sizes = np.bincount(core.ravel(), minlength=count + 1)
    sizes[0] = 0
    return _largest_touching(mask, (sizes >= SECOND_PART_FRACTION * max(1, sizes.max()))[core])


def _with_rim(body: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Add the surface voxels that are partly air: without them a patient loses half a voxel of skin all around."""
    box = _bounding_box(body, margin=1)
    result = body.copy()
    inner = body[box]
    near = np.zeros_like(inner)
    for axis in range(3):
        after, before = (tuple(part if n == axis else slice(None) for n in range(3)) for part in (slice(1, None), slice(-1)))
        near[after] |= inner[before]
        near[before] |= inner[after]
    near &= values[box] > RIM_HU
    result[box] |= near
    return result


def _largest_touching(mask: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Parts of `mask` that contain voxels of `core`."""
    parts, count = ndimage.label(mask)
    keep = np.zeros(count + 1, bool)
    keep[parts[core]] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _open(mask: NDArray[np.bool_], radius_mm: float, spacing_kji: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Morphological opening by a ball; the image's border does not erode."""
    padded = np.pad(mask, 1, mode="edge")
    opened = _within(~_within(~padded, radius_mm, spacing_kji), radius_mm, spacing_kji)
    return np.asarray(opened[1:-1, 1:-1, 1:-1] & mask)


def _within(mask: NDArray[np.bool_], radius_mm: float, spacing_kji: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels no farther than a radius from one of a mask: a ball of few voxels, row by row, is quicker than distances."""
    sk, sj, si = (float(s) for s in spacing_kji)
    result = np.zeros_like(mask)
    rows: dict[int, NDArray[np.bool_]] = {}
    for dk in range(-int(radius_mm / sk), int(radius_mm / sk) + 1):
        for dj in range(-int(radius_mm / sj), int(radius_mm / sj) + 1):
            steps = np.arange(int(radius_mm / si) + 1)
            half = int(np.count_nonzero(np.sqrt((dk * sk) ** 2 + (dj * sj) ** 2 + (steps * si) ** 2) <= radius_mm)) - 1
            if half < 0 or abs(dk) >= mask.shape[0] or abs(dj) >= mask.shape[1]:
                continue
            if half not in rows:
                wide = ndimage.maximum_filter1d(mask.view(np.uint8), 2 * half + 1, axis=2, mode="constant")
                rows[half] = wide.view(bool)
            (to_k, from_k), (to_j, from_j) = (
                (slice(max(0, d), n + min(0, d)), slice(max(0, -d), n - max(0, d)))
                for d, n in ((dk, mask.shape[0]), (dj, mask.shape[1]))
            )
            result[to_k, to_j] |= rows[half][from_k, from_j]
    return result


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    box = []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if used.size == 0:
            return (slice(None),) * 3
        box.append(slice(max(0, int(used[0]) - margin), min(mask.shape[axis], int(used[-1]) + 1 + margin)))
    return tuple(box)


def _block_fraction(mask: NDArray[np.bool_], factor: NDArray[np.int64]) -> NDArray[np.float32]:
    padding = [(0, int(-n % f)) for n, f in zip(mask.shape, factor, strict=True)]
    padded = np.pad(mask, padding, mode="edge")
    shape = [part for n, f in zip(padded.shape, factor, strict=True) for part in (n // int(f), int(f))]
    return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32))


def _repeat(mask: NDArray[np.bool_], factor: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    for axis, count in enumerate(factor):
        mask = np.repeat(mask, int(count), axis=axis)
    return mask[tuple(slice(0, n) for n in shape)]
