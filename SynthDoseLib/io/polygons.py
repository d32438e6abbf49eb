"""Closed polygons to pixels and back, in pixel coordinates: the centre of pixel (row, column) is at (column, row)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_MOST_MOVED = 0.21  # pixels: the outline of one pixel, a square on its corner, moves by that


def polygon_area(points: NDArray[np.float64]) -> float:
    """Area enclosed by a polygon (n, 2), by the shoelace formula; a hole joined by a channel counts negatively."""
    x, y = points[:, 0], points[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def fill_polygons(polygons: Iterable[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres are enclosed by an odd number of polygons: holes and keyholes come out right.

    Parameters
    ----------
    polygons : iterable of ndarray of float64, (n, 2)
        Corners (column, row); the last is joined to the first.
    shape : tuple of 2 int
        Rows, columns.

    Returns
    -------
    ndarray of bool, `shape`

    Examples
    --------
    >>> square = np.array([(-0.5, -0.5), (1.5, -0.5), (1.5, 0.5), (-0.5, 0.5)])
    >>> fill_polygons([square], (2, 3)).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])
    """
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), np.int32)
    for polygon in polygons:
        start, end = polygon, np.roll(polygon, -1, axis=0)
        upward = start[:, 1] <= end[:, 1]
        low, high = np.where(upward[:, None], start, end), np.where(upward[:, None], end, start)
        # half-open in the row, so that a corner exactly on a row of centres is crossed once
        first = np.clip(np.ceil(low[:, 1]), 0, rows).astype(np.int64)
        last = np.clip(np.ceil(high[:, 1]), 0, rows).astype(np.int64)
        count = last - first
        edge = np.repeat(np.arange(len(polygon)), count)
        row = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (high[edge, 0] - low[edge, 0]) / (high[edge, 1] - low[edge, 1])
        at = low[edge, 0] + (row - low[edge, 1]) * slope
        column = np.clip(np.ceil(at), 0, columns).astype(np.int64)
        np.add.at(crossings, (row, column), 1)
    return np.asarray(np.cumsum(crossings[:, :columns], axis=1) % 2 == 1)


def outline_mask(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Polygons (n, 2) in (column, row) around the pixels of a mask; each hole is joined to its outline by a channel.

    The lines run about half-way between pixel centres in and out, so that `fill_polygons` gives the same mask back; each
    polygon encloses the area of its pixels.
    """
    import contourpy

    padded = np.pad(mask, 1).astype(np.float64)
    filled = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset).filled(0.5, 2.0)
    outlines = []
    for points, offsets in zip(*filled, strict=True):
        rings = [points[a : b - 1] - 1.0 for a, b in pairwise(offsets)]
        outline = rings[0]
        # the rightmost hole first: a channel to the right then meets no hole that is not joined yet
        for hole in sorted(rings[1:], key=lambda ring: -float(ring[:, 0].max())):
            outline = _join(outline, hole)
        outlines.append(_with_area_of_pixels(outline, len(rings) - 1))
    return outlines


def _with_area_of_pixels(outline: NDArray[np.float64], holes: int) -> NDArray[np.float64]:
    """Scale an outline that cuts corners: each convex one takes 1/8 of a pixel, each other one gives it, four more are convex.

    Where corners would move by more than a fifth of a pixel (many holes), the outline stays as it is.
    """
    area = polygon_area(outline)
    middle = outline.mean(axis=0)
    scaled = middle + (outline - middle) * np.sqrt((area + (1 - holes) / 2) / area)
    moved = float(np.linalg.norm(scaled - outline, axis=1).max())
    return scaled if moved <= _MOST_MOVED else outline


def _join(outline: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Connect a hole to the nearest corner of its outline by a channel of no width."""
    start = int(hole[:, 0].argmax())
    distance = np.linalg.norm(outline - hole[start], axis=1)
    near = int(distance.argmin())
    ring = np.concatenate([np.roll(hole, -start, axis=0), hole[start : start + 1]])
    return np.concatenate([outline[: near + 1], ring, outline[near:]])
