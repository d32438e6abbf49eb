"""Painting organs on a voxel grid so that each gets exactly the number of voxels its mass asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from SynthDoseLib.core import SynthDoseError

from .stylised_reference import TISSUE_INDEX

Floats = NDArray[np.float32]
Field = Callable[[Floats, Floats, Floats], Floats]
"""Maps positions x, y, z (mm, reference person) to a number that grows from the middle of an organ outwards."""

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


class Canvas:
    """Labels and tissues of a person that is being built; positions are those of the reference person, mm.

    Parameters
    ----------
    x, y, z : ndarray of float32, (nk, nj, ni)
        Where each voxel centre lies in the reference person: right, anterior and superior of the middle of
        the vertebra L4, mm.
    voxel_volume_ml : float
    """

    def __init__(self, x: Floats, y: Floats, z: Floats, voxel_volume_ml: float) -> None:
        self.x, self.y, self.z = x, y, z
        self.voxel_volume_ml = voxel_volume_ml
        self.shape = x.shape
        self.labels: NDArray[np.uint16] = np.zeros(self.shape, np.uint16)
        self.tissues: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        self.free: NDArray[np.bool_] = np.ones(self.shape, bool)
        self.abdomen: NDArray[np.bool_] = np.zeros(self.shape, bool)
        self.dome_mm = {1: 0.0, -1: 0.0}  # how much higher the diaphragm stands than drawn, right and left
        self.names: list[str] = []
        # a box of the reference person becomes slices, whatever the pose: the range of x in each column and so on
        self._ranges = [
            (array.min(axis=others), array.max(axis=others)) for array, others in ((z, (1, 2)), (y, (0, 2)), (x, (0, 1)))
        ]

    def slices(self, box: Box) -> tuple[slice, slice, slice]:
        """Slices (k, j, i) that contain every voxel of a box ``((x0, x1), (y0, y1), (z0, z1))``; may be empty."""
        result = []
        for (low, high), (lowest, highest) in zip(box[::-1], self._ranges, strict=True):
            inside = np.flatnonzero((highest >= low) & (lowest <= high))
            result.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        return result[0], result[1], result[2]

    def cropped(self, rows: slice, columns: slice) -> Canvas:
        """Return a canvas without the outer rows and columns; to be called before the first organ."""
        where = (slice(None), rows, columns)
        x, y, z = (np.ascontiguousarray(array[where]) for array in (self.x, self.y, self.z))
        canvas = Canvas(x, y, z, self.voxel_volume_ml)
        canvas.tissues = np.ascontiguousarray(self.tissues[where])
        canvas.free = np.ascontiguousarray(self.free[where])
        return canvas

    def label_of(self, name: str) -> int:
        """Label value of an organ; new names get the next one."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1

    def count(self, mass_g: float, density_g_cm3: float) -> int:
        """Number of voxels that weigh `mass_g`, rounded."""
        return round(mass_g / (density_g_cm3 * self.voxel_volume_ml))

    def claim(
        self,
        name: str,
        box: Box,
        field: Field,
        layers: Sequence[tuple[str, int]],
        *,
        within: NDArray[np.bool_] | None = None,
        inner: Field | None = None,
    ) -> float:
        """Give an organ its voxels: the free ones in `box` with the smallest `field`.

        Parameters
        ----------
        name : str
            Organ; "" paints a tissue without a label.
        box : tuple of 3 (float, float)
            Limits in x, y, z, mm.
        field : callable
        layers : sequence of (str, int)
            Tissue and number of voxels, from the inside outwards.
        within : ndarray of bool, (nk, nj, ni), optional
            Where the organ should be; if there is too little room, it may leave it.
        inner : callable, optional
            Orders the claimed voxels for the layers, if that is not `field` itself (gas rises to the front).

        Returns
        -------
        float
            The field's value at the border of the organ: 1 if its size is the nominal one.

        Raises
        ------
        SynthDoseError
            If there is no room for the organ.
        """
        where = self.slices(box)
        wanted = sum(number for _, number in layers)
        allowed = self.free[where] if within is None else self.free[where] & within[where]
        if within is not None and np.count_nonzero(allowed) < wanted:
            allowed = self.free[where]  # a crowded abdomen: better a bulging wall than a lighter organ
        flat = np.flatnonzero(allowed)
        x, y, z = (array[where].ravel()[flat] for array in (self.x, self.y, self.z))
        value = field(x, y, z) if flat.size else np.empty(0, np.float32)
        if np.isfinite(value).sum() < wanted:
            raise SynthDoseError(
                f"The stylised adult has no room for {name or layers[0][0]}: {wanted} voxels asked, "
                f"{int(np.isfinite(value).sum())} free. Use another seed or a smaller variation."
            )
        if wanted == 0:
            return 1.0
        smallest = np.argpartition(value, wanted - 1)[:wanted]
        smallest = smallest[np.argsort(value[smallest], kind="stable")]
        level = float(value[smallest[-1]])
        if inner is not None:
            order = inner(x[smallest], y[smallest], z[smallest]) + np.where(value[smallest] > 0.8 * level, 1e3, 0.0)
            smallest = smallest[np.argsort(order, kind="stable")]
        chosen = np.unravel_index(flat[smallest], allowed.shape)
        if name:
            self.labels[where][chosen] = self.label_of(name)
        self.free[where][chosen] = False
        tissue = np.repeat(np.array([TISSUE_INDEX[layer] for layer, _ in layers], np.uint8), [number for _, number in layers])
        self.tissues[where][chosen] = tissue
        return level


