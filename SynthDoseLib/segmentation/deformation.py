"""Random windows of a patient: moved, turned, scaled and bent, never mirrored or folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Deformation:
    """How differently a window may show a patient.

    Attributes
    ----------
    rotation_deg : float
        Largest rotation about each axis.
    scale, axis_scale : float
        Largest relative change of size, of the whole and of each axis.
    shift_mm : float
        Largest distance of the window's middle from the patient's, across the body; along it, it may be anywhere.
    bends : tuple of (float, float)
        Smooth random displacements: distance of the nodes of a lattice and standard deviation of their displacement, mm.
        A displacement of less than a third of the distance does not fold space.
    """

    rotation_deg: float = 10.0
    scale: float = 0.18
    axis_scale: float = 0.12
    shift_mm: float = 40.0
    bends: tuple[tuple[float, float], ...] = ((80.0, 9.0), (36.0, 3.0))


def random_places(
    shape: tuple[int, int, int],
    spacing_mm: float,
    window: tuple[int, int, int],
    window_spacing_mm: float,
    settings: Deformation,
    random: np.random.Generator,
    *,
    level: float | None = None,
) -> torch.Tensor:
    """Draw where each voxel of a window lies in the image.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels (ni, nj, nk) of the image, axes along R, A, S.
    spacing_mm, window_spacing_mm : float
        Edge of the image's and of the window's cubic voxels.
    window : tuple of 3 int
        Voxels of the window.
    settings : Deformation
    random : numpy Generator
    level : float, optional
        Slice of the image in the middle of the window; anywhere if not given.

    Returns
    -------
    Tensor of float32, (3, *window)
        Voxel coordinates in the image; outside it too.
    """
    import torch
    import torch.nn.functional as functional

    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(random.uniform(-settings.rotation_deg, settings.rotation_deg, 3))):
        first, second = (a for a in range(3) if a != axis)
        plane = np.eye(3)
        plane[first, first] = plane[second, second] = np.cos(angle)
        plane[first, second], plane[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ plane
    sizes = 1 + random.uniform(-settings.scale, settings.scale) + random.uniform(-settings.axis_scale, settings.axis_scale, 3)
    matrix = turn @ np.diag(window_spacing_mm / (spacing_mm * sizes))
    size = np.asarray(shape, np.float64)
    middle = (size - 1) / 2
    middle[:2] += random.uniform(-1, 1, 2) * settings.shift_mm / spacing_mm
    middle[2] = random.uniform(0.1, 0.9) * (size[2] - 1) if level is None else level
    # a trilinear lattice of the corners reproduces the affine part exactly
    ends = [np.array([-(n - 1) / 2, (n - 1) / 2]) for n in window]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1) @ matrix.T + middle
    places = functional.interpolate(
        torch.from_numpy(np.moveaxis(corners, -1, 0).astype(np.float32))[None],
        size=window,
        mode="trilinear",
        align_corners=True,
    )[0]
    for distance, sigma in settings.bends:
        nodes = tuple(max(2, round(n * window_spacing_mm / distance) + 1) for n in window)
        lattice = random.normal(0.0, sigma / spacing_mm, (1, 3, *nodes)).astype(np.float32)
        places += functional.interpolate(torch.from_numpy(lattice), size=window, mode="trilinear", align_corners=True)[0]
    return places


def nearest_at(labels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Labels (ni, nj, nk) at the nearest voxel to each of `places` (3, ...), 0 outside."""
    import torch

    index = places.round().to(torch.int32)
    size = torch.tensor(labels.shape, dtype=torch.int32).view(3, 1, 1, 1)
    inside = ((index >= 0) & (index < size)).all(dim=0)
    flat = (index[0] * labels.shape[1] + index[1]) * labels.shape[2] + index[2]
    return labels.flatten()[flat.mul_(inside)].mul_(inside)


def linear_at(values: torch.Tensor, places: torch.Tensor, outside: float) -> torch.Tensor:
    """Values (ni, nj, nk) interpolated at `places` (3, ...), `outside` beyond the image."""
    import torch
    import torch.nn.functional as functional

    size = torch.tensor(values.shape, dtype=torch.float32).view(3, 1, 1, 1)
    # torch wants -1 to 1 between the outer faces, last axis first; it fills with 0
    normal = ((places + 0.5) * 2 / size - 1).flip(0).permute(1, 2, 3, 0)[None]
    moved = functional.grid_sample((values - outside)[None, None], normal, mode="bilinear", align_corners=False)
    return moved[0, 0] + outside
