"""Point kernels in voxels: how much of an ideal spherical shell lies in which shell of voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = 5000
RADII_PER_BIN = 5


def sphere_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly (golden-angle spiral)."""
    n = np.arange(count)
    cosine = 1 - (2 * n + 1) / count
    sine, azimuth = np.sqrt(1 - cosine**2), np.pi * (1 + np.sqrt(5)) * n
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=-1)


def shell_labels(
    size: int, voxel_cm: float, edges_cm: NDArray[np.float64], outer_cm: float
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Shell around the middle that the centre of each voxel lies in, 1 the innermost, 0 beyond; and what is in `outer_cm`."""
    axis = (np.arange(size) - size // 2) * voxel_cm
    squares = axis**2
    distance = np.sqrt(squares[:, None, None] + squares[None, :, None] + squares[None, None, :])
    number = np.searchsorted(edges_cm, distance, side="right")
    labels = np.where(number < edges_cm.size, number, 0).astype(np.uint16)
    return labels, distance <= outer_cm


def fold(
    energy: NDArray[np.float64], edges_cm: NDArray[np.float64], labels: NDArray[np.uint16], voxel_cm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy of ideal shells (n,) as it falls into labelled voxels: per label (labels,), and the shares (labels, n).

    Energy is taken as even in angle and within a shell.
    """
    directions = sphere_directions(DIRECTIONS)
    shares = np.zeros((int(labels.max()) + 1, energy.size))
    for n in range(energy.size):
        steps = (np.arange(RADII_PER_BIN) + 0.5) / RADII_PER_BIN
        for radius in edges_cm[n] + steps * (edges_cm[n + 1] - edges_cm[n]):
            index = np.floor(radius * directions / voxel_cm + 0.5).astype(int) + labels.shape[0] // 2
            found = labels[index[:, 2], index[:, 1], index[:, 0]]
            shares[:, n] += np.bincount(found, minlength=shares.shape[0]) / (RADII_PER_BIN * DIRECTIONS)
    return shares @ energy, shares
