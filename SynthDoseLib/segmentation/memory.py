"""Choosing windows, batches and chunks of a sliding-window inference so that they fit the memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core import SynthDoseError
from .components import raise_if_missing

SMALLEST_SIDE = 32
FREE_SHARE = 0.6  # of what is free; the rest is for the image, its interpolation and the other programs
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Window:
    """How a volume is cut for the network.

    Attributes
    ----------
    roi : tuple of 3 int
        Voxels of one window.
    batch : int
        Windows at once.
    overlap : float
        Of neighbouring windows, as a fraction.
    channels : int
        Output channels.
    settings : mapping
        Further arguments of the inference (mode, padding_mode …).
    """

    roi: tuple[int, int, int]
    batch: int
    overlap: float
    channels: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A part of the volume that is inferred at once.

    Attributes
    ----------
    outer, inner : tuple of 3 slice
        What the windows see, and the part of it whose result is kept.
    """

    outer: tuple[slice, slice, slice]
    inner: tuple[slice, slice, slice]

    @property
    def inner_of_outer(self) -> tuple[slice, ...]:
        """The kept part in coordinates of `outer`."""
        return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(self.inner, self.outer, strict=True))

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Voxels of `outer`."""
        return tuple(len(range(*part.indices(n))) for part, n in zip(self.outer, shape, strict=True))


def free_bytes(device: Any) -> int:
    """Memory that an inference on `device` may take, bytes."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0] * FREE_SHARE)
    import psutil

    return int(psutil.virtual_memory().available * FREE_SHARE)


def fitting_window(
    network: Any, roi: tuple[int, ...], batch: int, overlap: float, settings: Mapping[str, Any], limit: int
) -> Window:
    """Take the wanted window and batch, or smaller ones that fit into `limit` bytes.

    Raises
    ------
    SynthDoseError
        If not even the smallest window fits.
    """
    wanted = tuple(int(n) for n in roi)
    while True:
        per_window, channels = window_bytes(network, wanted)
        if per_window <= limit:
            return Window(
                (wanted[0], wanted[1], wanted[2]), max(1, min(batch, limit // per_window)), overlap, channels, settings
            )
        smaller = tuple(max(SMALLEST_SIDE, n // 2 // 16 * 16) if n > SMALLEST_SIDE else n for n in wanted)
        if smaller == wanted:
            raise SynthDoseError(
                f"One window of {' x '.join(map(str, wanted))} voxels needs about {per_window / 1e9:.2g} GB, but only "
                f"{limit / 1e9:.2g} GB may be used. Close other programs, or take a smaller bundle."
            )
        wanted = smaller


def window_bytes(network: Any, roi: Sequence[int]) -> tuple[int, int]:
    """Estimate the memory of one window, bytes, and count the output channels.

    The network runs without numbers (on torch's meta device). What it holds at once is taken as the largest input and
    output of one layer, doubled for the layer's workspace, and all outputs that a skip connection may keep, one per
    resolution and width.
    """
    import torch

    shadow = copy.deepcopy(network).to("meta")
    largest = 0
    kept: dict[tuple[int, ...], int] = {}

    def record(_: Any, inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, torch.Tensor)]
        largest = max(largest, sum(t.numel() for t in tensors))
        if isinstance(output, torch.Tensor):
            kept[tuple(output.shape)] = output.numel()

    hooks = [layer.register_forward_hook(record) for layer in shadow.modules() if not list(layer.children())]
    try:
        with torch.inference_mode():
            result = shadow(torch.empty((1, 1, *roi), device="meta"))
    except Exception as error:  # layers raise many kinds for a size they cannot halve
        raise_if_missing(error, "network")
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        size = " x ".join(str(n) for n in roi)
        raise SynthDoseError(f"The network of the bundle cannot work on a window of {size} voxels: {first[:200]}") from error
    finally:
        for hook in hooks:
            hook.remove()
    output = result[0] if isinstance(result, (list, tuple)) else result
    return FLOAT_BYTES * (2 * largest + sum(kept.values())), int(output.shape[1])


def window_count(shape: Sequence[int], window: Window) -> int:
    """Windows that cover `shape`."""
    total = 1
    for size, side in zip(shape, window.roi, strict=True):
        step = side if side >= size else max(1, int(side * (1 - window.overlap)))
        total *= max(1, math.ceil((size - side) / step) + 1)
    return total


def chunks(shape: Sequence[int], window: Window, limit: int) -> list[Chunk]:
    """Cut a volume along its longest axis so that the probabilities of one chunk fit into `limit` bytes.

    Neighbours share a margin of half a window, so that a kept voxel is seen as deep inside a window as without the cut.

    Raises
    ------
    SynthDoseError
        If not even a chunk of two windows fits.
    """
    full = tuple(slice(0, n) for n in shape)
    axis = max(range(3), key=lambda a: shape[a])
    across = math.prod(max(n, side) for a, (n, side) in enumerate(zip(shape, window.roi, strict=True)) if a != axis)
    # accumulated values, their copy while they are divided by the weights, and the weights
    per_layer = FLOAT_BYTES * across * (2 * window.channels + 1)
    thickness = limit // per_layer
    if thickness >= max(shape[axis], window.roi[axis]):
        return [Chunk((full[0], full[1], full[2]), (full[0], full[1], full[2]))]
    margin = window.roi[axis] // 2
    kept = thickness - 2 * margin
    if kept < max(1, margin // 2):
        needed = per_layer * (2 * margin + max(1, margin // 2))
        raise SynthDoseError(
            f"The probabilities of {window.channels} channels need at least {needed / 1e9:.2g} GB for this image, but only "
            f"{limit / 1e9:.2g} GB may be used. Crop the image, close other programs, or take a coarser bundle."
        )
    result = []
    for start in range(0, shape[axis], kept):
        stop = min(shape[axis], start + kept)
        inner, outer = list(full), list(full)
        inner[axis] = slice(start, stop)
        outer[axis] = slice(max(0, start - margin), min(shape[axis], stop + margin))
        result.append(Chunk((outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])))
    return result
