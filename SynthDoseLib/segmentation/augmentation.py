"""Random changes to training pairs, so that a network does not learn one scanner, one posture or one field of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Augmentation:
    """How much a training pair may be changed; every amount is a largest value or one standard deviation.

    Attributes
    ----------
    rotation_deg, scale : float
        Largest rotation about each axis, and largest relative change of size (also per axis, half as much).
    shift_voxels : float
        Largest displacement across the body; along it, the window may be anywhere.
    bend_voxels : float
        Standard deviation of a smooth random displacement.
    noise_HU, offset_HU, organ_offset_HU : float
        Largest standard deviation of white noise; standard deviation of a common offset and of one per organ (contrast
        medium, individual composition).
    blur_voxels : float
        Largest standard deviation of a Gaussian blur.
    cut_probability : float
        Chance per end of an axis that the scan stops inside the window.
    """

    rotation_deg: float = 8.0
    scale: float = 0.15
    shift_voxels: float = 8.0
    bend_voxels: float = 1.0
    noise_HU: float = 40.0
    offset_HU: float = 10.0
    organ_offset_HU: float = 12.0
    blur_voxels: float = 0.8
    cut_probability: float = 0.1


def augment(
    ct_HU: torch.Tensor,
    classes: torch.Tensor,
    window: tuple[int, int, int],
    settings: Augmentation,
    random: np.random.Generator,
    air_HU: float = -1000.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a randomly changed piece of a pair, as large as the network's window.

    Parameters
    ----------
    ct_HU : Tensor of float32, (ni, nj, nk)
        CT numbers.
    classes : Tensor of uint8, (ni, nj, nk)
        Class per voxel, 0 is background.
    window : tuple of 3 int
        Voxels of the piece; what lies outside the pair is air and background, as the inference pads it.
    settings : Augmentation
    random : numpy Generator
    air_HU : float
        Value outside the image.

    Returns
    -------
    tuple of Tensor
        The CT and the classes, of the shape `window`.
    """
    import torch
    import torch.nn.functional as functional

    grid = torch.from_numpy(_sampling_field(tuple(ct_HU.shape), window, settings, random))[None]
    # grid_sample fills with 0 outside: shift the scale so that 0 is air
    image = functional.grid_sample((ct_HU - air_HU)[None, None], grid, mode="bilinear", align_corners=False)[0, 0] + air_HU
    labels = functional.grid_sample(classes[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0].to(
        torch.uint8
    )
    offsets = random.normal(0.0, settings.organ_offset_HU, int(labels.max()) + 1)
    offsets[0] = 0.0
    image = image + torch.from_numpy(offsets.astype(np.float32))[labels.long()]
    sigma = float(random.uniform(0.0, settings.blur_voxels))
    if sigma > 0.3:
        image = _blur(image, sigma)
    noise = torch.from_numpy(random.standard_normal(tuple(image.shape), dtype=np.float32))
    image = image + float(random.uniform(0.0, settings.noise_HU)) * noise + float(random.normal(0.0, settings.offset_HU))
    for axis, side in enumerate(window):
        for first in (True, False):
            if random.random() < settings.cut_probability:
                lost = int(random.integers(1, side // 2))
                where = (slice(None),) * axis + (slice(0, lost) if first else slice(side - lost, side),)
                image[where], labels[where] = air_HU, 0
    return image, labels


def _sampling_field(
    shape: tuple[int, ...], window: tuple[int, int, int], settings: Augmentation, random: np.random.Generator
) -> NDArray[np.float32]:
    """Where each voxel of the window is looked up: (..., 3) in torch's order (last axis first), -1 to 1 across the pair."""
    size = np.asarray(shape, dtype=np.float64)
    angles = np.deg2rad(random.uniform(-settings.rotation_deg, settings.rotation_deg, 3))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix = matrix * (1 + random.uniform(-settings.scale, settings.scale))
    matrix = matrix * (1 + random.uniform(-settings.scale / 2, settings.scale / 2, 3))
    axes = [np.arange(n) - (n - 1) / 2 for n in window]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    middle = (size - 1) / 2
    middle[:2] += random.uniform(-settings.shift_voxels, settings.shift_voxels, 2)
    middle[2] = random.uniform(0.1, 0.9) * (size[2] - 1)
    moved = place @ matrix.T + middle + _bend(window, settings.bend_voxels, random)
    return np.ascontiguousarray(((moved + 0.5) * 2 / size - 1)[..., ::-1], dtype=np.float32)


def _bend(shape: tuple[int, ...], sigma_voxels: float, random: np.random.Generator) -> NDArray[Any]:
    """Smooth random displacement (ni, nj, nk, 3), voxels: normal values on a coarse lattice, interpolated."""
    import torch
    import torch.nn.functional as functional

    coarse = tuple(max(2, n // 12) for n in shape)
    lattice = torch.from_numpy(random.normal(0.0, sigma_voxels, (1, 3, *coarse)).astype(np.float32))
    fine = functional.interpolate(lattice, size=shape, mode="trilinear", align_corners=True)[0]
    return np.asarray(fine.permute(1, 2, 3, 0).numpy())


def _blur(image: torch.Tensor, sigma_voxels: float) -> torch.Tensor:
    """Gaussian blur, border values repeated."""
    import torch
    import torch.nn.functional as functional

    offset = torch.arange(-2, 3, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma_voxels) ** 2)
    kernel = kernel / kernel.sum()
    result = functional.pad(image[None, None], (2,) * 6, mode="replicate")
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 5
        result = functional.conv3d(result, kernel.reshape(shape))
    return result[0, 0]
