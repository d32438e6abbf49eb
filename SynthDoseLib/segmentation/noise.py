"""Random fields and blurring on a grid of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def smooth_noise(shape: Sequence[int], every: float, random: np.random.Generator) -> torch.Tensor:
    """Noise of mean 0 and standard deviation about 1 that varies over `every` voxels."""
    import torch
    import torch.nn.functional as functional

    nodes = tuple(max(2, round(n / every) + 1) for n in shape)
    lattice = torch.from_numpy(random.standard_normal((1, 1, *nodes), dtype=np.float32))
    # between the nodes an axis leaves two thirds of the variance on average: (2/3)^(3/2) of the standard deviation is left
    return 1.84 * functional.interpolate(lattice, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def blur(image: torch.Tensor, sigma_voxels: Sequence[float]) -> torch.Tensor:
    """Gaussian blur of up to a voxel, border values repeated."""
    import torch
    import torch.nn.functional as functional

    result = functional.pad(image[None, None], (2,) * 6, mode="replicate")
    offset = torch.arange(-2, 3, dtype=torch.float32)
    for axis, sigma in enumerate(sigma_voxels):
        kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 5
        result = functional.conv3d(result, (kernel / kernel.sum()).reshape(shape))
    return result[0, 0]


def tensor_of(values: Sequence[float] | NDArray[np.float64]) -> torch.Tensor:
    """float32 tensor of some numbers."""
    import torch

    return torch.from_numpy(np.asarray(values, np.float32))
