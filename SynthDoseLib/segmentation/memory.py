"""Choosing windows and batches of a sliding-window inference so that they fit the memory."""

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
SCRIPT_VALUES_PER_VOXEL = 400  # of a network whose layers cannot be watched: 32 filters at full resolution, and their copies


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
    memory_bytes : int
        Estimate of what the network takes for a batch.
    """

    roi: tuple[int, int, int]
    batch: int
    overlap: float
    channels: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    memory_bytes: int = 0


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
            several = max(1, min(batch, limit // per_window))
            roi = (wanted[0], wanted[1], wanted[2])
            return Window(roi, several, overlap, channels, settings, several * per_window)
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

    if isinstance(network, torch.jit.ScriptModule):
        return _script_bytes(network, roi)
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


def _script_bytes(network: Any, roi: Sequence[int]) -> tuple[int, int]:
    """As `window_bytes` for TorchScript, whose layers cannot be watched: one small window tells the channels."""
    import torch

    place = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            output = network(torch.zeros((1, 1, *([SMALLEST_SIDE] * 3)), device=place))
    except Exception as error:  # a script raises what its author wrote
        raise SynthDoseError(
            f"The TorchScript network of the bundle fails: {str(error).strip().splitlines()[-1][:200]}"
        ) from error
    output = output[0] if isinstance(output, (list, tuple)) else output
    return FLOAT_BYTES * SCRIPT_VALUES_PER_VOXEL * math.prod(roi), int(output.shape[1])
