"""Painting a person on a voxel grid: organs take free voxels in order of a field until their mass is reached.

Two frames of coordinates: the *reference* frame is that of the adult man for whom shapes are drawn (mm from the middle of
the vertebra L4: x right, y front, z up); the *body* frame is that of the person, mm. `BodyFrame` maps one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import SynthDoseError

Floats = NDArray[np.float32]
Field = Callable[[Floats, Floats, Floats], Floats]
"""Maps broadcastable x, y, z (mm) to a number that grows from the middle of an organ outwards; 1 is its nominal surface."""

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
Slices = tuple[slice, slice, slice]
OUTSIDE_PENALTY = 50.0


@dataclass(frozen=True)
class Layer:
    """A number of voxels of one label ("" for none) and one tissue, counted from the inside of an organ outwards."""

    label: str
    tissue: str
    voxels: int


class BodyFrame:
    """Maps heights and widths between the reference man and a person.

    Parameters
    ----------
    knots : sequence of (float, float)
        Landmarks: z of the reference man, z of the person, mm; increasing.
    widths, depths : sequence of (float, float)
        z of the reference man, and the factor on x or y there.
    """

    def __init__(
        self,
        knots: Sequence[tuple[float, float]],
        widths: Sequence[tuple[float, float]],
        depths: Sequence[tuple[float, float]],
    ) -> None:
        self.reference_z, self.body_z = (np.array(column, np.float64) for column in zip(*knots, strict=True))
        self._widths, self._depths = np.array(widths, np.float64).T, np.array(depths, np.float64).T

    def z_to_reference(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights of the reference man at heights of the person; the end pieces go on."""
        return _interpolate(z, self.body_z, self.reference_z)

    def z_to_body(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights of the person at heights of the reference man."""
        return _interpolate(z, self.reference_z, self.body_z)

    def scale(self, z_reference: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factors on x and y at heights of the reference man."""
        (z_wide, wide), (z_deep, deep) = self._widths, self._depths
        return np.interp(z_reference, z_wide, wide), np.interp(z_reference, z_deep, deep)

    def point(self, x: float, y: float, z: float) -> NDArray[np.float64]:
        """Place (3,) of a point of the reference man in the person, mm."""
        sx, sy = self.scale(np.array([z]))
        return np.array([x * sx[0], y * sy[0], self.z_to_body(np.array([z]))[0]])


def _interpolate(values: NDArray[np.float64], xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.interp(values, xs, ys)
    low = ys[0] + (values - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    high = ys[-1] + (values - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.where(values < xs[0], low, np.where(values > xs[-1], high, inside))


class Canvas:
    """Labels and tissues of a person under construction.

    Parameters
    ----------
    frame : BodyFrame
    axes : tuple of 3 ndarray
        x (descending), y (descending) and z (ascending) of the voxel centres in the body frame, mm.
    tissues : mapping of str to (int, float)
        Place in the tissue table and density, g/cm3.
    """

    def __init__(
        self,
        frame: BodyFrame,
        axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
        tissues: dict[str, tuple[int, float]],
    ) -> None:
        self.frame = frame
        self.x, self.y, self.z = axes
        self.tissue_table = tissues
        self.shape = (self.z.size, self.y.size, self.x.size)
        self.voxel_mm = tuple(float(abs(axis[1] - axis[0])) for axis in axes)
        self.voxel_volume_ml = float(np.prod(self.voxel_mm)) / 1000.0
        self.labels: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        self.tissues: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)  # 0: free
        self.names: list[str] = []
        self.asked_g: dict[str, float] = {}
        self._z_reference = frame.z_to_reference(self.z)
        self._sx, self._sy = frame.scale(self._z_reference)

    def slices(self, box: Box, body_frame: bool = False) -> Slices:
        """Slices (k, j, i) that hold every voxel centre of a box; may be empty."""
        z = self.z if body_frame else self._z_reference
        layers = np.flatnonzero((z >= box[2][0]) & (z <= box[2][1]))
        if layers.size == 0:
            return slice(0, 0), slice(0, 0), slice(0, 0)
        k = slice(int(layers[0]), int(layers[-1]) + 1)
        pieces = [k]
        for axis, scale, (low, high) in ((self.y, self._sy, box[1]), (self.x, self._sx, box[0])):
            factors = np.ones(1) if body_frame else scale[k]
            lowest, highest = float((low * factors).min()), float((high * factors).max())
            inside = np.flatnonzero((axis >= lowest) & (axis <= highest))
            pieces.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        return pieces[0], pieces[1], pieces[2]

    def coordinates(self, where: Slices, body_frame: bool = False) -> tuple[Floats, Floats, Floats]:
        """Broadcastable x (k, 1, i), y (k, j, 1) and z (k, 1, 1) of voxels, mm."""
        k, j, i = where
        x, y, z = self.x[None, None, i], self.y[None, j, None], self.z[k, None, None]
        if not body_frame:
            x, y = x / self._sx[k, None, None], y / self._sy[k, None, None]
            z = self._z_reference[k, None, None]
        else:
            x, y = np.repeat(x, z.shape[0], axis=0), np.repeat(y, z.shape[0], axis=0)
        return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)

    def count(self, mass_g: float, tissue: str) -> int:
        """Number of voxels of a tissue that weigh `mass_g`, rounded."""
        return round(mass_g / (self.tissue_table[tissue][1] * self.voxel_volume_ml))

    def layer(self, label: str, tissue: str, mass_g: float, *, target: str = "") -> Layer:
        """Voxels of a tissue with a mass, g, which is remembered as asked for the label (or for `target`)."""
        name = target or label
        if name:
            self.asked_g[name] = self.asked_g.get(name, 0.0) + mass_g
        return Layer(label, tissue, self.count(mass_g, tissue))

    def gas(self, label: str, volume_ml: float) -> Layer:
        """Gas inside an organ; it weighs next to nothing and is not counted to what was asked."""
        return Layer(label, "gas", round(volume_ml / self.voxel_volume_ml))

    def label_of(self, name: str) -> int:
        """Label value of an organ; new names get the next one."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1

    def claim(
        self,
        box: Box,
        field: Field,
        layers: Sequence[Layer],
        *,
        body_frame: bool = False,
        within: Callable[[Floats, Floats, Floats], NDArray[np.bool_]] | None = None,
        rising: int = 0,
        shell: bool = False,
        one_piece: bool = False,
    ) -> float:
        """Give layers their voxels: the free ones in `box` with the smallest `field`, from the inside outwards.

        Parameters
        ----------
        box : tuple of 3 (float, float)
            Limits in x, y, z, mm, in the frame of `field`.
        field : callable
        layers : sequence of Layer
        body_frame : bool
            Whether box and field are in the body frame instead of the reference one.
        within : callable, optional
            Where the organ should be; it leaves it only when there is no more room.
        rising : int
            The voxels of that many first layers are sorted anew, from the front backwards (gas rises in a supine person).
        shell : bool
            Layers go by the distance from the surface that the organ has got, not by `field`: a wall then closes where a
            neighbour dents the organ.
        one_piece : bool
            Voxels that do not hang together by their faces with the largest part are given up for free ones at its surface.

        Returns
        -------
        float
            The field at the border of the organ: 1 if its size is the nominal one.

        Raises
        ------
        SynthDoseError
            If there is no room.
        """
        layers = [layer for layer in layers if layer.voxels > 0]
        wanted = sum(layer.voxels for layer in layers)
        if wanted == 0:
            return 1.0
        where = self.slices(box, body_frame)
        x, y, z = self.coordinates(where, body_frame)
        shape = self.tissues[where].shape
        flat = np.flatnonzero(self.tissues[where].ravel() == 0)
        value = np.broadcast_to(np.asarray(field(x, y, z), np.float32), shape).ravel()[flat]
        if within is not None:
            allowed = np.broadcast_to(within(x, y, z), shape).ravel()[flat]
            value = np.where(allowed, value, value + np.float32(OUTSIDE_PENALTY))
        room = int(np.isfinite(value).sum())
        if room < wanted:
            raise SynthDoseError(
                f"This person has no room for {layers[-1].label or layers[-1].tissue}: {wanted} voxels asked, {room} free. "
                "Take another seed, a smaller variation, or a height and weight nearer to the median of the age."
            )
        smallest = np.argpartition(value, wanted - 1)[:wanted] if wanted < value.size else np.arange(value.size)
        if one_piece:
            smallest = _one_piece(smallest, value, flat, shape)
        smallest = smallest[np.argsort(value[smallest], kind="stable")]
        level = float(value[smallest[-1]])
        if shell:
            region = np.zeros(shape, bool)
            region.ravel()[flat[smallest]] = True
            depth = ndimage.distance_transform_edt(np.pad(region, 1), sampling=self.voxel_mm[::-1])[1:-1, 1:-1, 1:-1]
            # the field decides among voxels that are equally deep
            order = -depth.ravel()[flat[smallest]] + 0.5 * value[smallest] / max(level, 1e-6)
            smallest = smallest[np.argsort(order, kind="stable")]
        if rising:
            inner = sum(layer.voxels for layer in layers[:rising])
            pockets = 28 * np.clip(np.sin(x / 24) + np.sin(z / 17 + x / 60), -1, 0.9)
            depth = np.broadcast_to(-y - pockets, shape).ravel()[flat[smallest[:inner]]]
            smallest[:inner] = smallest[:inner][np.argsort(depth, kind="stable")]
        chosen = np.unravel_index(flat[smallest], shape)
        counts = [layer.voxels for layer in layers]
        tissue = [self.tissue_table[layer.tissue][0] for layer in layers]
        label = [self.label_of(layer.label) if layer.label else 0 for layer in layers]
        self.tissues[where][chosen] = np.repeat(np.array(tissue, np.uint8), counts)
        self.labels[where][chosen] = np.repeat(np.array(label, np.uint8), counts)
        return level if level < OUTSIDE_PENALTY else 2.0

    def fill(self, box: Box, condition: Callable[[Floats, Floats, Floats], NDArray[np.bool_]], label: str, tissue: str) -> None:
        """Give every free voxel of a box (reference frame) where `condition` holds to a label ("" for none) and a tissue."""
        where = self.slices(box)
        chosen = (self.tissues[where] == 0) & condition(*self.coordinates(where))
        self.tissues[where][chosen] = self.tissue_table[tissue][0]
        if label:
            self.labels[where][chosen] = self.label_of(label)


def _one_piece(chosen: NDArray[np.intp], value: Floats, flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """As many voxels as chosen, but connected by their faces: the largest part, grown where the field is smallest.

    Parameters
    ----------
    chosen : ndarray of int, (n,)
        Places in `value` and `flat`.
    value : ndarray of float32, (m,)
        Field of the free voxels.
    flat : ndarray of int, (m,)
        Where these are in a box of `shape`.
    """
    region = np.zeros(np.prod(shape), bool)
    region[flat[chosen]] = True
    parts, number = ndimage.label(region.reshape(shape))
    if number == 1:
        return chosen
    field = np.full(region.size, np.inf, np.float32)
    field[flat] = value
    # a part in a closed pocket between other organs could not grow to the size asked
    pockets, _ = ndimage.label(np.isfinite(field).reshape(shape))
    roomy = np.bincount(pockets.ravel()) >= chosen.size
    roomy[0] = False
    sizes = np.bincount(parts[roomy[pockets]], minlength=number + 1)
    region = (parts == sizes[1:].argmax() + 1).ravel()
    missing = chosen.size - int(region.sum())
    seen = ndimage.binary_dilation(region.reshape(shape)).ravel() & np.isfinite(field)
    front = [(float(field[n]), int(n)) for n in np.flatnonzero(seen & ~region)]
    heapify(front)
    steps = (shape[1] * shape[2], shape[2], 1)
    while front and missing:
        _, place = heappop(front)
        region[place] = True
        missing -= 1
        k, rest = divmod(place, steps[0])
        for position, size, step in zip((k, *divmod(rest, steps[1])), shape, steps, strict=True):
            for near in ([place - step] if position > 0 else []) + ([place + step] if position < size - 1 else []):
                if not seen[near] and np.isfinite(field[near]):
                    seen[near] = True
                    heappush(front, (float(field[near]), near))
    return chosen if missing else np.flatnonzero(region[flat])


class Shells:
    """Shells of muscle, fat and skin around a body: distance of every voxel from the drawn muscle surface, kept small.

    Attributes
    ----------
    distance : ndarray of int16, (nk, nj, ni)
        In steps of 0.02 mm; negative inside.
    thickness : ndarray of uint8, (nk, nj, ni)
        How thick the fat is there relative to elsewhere, in steps of 1/40.
    """

    STEP_MM = 0.02
    FARTHEST_MM = 200.0

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.distance: NDArray[np.int16] = np.full(canvas.shape, np.iinfo(np.int16).max, np.int16)
        self.thickness: NDArray[np.uint8] = np.full(canvas.shape, 40, np.uint8)

    def set(self, k: slice, distance_mm: Floats, thickness: Floats) -> None:
        """Set the slices `k`."""
        self.distance[k] = np.clip(distance_mm / self.STEP_MM, -32_000, 32_000)
        self.thickness[k] = np.clip(thickness * 40, 1, 255)

    def take(self, layer: Layer, *, base_mm: float = 0.0, fat_mm: float = 0.0, relative: bool = False) -> float:
        """Give a layer the free voxels nearest to the inside.

        The order is that of the distance beyond `base_mm` plus `fat_mm` times the relative thickness, or with `relative` of the
        distance beyond `base_mm` over the relative thickness. Return the value reached, mm.
        """
        canvas = self.canvas
        where = np.flatnonzero(
            (canvas.tissues.reshape(-1) == 0) & (self.distance.reshape(-1) < self.FARTHEST_MM / self.STEP_MM)
        )
        distance = self.distance.reshape(-1)[where].astype(np.float32) * np.float32(self.STEP_MM) - np.float32(base_mm)
        thickness = self.thickness.reshape(-1)[where].astype(np.float32) / 40
        value = distance / thickness if relative else distance - fat_mm * thickness
        wanted = min(max(layer.voxels, 0), where.size)
        if wanted == 0:
            return 0.0
        chosen = np.argpartition(value, wanted - 1)[:wanted]
        canvas.tissues.reshape(-1)[where[chosen]] = canvas.tissue_table[layer.tissue][0]
        if layer.label:
            canvas.labels.reshape(-1)[where[chosen]] = canvas.label_of(layer.label)
        return float(value[chosen].max())
