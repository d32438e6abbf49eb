"""Contours on planes as a body: what lies between the planes and beyond the last ones, in small pieces of known volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import SynthDoseError

SAME_PLANE_MM = 0.1
NEXT_PLANE = 1.5  # planes further apart than this many usual distances bound separate pieces
PIXEL_MM, SLICE_MM = 0.4, 0.4  # wanted; both grow with the structure
MOST_PIXELS = 350  # along one side
MOST_PIECES = 2_000_000  # of a large structure


@dataclass(frozen=True, eq=False)
class ContourBody:
    """A structure drawn as closed contours on parallel planes.

    Parameters
    ----------
    contours : sequence of ndarray, (n, 3)
        Corners in RAS, mm; the last is joined to the first. On one plane, what an odd number of contours enclose is inside.
    slab_mm : float, optional
        Distance of planes; needed where a structure has a single plane, otherwise taken from the contours.
    name : str
        For messages.

    Raises
    ------
    SynthDoseError
        If there is no contour, one has fewer than three corners, the planes are not parallel, or `slab_mm` is needed.
    """

    contours: Sequence[NDArray[np.float64]]
    slab_mm: float | None = None
    name: str = "structure"

    def __post_init__(self) -> None:
        contours = tuple(np.asarray(c, dtype=np.float64) for c in self.contours)
        if not contours:
            raise SynthDoseError(f"The structure '{self.name}' is empty: it has no contour.")
        for contour in contours:
            if contour.ndim != 2 or contour.shape[1] != 3 or len(contour) < 3 or not np.isfinite(contour).all():
                raise SynthDoseError(f"A contour of '{self.name}' needs three or more corners (n, 3); found {contour.shape}.")
        object.__setattr__(self, "contours", contours)
        if self.slab_mm is not None and not self.slab_mm > 0:
            raise SynthDoseError(f"The distance of planes has to be positive; found {self.slab_mm} mm.")

    @property
    def volume_ml(self) -> float:
        """Volume of the body."""
        return sum(volume * len(points) for points, volume in self.pieces()) / 1000.0

    def pieces(self) -> Iterator[tuple[NDArray[np.float64], float]]:
        """Yield, thin slice by thin slice, positions (n, 3), RAS mm, and the volume, mm3, that each of them stands for.

        Between planes the outline changes gradually (mean of the signed distances to both outlines), with the area of a smooth
        curve through the areas of the planes. Beyond the last plane that curve is followed down to area 0 if it gets there
        before the next plane would come, which is right for spheres and ellipsoids; otherwise the structure ends half-way.
        """
        axes = _axes(self.contours, self.name)
        heights, planes = _planes(self.contours, axes)
        gaps = np.diff(heights)
        usual = self.slab_mm if self.slab_mm is not None else (float(np.median(gaps)) if gaps.size else None)
        if usual is None:
            raise SynthDoseError(
                f"The structure '{self.name}' has contours on one plane only. Give the distance of the slices (slab_mm)."
            )
        breaks = np.flatnonzero(gaps > NEXT_PLANE * usual) + 1
        for part in np.split(np.arange(heights.size), breaks):
            yield from _stack(heights[part], [planes[n] for n in part], axes, usual)


def _axes(contours: Sequence[NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    """Rows: two directions in the planes and their normal."""
    largest = max(contours, key=lambda c: float(np.ptp(c, axis=0).max()))
    _, _, rows = np.linalg.svd(largest - largest.mean(axis=0))
    for contour in contours:
        if np.ptp(contour @ rows[2]) > max(1.0, 10 * SAME_PLANE_MM):
            raise SynthDoseError(f"The contours of '{name}' do not lie on parallel planes.")
    return np.asarray(rows)


def _planes(
    contours: Sequence[NDArray[np.float64]], axes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[list[NDArray[np.float64]]]]:
    """Heights, increasing, and the outlines (n, 2) on each."""
    flat = [(float((c @ axes[2]).mean()), c @ axes[:2].T) for c in contours]
    heights: list[float] = []
    planes: list[list[NDArray[np.float64]]] = []
    for height, outline in sorted(flat, key=lambda item: item[0]):
        if heights and height - heights[-1] < SAME_PLANE_MM:
            planes[-1].append(outline)
        else:
            heights.append(height)
            planes.append([outline])
    return np.array(heights), planes


def _stack(
    heights: NDArray[np.float64], planes: list[list[NDArray[np.float64]]], axes: NDArray[np.float64], usual: float
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Pieces of planes that follow each other."""
    corners = np.concatenate([outline for plane in planes for outline in plane])
    low, size = corners.min(axis=0), np.ptp(corners, axis=0)
    box = float(size.prod()) * float(heights[-1] - heights[0] + usual)
    coarse = (box / MOST_PIECES) ** (1 / 3)
    pixel = max(min(PIXEL_MM, float(size.min()) / 40), float(size.max()) / MOST_PIXELS, coarse, 1e-3)
    thick = max(SLICE_MM, coarse)
    shape = np.ceil(size / pixel).astype(int) + 4
    origin = low - 2 * pixel
    masks, areas = zip(*(_fill(plane, origin, pixel, shape) for plane in planes), strict=True)
    distances = [_signed_distance(mask) for mask in masks]
    area = np.array(areas)
    columns, rows = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    flat = origin + pixel * (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5)

    spread = evenly_spread(int(shape[0] * shape[1]))
    shifts = cycle(evenly_spread(997))

    def piece(
        height: float, thickness: float, distance: NDArray[np.float64], wanted: float
    ) -> tuple[NDArray[np.float64], float]:
        count = max(1, min(round(wanted / pixel**2), distance.size))
        inside = np.sort(np.argpartition(distance.ravel(), -count)[-count:])
        # every slice shifts the pattern of its places by itself, so that slices do not repeat each other
        offset = (spread[:count] + 0.5 + next(shifts)) % 1.0 - 0.5
        moved = flat[inside] + pixel * offset[:, :2]
        along = height + thickness * offset[:, 2]
        return moved @ axes[:2] + along[:, None] * axes[2], wanted * thickness / count

    for n in range(heights.size - 1):
        gap = float(heights[n + 1] - heights[n])
        steps = max(2, round(gap / thick))
        for share in (np.arange(steps) + 0.5) / steps:
            distance = (1 - share) * distances[n] + share * distances[n + 1]
            wanted = _area_between(area, heights, n, float(share))
            if wanted > 0:
                yield piece(float(heights[n] + share * gap), gap / steps, distance, wanted)
    for end, outward in ((0, -1.0), (heights.size - 1, 1.0)):
        length, curve = _end_cap(area, heights, end, usual)
        steps = max(3, round(length / (thick / 2)))
        for beyond in (np.arange(steps) + 0.5) / steps * length:
            wanted = max(0.0, curve(beyond))
            if wanted > 0:
                yield piece(float(heights[end] + outward * beyond), length / steps, distances[end], wanted)


