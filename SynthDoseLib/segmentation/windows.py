"""Sliding-window inference that holds only the slab under way, in memory or in a temporary file."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Progress, ProgressReport, SynthDoseError
from .memory import Window

PLANES = 8  # of the finished slab that are handed on at once


class Scratch:
    """Arrays of an inference: in memory while the allowance lasts, then in files of a temporary folder.

    Parameters
    ----------
    allowance : int
        Bytes of memory that all arrays together may take.

    Attributes
    ----------
    in_memory, on_disk : int
        Bytes given out so far.
    """

    def __init__(self, allowance: int) -> None:
        self._left = allowance
        self._folder: Path | None = None
        self._files = 0
        self.in_memory = self.on_disk = 0

    def zeros(self, shape: tuple[int, ...], dtype: type, what: str) -> NDArray[Any]:
        """Return an array of zeros.

        Raises
        ------
        SynthDoseError
            If it fits neither into the allowance nor onto the disk.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            self.in_memory += size
            return np.zeros(shape, dtype)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="synthdose-"))
        free = shutil.disk_usage(self._folder).free
        if size > 0.9 * free:
            raise SynthDoseError(
                f"{what} need {size / 1e9:.2g} GB, but only {max(0, self._left) / 1e9:.2g} GB of memory may be used and "
                f"{free / 1e9:.2g} GB are free in {self._folder.parent}. Crop the image, free some space, or take a coarser "
                "bundle."
            )
        self.on_disk += size
        self._files += 1
        return np.memmap(self._folder / f"{self._files}.bin", dtype, "w+", shape=shape)

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def scratch(allowance: int) -> Iterator[Scratch]:
    """Give a `Scratch` whose files are gone afterwards, whatever happens."""
    space = Scratch(allowance)
    try:
        yield space
    finally:
        space.close()


@dataclass(frozen=True)
class Slab:
    """Some planes of a result.

    Attributes
    ----------
    place : tuple of 3 slice
        Where in the volume, (i, j, k).
    logits : Tensor, (channels, i, j, k)
        Weighted mean of all windows that saw a voxel.
    """

    place: tuple[slice, slice, slice]
    logits: Any


