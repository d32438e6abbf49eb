"""Brightness of tissues in MR: water of any weighting, fat of its own, and what a sequence makes of the two.

In a voxel of fat share f the water gives W (1 - f) and the fat F f. Sequences in phase add them, fat suppression and water
images of Dixon sequences leave the water, fat images the fat, and sequences out of phase show the difference, with dark
lines where the two meet (Dixon, Radiology 153 (1984) 189-194).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .looks import TissueLook
from .noise import smooth_noise, tensor_of
from .organ_detail import add_organ_detail, fill_bowel

if TYPE_CHECKING:
    import torch

_FAT_SHARES = {  # of a tissue, or of those whose name begins so; chosen here, wide
    "fat": (0.88, 1.0), "medullary": (0.65, 0.95), "spongiosa": (0.25, 0.65), "thymus": (0.1, 0.9), "breast": (0.1, 0.5),
    "pancreas": (0.02, 0.3), "muscle": (0.01, 0.15), "skin": (0.0, 0.2),
}  # fmt: skip
_LITTLE_FAT = (0.0, 0.04)
_STEATOSIS = 0.35  # largest share of fat in a liver; large ones are rare
_FAT_T1, _FAT_T2 = 0.95, 0.75  # brightness of fat
_WITHOUT_WATER_HU = -300.0
_FOLLOWS_FLOW = "blood"


def water_and_fat(random: np.random.Generator) -> tuple[float, float]:
    """Factors of water and fat in a random sequence.

    Returns
    -------
    tuple of float
        (1, 1) in phase; (1, little) fat suppressed; (little, 1) fat image; (1, -1) out of phase.
    """
    kind = random.random()
    if kind < 0.45:
        return 1.0, 1.0
    if kind < 0.70:
        return 1.0, float(random.uniform(0.0, 0.3))
    if kind < 0.85:
        return float(random.uniform(0.0, 0.25)), 1.0
    return 1.0, -1.0


def tissue_brightness(
    looks: Sequence[TissueLook],
    names: Sequence[str],
    sequence: tuple[float, float],
    strange: float,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Brightness of tissues with random T1 and T2 weighting and random shares of fat.

    Parameters
    ----------
    looks : sequence of TissueLook
    names : sequence of str
        Of the same tissues.
    sequence : (float, float)
        Factors of water and fat.
    strange : float
        Chance that every soft tissue is as bright as it likes.
    random : numpy Generator

    Returns
    -------
    ndarray, (tissues,)
        About -1 to 1.3; negative where fat outweighs water out of phase.
    """
    weight = random.uniform(-0.2, 1.2)
    living = np.array([look.hu > _WITHOUT_WATER_HU for look in looks])
    water = np.array([weight * look.t1 + (1 - weight) * look.t2 for look in looks])
    water = np.clip(water + living * random.normal(0, 0.12, len(looks)), 0, 1.3)
    fat = float(np.clip(weight * _FAT_T1 + (1 - weight) * _FAT_T2 + random.normal(0, 0.12), 0.3, 1.3))
    shares = np.array([_fat_share(name, random) for name in names]) * living
    if _FOLLOWS_FLOW in names and random.random() < 0.5:
        water[list(names).index(_FOLLOWS_FLOW)] = random.uniform(0, 1.2)
    bright = sequence[0] * water * (1 - shares) + sequence[1] * fat * shares
    if random.random() < strange:
        soft = living & np.array([not name.startswith("cortical") for name in names])
        bright[soft] = random.uniform(0.05, 1.0, int(soft.sum()))
    return np.asarray(bright)


def _fat_share(name: str, random: np.random.Generator) -> float:
    if name == "liver":
        return float(_STEATOSIS * random.random() ** 3)
    return float(random.uniform(*next((share for start, share in _FAT_SHARES.items() if name.startswith(start)), _LITTLE_FAT)))


def draw_mr(
    tissues: torch.Tensor,
    classes: torch.Tensor,
    looks: Sequence[TissueLook],
    place: Mapping[str, int],
    coarse: torch.Tensor,
    fine: torch.Tensor,
    strange: float,
    detail: float,
    random: np.random.Generator,
) -> torch.Tensor:
    """Brightness before resolution and noise, negative where fat outweighs water out of phase.

    Parameters
    ----------
    tissues, classes : Tensor of uint8, (ni, nj, nk)
    looks : sequence of TissueLook
        Of the tissues.
    place : mapping of str to int
        Place of each tissue.
    coarse, fine : Tensor, (ni, nj, nk)
        Noise of mean 0 and standard deviation 1.
    strange, detail : float
        See `RandomScan`.
    random : numpy Generator

    Returns
    -------
    Tensor of float32, (ni, nj, nk)
    """
    names = list(place)
    number = len(looks)
    bright = tissue_brightness(looks, names, water_and_fat(random), strange, random)
    amplitude = 0.2 * np.abs(bright) * random.uniform(0, 1, number)
    share = random.uniform(0, 1, number)
    index = tissues.long()
    image = tensor_of(bright)[index]
    image += tensor_of(amplitude * share)[index] * coarse + tensor_of(amplitude * (1 - share))[index] * fine
    if _FOLLOWS_FLOW in place and random.random() < 0.5:
        # blood of the aorta flows faster than that of veins and heart
        speed = tensor_of(random.uniform(0.1, 1.5, int(classes.max()) + 1))
        blood = index == place[_FOLLOWS_FLOW]
        image[blood] *= speed[classes[blood].long()]
    if random.random() < detail:
        add_organ_detail(image, tissues, place, bright, (0.05, 1.1), random)
    fill_bowel(image, index, place, coarse, random, gas=0.02, bright=float(random.uniform(0.1, 1.1)))
    if "muscle" in place and "fat" in place:
        image[(index == place["fat"]) & (fine > random.uniform(1.6, 4.0))] = float(bright[place["muscle"]])
        muscle = index == place["muscle"]
        image[muscle & (fine.roll((9, 4, 13), (0, 1, 2)) > random.uniform(1.2, 3.5))] = float(bright[place["fat"]])
    return image


def add_coils_and_ghosts(image: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Shade an image by the sensitivity of its coils, and let breathing repeat it faintly along the phase.

    Parameters
    ----------
    image : Tensor of float32, (ni, nj, nk)
        Brightness, not negative.
    random : numpy Generator

    Returns
    -------
    Tensor of float32, (ni, nj, nk)
    """
    import torch

    image = image * torch.exp(float(random.uniform(0, 0.4)) * smooth_noise(image.shape, 36.0, random))
    if random.random() < 0.3:  # a surface coil: bright near it
        axes = [torch.arange(n, dtype=torch.float32) - float(random.uniform(0, n)) for n in image.shape[:2]]
        square = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2
        image = image * (1 + float(random.uniform(0.3, 2)) * torch.exp(-square / (2 * float(random.uniform(10, 30)) ** 2)))
    if random.random() < 0.2:
        axis = int(random.integers(0, 2))
        shift = int(random.integers(image.shape[axis] // 6, image.shape[axis] // 2 + 1))
        strength = float(random.uniform(0.01, 0.08))
        image = image + strength * (image.roll(shift, axis) + image.roll(-shift, axis))
    return image
