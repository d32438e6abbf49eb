"""Implicit solids from which people are built: fields that are 1 on their nominal surface and less inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .people_canvas import Box, Field, Floats

Points = Sequence[Sequence[float]]
REACH = 2.4  # how far beyond the nominal radius a tube's field is known


def ellipsoid(
    centre: ArrayLike, half: ArrayLike, direction: ArrayLike = (0.0, 0.0, 1.0), up: ArrayLike = (0.0, 1.0, 0.0)
) -> Field:
    """Field of an ellipsoid whose third axis is `direction` and whose second is as near to `up` as it can be."""
    c = np.asarray(centre, np.float32)
    rows = (rotation_to(direction, up) / np.asarray(half, np.float64)).T.astype(np.float32)

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        dx, dy, dz = x - c[0], y - c[1], z - c[2]
        total = sum(((r[0] * dx + r[1] * dy) + r[2] * dz) ** 2 for r in rows)
        return np.sqrt(np.asarray(total, np.float32))

    return field


def plate(
    centre: ArrayLike,
    normal: ArrayLike,
    half: tuple[float, float],
    thickness: float,
    *,
    up: ArrayLike = (0.0, 0.0, 1.0),
    bend: tuple[float, float] = (0.0, 0.0),
    rim: float = 0.0,
) -> Field:
    """Field of a bent plate: elliptic outline, half thickness in mm, curvatures in 1/mm, thicker by `rim` mm at its edge."""
    c = np.asarray(centre, np.float32)
    axes = rotation_to(normal, up).T.astype(np.float32)

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        dx, dy, dz = x - c[0], y - c[1], z - c[2]
        u, v, w = ((a[0] * dx + a[1] * dy) + a[2] * dz for a in axes)
        radius = (u / half[0]) ** 2 + (v / half[1]) ** 2
        offset = np.abs(w - bend[0] * u**2 - bend[1] * v**2)
        return np.maximum(np.sqrt(radius), offset / (thickness + rim * np.minimum(radius, 1.0) ** 2))

    return field


def smallest(*fields: Field) -> Field:
    """Union of solids."""
    return lambda x, y, z: reduce(np.minimum, [field(x, y, z) for field in fields])


def mirrored(field: Field, side: int) -> Field:
    """The solid itself (side 1) or its mirror image on the other side of the body (-1)."""
    return (lambda x, y, z: field(-x, y, z)) if side < 0 else field


def mirror_box(box: Box, side: int) -> Box:
    """Box for `mirrored`."""
    return ((-box[0][1], -box[0][0]), box[1], box[2]) if side < 0 else box


class Tubes:
    """Tubes along smooth lines; `flat` below 1 stretches their sections along z.

    Each line is (points, radii), mm; radii one per point or one for all.
    """

    def __init__(self, lines: Sequence[tuple[ArrayLike, ArrayLike]], *, flat: float = 1.0) -> None:
        self.flat = flat
        pieces = [_segments(np.asarray(p, np.float64), np.asarray(r, np.float64)) for p, r in lines]
        self.starts, self.ends, self.start_radii, self.end_radii = (
            np.concatenate([piece[n] for piece in pieces]).astype(np.float32) for n in range(4)
        )

    def box(self, margin: float = 1.6) -> Box:
        """Box around the tubes out to `margin` times their radii."""
        radii = np.maximum(self.start_radii, self.end_radii)[:, None] * margin + 3.0
        stretch = np.array([1.0, 1.0, 1.0 / self.flat])
        low = np.minimum(self.starts, self.ends) - radii * stretch
        high = np.maximum(self.starts, self.ends) + radii * stretch
        (x0, y0, z0), (x1, y1, z1) = low.min(axis=0).tolist(), high.max(axis=0).tolist()
        return (x0, x1), (y0, y1), (z0, z1)

    def __call__(self, x: Floats, y: Floats, z: Floats) -> Floats:
        shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
        result = np.full(shape, np.inf, np.float32)
        if not result.size:
            return result
        levels = z[:, 0, 0]
        xs, ys = x[:, 0, :], y[:, :, 0]
        # voxels wider than the tube still have to find their distance
        spare = 1.6 * max(_step(levels), _step(xs[0]), _step(ys[0]))
        for a, b, ra, rb in zip(self.starts, self.ends, self.start_radii, self.end_radii, strict=True):
            reach = REACH * max(ra, rb) + spare
            low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
            k = _range(levels, low[2] - reach * (1 / self.flat - 1), high[2] + reach * (1 / self.flat - 1))
            if k is None:
                continue
            # of the slices concerned, the first and the last bound what is concerned in x and y
            i = _range2(xs[k], low[0], high[0])
            j = _range2(ys[k], low[1], high[1])
            if i is None or j is None:
                continue
            dx, dy, dz = x[k, :, i] - a[0], y[k, j, :] - a[1], (z[k] - a[2]) * np.float32(self.flat)
            way = (b - a) * np.array([1, 1, self.flat], np.float32)
            length = float(way @ way)
            if length > 0:
                t = np.clip((dx * (way[0] / length) + dz * (way[2] / length)) + dy * (way[1] / length), 0, 1)
                distance = (dx - t * way[0]) ** 2 + (dy - t * way[1]) ** 2 + (dz - t * way[2]) ** 2
                value = np.sqrt(distance) / (ra + t * (rb - ra))
            else:
                value = np.sqrt(dx**2 + dy**2 + dz**2) / ra
            part = result[k, j, i]
            np.minimum(part, value, out=part)
        return result


def tube(points: ArrayLike, radii: ArrayLike, *, flat: float = 1.0) -> Tubes:
    """One tube; see `Tubes`."""
    return Tubes([(points, radii)], flat=flat)


def rotation_to(direction: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> NDArray[np.float64]:
    """Rotation whose third column is `direction`; the second is as near to `up` as it can be."""
    third = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    first = np.cross(np.asarray(up, np.float64), third)
    if np.linalg.norm(first) < 1e-6:
        first = np.cross((1.0, 0.0, 0.0), third)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third], axis=1)


def box_around(centre: Sequence[float], reach: float | Sequence[float]) -> Box:
    """Box with a half width, the same along all axes or one per axis, mm."""
    half = np.broadcast_to(np.asarray(reach, np.float64), 3)
    (x0, x1), (y0, y1), (z0, z1) = ((c - h, c + h) for c, h in zip(centre, half.tolist(), strict=True))
    return (x0, x1), (y0, y1), (z0, z1)


def smooth_line(points: NDArray[np.float64], per_piece: int) -> NDArray[np.float64]:
    """Catmull-Rom line through points (n, m), `per_piece` samples between neighbours."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, first, last, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(per_piece) / per_piece)[None, :, None]
    b, f, e, a = (part[:, None, :] for part in (before, first, last, after))
    line = 0.5 * (2 * f + (e - b) * t + (2 * b - 5 * f + 4 * e - a) * t**2 + (3 * f - b - 3 * e + a) * t**3)
    return np.concatenate([line.reshape(-1, points.shape[1]), points[-1:]])


def _segments(points: NDArray[np.float64], radii: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    radii = np.broadcast_to(radii, len(points))
    if len(points) == 1:
        return points, points, radii, radii
    pieces = np.linalg.norm(np.diff(points, axis=0), axis=1)
    per_piece = int(np.clip(np.ceil(np.median(pieces) / max(float(np.median(radii)), 2.0)), 1, 6))
    line = smooth_line(np.column_stack([points, radii]), per_piece)
    radius = np.maximum(line[:, 3], 0.3 * radii.min())
    return line[:-1, :3], line[1:, :3], radius[:-1], radius[1:]


def _step(values: NDArray[np.float32]) -> float:
    return float(abs(values[-1] - values[0]) / max(values.size - 1, 1))


def _range(values: NDArray[np.float32], low: float, high: float) -> slice | None:
    inside = np.flatnonzero((values >= low) & (values <= high))
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else None


def _range2(values: NDArray[np.float32], low: float, high: float) -> slice | None:
    ends = [found for found in (_range(values[0], low, high), _range(values[-1], low, high)) if found is not None]
    if not ends:
        return None
    return slice(min(s.start for s in ends), max(s.stop for s in ends))