class Counter:
    """Counts windows and reports how far an inference is, with an estimate of the time left."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._done, self._progress, self._start = max(1, total), 0, progress, time.monotonic()

    def add(self, windows: int) -> None:
        """Tell the caller, who may raise `Cancelled`."""
        self._done += windows
        fraction = min(1.0, self._done / self._total)
        left = (time.monotonic() - self._start) * (1 - fraction) / fraction
        done = min(self._done, self._total)
        self._progress(ProgressReport("segment", 0.98 * fraction, left, f"window {done} of {self._total}"))


def window_starts(size: int, side: int, overlap: float) -> tuple[int, ...]:
    """First voxels of the windows that cover an axis, placed as MONAI places them.

    Examples
    --------
    >>> window_starts(100, 40, 0.25)
    (0, 30, 60)
    >>> window_starts(30, 40, 0.25)
    (0,)
    """
    if side >= size:
        return (0,)
    step = max(1, int(side * (1 - overlap)))
    return tuple(min(n * step, size - side) for n in range(math.ceil((size - side) / step) + 1))


def window_count(shape: Sequence[int], window: Window) -> int:
    """Windows that cover `shape`."""
    return math.prod(len(window_starts(n, side, window.overlap)) for n, side in zip(shape, window.roi, strict=True))


def sweep_axis(shape: Sequence[int]) -> int:
    """Axis along which the volume is swept: the longest, so that the slab under way is small."""
    return max(range(3), key=lambda axis: shape[axis])


def buffer_shape(shape: Sequence[int], window: Window) -> tuple[int, int, int]:
    """Voxels of the slab under way, the sweep axis first."""
    axis = sweep_axis(shape)
    rest = [max(shape[a], window.roi[a]) for a in range(3) if a != axis]
    return window.roi[axis], rest[0], rest[1]


def slide(predict: Callable[[Any], Any], volume: Any, window: Window, space: Scratch, place: Any) -> Iterator[Slab]:
    """Run a network over a volume, window by window; hand on what no later window sees.

    The result is that of MONAI's `sliding_window_inference` (same windows, weights and padding), but only as many planes as
    a window is deep are held at once.

    Parameters
    ----------
    predict : callable
        (batch, 1, i, j, k) to (batch, channels, i, j, k), both on `place`; may raise `Cancelled`.
    volume : Tensor of float32, (1, 1, ni, nj, nk)
        In the processor's memory.
    window : Window
    space : Scratch
        Where the slab under way is kept.
    place : torch.device

    Yields
    ------
    Slab
        In order along the longest axis; each voxel is in just one.
    """
    import torch
    from monai.data.utils import compute_importance_map

    shape = tuple(int(n) for n in volume.shape[2:])
    volume, before = _padded(volume, window)
    axis = sweep_axis(shape)
    order = (axis, *(a for a in range(3) if a != axis))
    back = tuple(int(n) for n in np.argsort(order))
    moved = volume[0, 0].permute(order)
    roi = [window.roi[a] for a in order]
    starts = [window_starts(n, side, window.overlap) for n, side in zip(moved.shape, roi, strict=True)]
    settings = {key: window.settings[key] for key in ("mode", "sigma_scale") if key in window.settings}
    weight = compute_importance_map(window.roi, **settings).permute(order)
    depth = (roi[0], *moved.shape[1:])
    total = torch.from_numpy(space.zeros((window.channels, *depth), np.float32, "The sums of the network's output"))
    seen = torch.from_numpy(space.zeros(depth, np.float32, "The weights of the windows"))
    inner = [slice(before[a], before[a] + shape[a]) for a in order]
    corners = [(j, k) for j in starts[1] for k in starts[2]]
    for first, following in zip(starts[0], (*starts[0][1:], None), strict=True):
        for group in _groups(corners, window.batch):
            patches = [moved[first : first + roi[0], j : j + roi[1], k : k + roi[2]].permute(back)[None] for j, k in group]
            results = predict(torch.stack(patches).to(place)).to(torch.float32).cpu()
            for (j, k), result in zip(group, results, strict=True):
                where = (slice(None), slice(j, j + roi[1]), slice(k, k + roi[2]))
                total[(slice(None), *where)].addcmul_(result.permute(0, *(1 + a for a in order)), weight)
                seen[where] += weight
        finished = roi[0] if following is None else following - first
        yield from _finished(total, seen, first, finished, inner, axis, back)
        if following is not None:
            _advance(total, seen, finished)


def _padded(volume: Any, window: Window) -> tuple[Any, tuple[int, ...]]:
    """Widen a volume that is smaller than a window; return also the voxels put before it per axis."""
    import torch.nn.functional as functional

    lacking = [max(0, side - int(n)) for side, n in zip(window.roi, volume.shape[2:], strict=True)]
    before = tuple(n // 2 for n in lacking)
    if not any(lacking):
        return volume, before
    widths = [width for n, low in zip(reversed(lacking), reversed(before), strict=True) for width in (low, n - low)]
    mode = str(window.settings.get("padding_mode", "constant"))
    value = {"value": float(window.settings.get("cval", 0.0))} if mode == "constant" else {}
    try:
        return functional.pad(volume, widths, mode=mode, **value), before
    except (RuntimeError, NotImplementedError) as error:
        raise SynthDoseError(
            f"An image of {' x '.join(str(int(n)) for n in volume.shape[2:])} voxels (at the bundle's spacing) cannot be "
            f"padded by '{mode}' to a window of {' x '.join(map(str, window.roi))}: {str(error).splitlines()[0]}"
        ) from error


def _groups(items: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _finished(
    total: Any, seen: Any, first: int, count: int, inner: Sequence[slice], axis: int, back: Sequence[int]
) -> Iterator[Slab]:
    """Planes `first` to `first + count` of the padded volume, without the padding."""
    low, high = max(first, inner[0].start), min(first + count, inner[0].stop)
    for start in range(low, high, PLANES):
        stop = min(start + PLANES, high)
        part = (slice(start - first, stop - first), inner[1], inner[2])
        logits = (total[(slice(None), *part)] / seen[part]).permute(0, *(1 + a for a in back))
        place = [slice(0, n) for n in logits.shape[1:]]
        place[axis] = slice(start - inner[0].start, stop - inner[0].start)
        yield Slab((place[0], place[1], place[2]), logits)


def _advance(total: Any, seen: Any, step: int) -> None:
    """Move what is not finished to the front, plane by plane: source and target may overlap."""
    depth = int(seen.shape[0])
    for plane in range(depth - step):
        total[:, plane] = total[:, plane + step]
        seen[plane] = seen[plane + step]
    total[:, depth - step :] = 0
    seen[depth - step :] = 0
