"""What organs of one tissue lack in an image: vessels, renal pelvis and pyramids, cysts and lesions, gas in the bowel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .noise import blur, smooth_noise

if TYPE_CHECKING:
    import torch

_LESIONS_IN = ("liver", "kidney", "spleen")
_CONTENTS = ("bowel", "stomach", "contents", "stool")
MOST_LESIONS = 4  # of an organ that has any
_DEEP = 0.93  # share of an organ around a voxel, from which on it is no cortex


def add_organ_detail(
    image: torch.Tensor,
    tissues: torch.Tensor,
    place: Mapping[str, int],
    values: NDArray[np.float64],
    lesions: tuple[float, float],
    random: np.random.Generator,
) -> None:
    """Draw into an image, in place, what the map of tissues has no label for; the organ stays the organ.

    Parameters
    ----------
    image : Tensor of float32, (ni, nj, nk)
    tissues : Tensor of uint8, (ni, nj, nk)
        Place in `values`.
    place : mapping of str to int
        Place of each tissue; what is absent is passed over.
    values : ndarray, (tissues,)
        Brightness of the tissues in this image.
    lesions : (float, float)
        Range of the brightness of cysts and lesions.
    random : numpy Generator
    """
    for name in _LESIONS_IN:
        box = _box(tissues, place[name]) if name in place else None
        if box is None:
            continue
        inside, part = tissues[box] == place[name], image[box]
        if name == "liver":
            _vessels(part, inside, values[place.get("blood", place[name])], random)
        if name == "kidney":
            _pelvis(part, inside, [values[place[other]] for other in ("fat", "urine") if other in place], random)
        if random.random() < 0.3:
            _lesions(part, inside, lesions, random)


def _box(tissues: torch.Tensor, tissue: int) -> tuple[slice, slice, slice] | None:
    import torch

    found = tissues == tissue
    ranges = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        along = torch.nonzero(found.any(dim=others[1]).any(dim=others[0])).flatten()
        if not len(along):
            return None
        ranges.append(slice(int(along[0]), int(along[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]


def _vessels(image: torch.Tensor, inside: torch.Tensor, blood: float, random: np.random.Generator) -> None:
    """Tubes, where two random fields are both near zero."""
    every = float(random.uniform(5, 9))
    first, second = (smooth_noise(inside.shape, every, random) for _ in range(2))
    thick = float(random.uniform(0.1, 0.35))
    tubes = inside & (first.abs() < thick) & (second.abs() < thick)
    image[tubes] = blood


def _pelvis(image: torch.Tensor, inside: torch.Tensor, values: Sequence[float], random: np.random.Generator) -> None:
    """Fat and urine in the middle of a kidney, and pyramids of another brightness than the cortex."""
    depth = blur(inside.float(), (1.2, 1.2, 1.2))  # borders go on: a kidney that the window cuts has no cortex there
    core = inside & (depth > _DEEP)
    pattern = smooth_noise(inside.shape, 2.5, random)
    image[core & (pattern > float(random.uniform(-0.5, 1.5)))] *= float(random.uniform(0.4, 1.1))
    for value in values:
        image[core & (pattern.roll(4, 1) > float(random.uniform(0.3, 2.5)))] = value


def _lesions(image: torch.Tensor, inside: torch.Tensor, limits: tuple[float, float], random: np.random.Generator) -> None:
    """Balls of one to seven voxels across."""
    import torch

    axes = [torch.arange(n, dtype=torch.float32) for n in inside.shape]
    candidates = torch.nonzero(inside)
    for _ in range(int(random.integers(1, MOST_LESIONS + 1))):
        i, j, k = (float(value) for value in candidates[int(random.integers(len(candidates)))])
        square = (axes[0] - i)[:, None, None] ** 2 + (axes[1] - j)[None, :, None] ** 2 + (axes[2] - k)[None, None, :] ** 2
        radius = float(np.exp(random.uniform(np.log(0.7), np.log(3.5))))
        image[inside & (square < radius**2)] = float(random.uniform(*limits))


def fill_bowel(
    image: torch.Tensor,
    index: torch.Tensor,
    place: Mapping[str, int],
    pattern: torch.Tensor,
    random: np.random.Generator,
    *,
    gas: float,
    bright: float,
) -> None:
    """Put gas, and sometimes swallowed contrast medium, into stomach and bowel."""
    for name, own in place.items():
        if not name.endswith(_CONTENTS):
            continue
        inside = index == own
        image[inside & (pattern > random.uniform(0.8, 3.0))] = gas
        if random.random() < 0.3:
            image[inside & (pattern < random.uniform(-1.5, 0.5))] = bright