def evenly_spread(count: int) -> NDArray[np.float64]:
    """Points spread evenly over the unit cube around 0, (count, 3): without them pieces would line up in steps of dose."""
    # additive recurrence with the powers of the root of x^4 = x + 1
    root = 1.2207440846057596
    steps = np.arange(1, count + 1)[:, None] / root ** np.arange(1, 4)
    return np.asarray(steps - np.floor(steps) - 0.5)


def _fill(
    outlines: Sequence[NDArray[np.float64]], origin: NDArray[np.float64], pixel: float, shape: NDArray[np.int_]
) -> tuple[NDArray[np.float64], float]:
    """Share of every pixel's row that is inside (rows, columns), and the area, mm2; outlines cross even-odd."""
    columns, rows = int(shape[0]), int(shape[1])
    fraction = np.zeros((rows, columns + 1))
    area = 0.0
    fine = 4  # scan lines per row of pixels
    for line in range(rows * fine):
        y = origin[1] + (line + 0.5) * pixel / fine
        crossings = []
        for outline in outlines:
            a, b = outline, np.roll(outline, -1, axis=0)
            hit = (a[:, 1] <= y) != (b[:, 1] <= y)
            part = (y - a[hit, 1]) / (b[hit, 1] - a[hit, 1])
            crossings.append(a[hit, 0] + part * (b[hit, 0] - a[hit, 0]))
        x = (np.sort(np.concatenate(crossings)) - origin[0]) / pixel
        for left, right in zip(x[::2], x[1::2], strict=True):
            area += (right - left) * pixel * pixel / fine
            first, last = int(left), int(right)
            row = fraction[line // fine]
            if first == last:
                row[first] += (right - left) / fine
            else:
                row[first] += (first + 1 - left) / fine
                row[first + 1 : last] += 1 / fine
                row[last] += (right - last) / fine
    return fraction[:, :columns], area


def _signed_distance(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the outline in pixels, positive inside; near the outline from the share of the pixel that is inside."""
    inside = fraction >= 0.5
    if not inside.any():
        return fraction - fraction.max()
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    near = (fraction > 0) & (fraction < 1)
    # a pixel beside the outline is 1 (or -1) away in whole pixels; its share says where between
    return np.where(near, fraction - 0.5, distance - np.sign(distance) * 0.5)


def _parabola(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    """Value of the parabola (line, constant) through three (two, one) points."""
    return float(np.polyval(np.polyfit(x - x[0], y, x.size - 1), at - x[0]))


def _area_between(area: NDArray[np.float64], heights: NDArray[np.float64], n: int, share: float) -> float:
    """Area between planes n and n + 1: mean of the parabolas that go through one plane more on either side.

    Areas of spheres, ellipsoids, cones and cylinders are parabolas in height, and come out right. Bounded by what two planes
    can mean, so that a sudden change does not swing beyond.
    """
    at = float(heights[n] + share * (heights[n + 1] - heights[n]))
    values, weights = [], []
    for first, weight in ((n - 1, 1 - share), (n, share)):
        if first >= 0 and first + 3 <= area.size:
            values.append(_parabola(heights[first : first + 3], area[first : first + 3], at))
            weights.append(weight)
    linear = float((1 - share) * area[n] + share * area[n + 1])
    if not values or sum(weights) == 0:
        return linear
    smooth = float(np.average(values, weights=weights))
    return float(np.clip(smooth, 0.75 * linear, 1.25 * max(area[n], area[n + 1])))


def _end_cap(
    area: NDArray[np.float64], heights: NDArray[np.float64], end: int, usual: float
) -> tuple[float, Callable[[float], float]]:
    """Length of what lies beyond the first or last plane, and the area there as a function of the distance from it."""
    order = slice(None, 3) if end == 0 else slice(None, -4, -1)
    near_area, near_height = area[order], np.abs(heights[order] - heights[end])
    if near_area.shape == (3,):
        # towards the structure heights count negative
        curve = np.polynomial.Polynomial.fit(-near_height, near_area, 2, domain=[-1, 1], window=[-1, 1])
        zeros = np.asarray(curve.roots(), dtype=np.complex128)
        roots = [float(r.real) for r in zeros if abs(r.imag) < 1e-3 * usual and 0 < r.real <= usual]
        if roots and curve(0.5 * min(roots)) > 0:
            return min(roots), lambda beyond: float(curve(beyond))
    return usual / 2, lambda beyond: float(area[end])