def ellipsoid(centre: ArrayLike, half_axes: ArrayLike, rotation: NDArray[np.float64] | None = None) -> Field:
    """Field that is 1 on an ellipsoid; `rotation` has the directions of its axes as columns."""
    c = np.asarray(centre, np.float32)
    axes = np.eye(3) if rotation is None else rotation
    m = (axes / np.asarray(half_axes, dtype=np.float64)).T.astype(np.float32)

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        dx, dy, dz = x - c[0], y - c[1], z - c[2]
        total = np.zeros_like(dx)
        for row in m:
            total += (row[0] * dx + row[1] * dy + row[2] * dz) ** 2
        return np.sqrt(total)

    return field


def tube(points: ArrayLike, radii: ArrayLike, *, step_mm: float = 2.0) -> Field:
    """Field that is 1 at the distance `radii` from a smooth line through `points` (n, 3), mm."""
    return tubes([(points, radii)], step_mm=step_mm)


def tubes(lines: Sequence[tuple[ArrayLike, ArrayLike]], *, step_mm: float = 2.0) -> Field:
    """Field of several tubes, each ``(points, radii)``."""
    dense = [_densify(np.asarray(points, np.float64), np.asarray(radii, np.float64), step_mm) for points, radii in lines]
    tree = cKDTree(np.concatenate([points for points, _ in dense]))
    radius = np.concatenate([radii for _, radii in dense])
    reach = 5.0 * float(radius.max())

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        distance, nearest = tree.query(np.stack([x, y, z], axis=-1), distance_upper_bound=reach)
        outside = nearest == radius.size
        return np.asarray(np.where(outside, np.inf, distance / radius[np.where(outside, 0, nearest)]), np.float32)

    return field


def box_of(points: ArrayLike, margin_mm: float) -> Box:
    """Box around points (n, 3) with a margin."""
    array = np.atleast_2d(np.asarray(points, np.float64))
    low, high = array.min(axis=0) - margin_mm, array.max(axis=0) + margin_mm
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1])), (float(low[2]), float(high[2]))


def rotation_to(direction: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> NDArray[np.float64]:
    """Rotation whose third column is `direction`; the second is as near to `up` as it can be."""
    third = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    first = np.cross(np.asarray(up, np.float64), third)
    if np.linalg.norm(first) < 1e-6:
        first = np.cross((0.0, 1.0, 0.0), third)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third], axis=1)


def _densify(
    points: NDArray[np.float64], radii: NDArray[np.float64], step_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Catmull-Rom line through the points, about `step_mm` between samples, with the radius along it."""
    if len(points) == 1:
        return points, np.atleast_1d(radii)
    radii = np.broadcast_to(radii, len(points))
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    line, radius = [points[:1]], [radii[:1]]
    for index in range(len(points) - 1):
        before, first, last, after = padded[index : index + 4]
        count = max(1, int(np.ceil(np.linalg.norm(last - first) / step_mm)))
        t = np.arange(1, count + 1)[:, None] / count
        line.append(
            0.5
            * (
                2 * first
                + (last - before) * t
                + (2 * before - 5 * first + 4 * last - after) * t**2
                + (3 * first - before - 3 * last + after) * t**3
            )
        )
        radius.append(radii[index] + (radii[index + 1] - radii[index]) * t[:, 0])
    return np.concatenate(line), np.concatenate(radius)
