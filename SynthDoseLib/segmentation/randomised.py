"""Images that no scanner took: random contrast, texture, resolution and artefacts on a map of tissues.

A network that sees the same anatomies under contrasts wider than those of any scanner has to rely on what they share, and
so meets real images as just another contrast (domain randomisation; Billot et al., Med. Image Anal. 86 (2023) 102789).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .looks import TissueLook, look_of
from .mr_contrast import add_coils_and_ghosts, draw_mr
from .noise import blur, smooth_noise, tensor_of
from .organ_detail import add_organ_detail, fill_bowel

if TYPE_CHECKING:
    import torch

_ARM = (("fat", 1.0), ("muscle", 0.85), ("cortical", 0.32), ("spongiosa", 0.2))  # tissue and share of the radius
_BONE_SHARE = 0.5


@dataclass(frozen=True)
class RandomScan:
    """How random a scan may be; probabilities from 0 to 1.

    Attributes
    ----------
    modality : str
        "CT" (CT numbers, HU) or "MR" (arbitrary unit).
    strange : float
        Chance of a scan whose soft tissues have any contrast at all.
    thick_slices, slab, circle, cut : float
        Chance of slices up to three voxels thick, of a scan of a few slices, of a round field of view, and per side of a
        field of view that cuts the patient.
    couch, arms : float
        Chance of a couch under the patient (CT only), and of arms beside it.
    detail : float
        Chance of what an organ of one tissue lacks; see `add_organ_detail`.
    """

    modality: str = "CT"
    strange: float = 0.12
    thick_slices: float = 0.25
    slab: float = 0.3
    circle: float = 0.12
    cut: float = 0.08
    couch: float = 0.7
    arms: float = 0.1
    detail: float = 0.0


def random_scan(
    tissues: torch.Tensor,
    classes: torch.Tensor,
    names: Sequence[str],
    spacing_mm: float,
    settings: RandomScan,
    random: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scan a map of tissues with a random scanner.

    Parameters
    ----------
    tissues : Tensor of uint8, (ni, nj, nk)
        Place in `names`; 0 is the air around the patient. Axes along R, A, S.
    classes : Tensor of uint8, (ni, nj, nk)
        What a network has to find; 0 outside the patient.
    names : sequence of str
        Tissues; those that `LOOKS` does not know look like some soft tissue.
    spacing_mm : float
        Edge of the cubic voxels.
    settings : RandomScan
    random : numpy Generator

    Returns
    -------
    tuple of Tensor
        Image, float32: HU for CT, about 0 to 1 for MR; classes, uint8, 0 outside the field of view; and whether the field of
        view includes a voxel, bool. What it does not include is in the image all the same: a normalisation by percentiles
        would otherwise depend on how much of a window is empty, and a scan is as large as its field of view.
    """
    import torch

    looks = [look_of(name) for name in names]
    place = {name: index for index, name in enumerate(names)}
    coarse, fine = smooth_noise(tissues.shape, 6.0, random), smooth_noise(tissues.shape, 2.5, random)
    if settings.modality == "CT":
        image = _ct(tissues, looks, place, coarse, fine, settings, random)
    else:
        image = draw_mr(tissues, classes, looks, place, coarse, fine, settings.strange, settings.detail, random)
    image = _resolve(image, settings, random)
    white = torch.from_numpy(random.standard_normal(tuple(image.shape), dtype=np.float32))
    if settings.modality == "CT":
        if random.random() < settings.couch:
            _add_couch(image, tissues, random)
        level = float(np.exp(random.uniform(np.log(3), np.log(30))))
        image += level * (white + float(random.uniform(0, 1.2)) * fine.roll((3, 5, 7), (0, 1, 2)))
        if random.random() < 0.3:
            image += float(random.uniform(5, 35)) * _streaks(image.shape, random)
        image += float(random.uniform(0, 10)) * smooth_noise(image.shape, 24.0, random) + float(random.normal(0, 5))
    else:
        image = add_coils_and_ghosts(image.abs_(), random)
        level = float(np.exp(random.uniform(np.log(0.003), np.log(0.03))))
        image = torch.hypot(image + level * white, level * white.roll((11, 13, 17), (0, 1, 2)))
    seen = _field_of_view(image.shape, settings, random)
    return image, classes * seen, seen


def _ct(
    tissues: torch.Tensor,
    looks: Sequence[TissueLook],
    place: dict[str, int],
    coarse: torch.Tensor,
    fine: torch.Tensor,
    settings: RandomScan,
    random: np.random.Generator,
) -> torch.Tensor:
    """CT numbers before resolution and noise."""
    number = len(looks)
    hu = np.array([look.hu + look.hu_spread * random.standard_normal() for look in looks])
    solid = np.array([-60 < look.hu < 150 for look in looks])
    bone = np.array([name.startswith(("spongiosa", "cortical")) for name in place])
    hu[bone] *= random.uniform(0.65, 1.35)
    phase = 0.0 if random.random() < 0.35 else float(random.uniform(0.2, 1.6))
    hu += phase * np.array([look.gain_HU for look in looks]) * random.uniform(0.6, 1.4, number)
    if "liver" in place and random.random() < 0.25:
        hu[place["liver"]] -= random.uniform(0, 50)  # steatosis
    if "urine" in place and random.random() < 0.15:
        hu[place["urine"]] += random.uniform(50, 700)  # excreted contrast medium
    if random.random() < settings.strange:
        hu[solid] = random.uniform(-30, 200, int(solid.sum()))
    amplitude = np.array([look.texture_HU for look in looks]) * random.uniform(0, 1, number)
    share = random.uniform(0, 1, number)
    index = tissues.long()
    image = tensor_of(hu)[index]
    image += tensor_of(amplitude * share)[index] * coarse + tensor_of(amplitude * (1 - share))[index] * fine
    if random.random() < settings.detail:
        add_organ_detail(image, tissues, place, hu, (-20.0, 130.0), random)
    fill_bowel(image, index, place, coarse, random, gas=-950.0, bright=float(random.uniform(150, 450)))
    shifted = fine.roll((9, 4, 13), (0, 1, 2))
    if "muscle" in place and "fat" in place:
        # fat between muscle fibres; vessels, nodes and strands in the fat
        fat, muscle = index == place["fat"], index == place["muscle"]
        image[muscle & (shifted > random.uniform(1.2, 3.5))] = float(hu[place["fat"]])
        strands = fat & (fine > random.uniform(1.3, 3.5))
        image[strands] = float(hu[place.get("blood", place["muscle"])] if random.random() < 0.5 else hu[place["muscle"]])
    if "lung" in place:
        vessels = (index == place["lung"]) & (shifted > random.uniform(1.5, 2.6))
        image[vessels] += float(random.uniform(200, 800))
    return image


def _resolve(image: torch.Tensor, settings: RandomScan, random: np.random.Generator) -> torch.Tensor:
    """Blur across and along the slices; sometimes average slices to thick ones, which in MR may stand upright."""
    import torch.nn.functional as functional

    across = float(random.uniform(0.25, 0.75))
    image = blur(image, (across, across, float(random.uniform(0.25, 0.9))))
    if random.random() < settings.thick_slices:
        axis = 2 if settings.modality == "CT" else int(random.choice(3, p=(0.1, 0.2, 0.7)))
        size = list(image.shape)
        size[axis] = max(2, round(size[axis] / float(random.uniform(1.5, 3.0))))
        averaged = functional.interpolate(image[None, None], size=size, mode="area")
        image = functional.interpolate(averaged, size=tuple(image.shape), mode="trilinear", align_corners=False)[0, 0]
    return image


def _streaks(shape: Sequence[int], random: np.random.Generator) -> torch.Tensor:
    """Long thin noise from side to side, as where a scanner's photons run out, strong in some slices."""
    import torch
    import torch.nn.functional as functional

    ni, nj, nk = shape
    lattice = torch.from_numpy(random.standard_normal((1, 1, 4, nj, nk), dtype=np.float32))
    lines = functional.interpolate(lattice, size=(ni, nj, nk), mode="trilinear", align_corners=True)[0, 0]
    where = torch.from_numpy(random.standard_normal((1, 1, max(2, nk // 12)), dtype=np.float32))
    strength = functional.interpolate(where, size=nk, mode="linear", align_corners=True)[0, 0].clamp(min=0)
    return lines * strength


def _add_couch(image: torch.Tensor, tissues: torch.Tensor, random: np.random.Generator) -> None:
    """Lay the patient on a thin curved plate with a light core, in place."""
    import torch

    air = tissues == 0
    rows = torch.nonzero(~air.all(dim=2).all(dim=0)).flatten()
    if not len(rows):
        return
    ni, nj = image.shape[:2]
    across = (torch.arange(ni) - ni / 2 - float(random.uniform(-6, 6))) / float(random.uniform(40, 70))
    top = int(rows[0]) - float(random.uniform(0, 4)) + float(random.uniform(0, 5)) * across**2
    depth = top[:, None] - torch.arange(nj)[None, :]
    thick = float(random.uniform(1.0, 2.0))
    core = (depth > 0) & (depth < float(random.uniform(3, 8))) & (across.abs() < 1)[:, None]
    shell = core & (depth < thick)
    for part, hu in ((core, float(random.uniform(-990, -850))), (shell, float(random.uniform(-500, 250)))):
        image[part[:, :, None] & air] = hu


def add_arms(
    tissues: torch.Tensor, classes: torch.Tensor, names: Sequence[str], bone: int, body: int, random: np.random.Generator
) -> None:
    """Lay an arm on each side of the patient where the air has room for it, in place.

    Parameters
    ----------
    tissues, classes : Tensor of uint8, (ni, nj, nk)
    names : sequence of str
        Tissues; without fat, muscle, cortical and spongy bone among them nothing happens.
    bone, body : int
        Class of the bone and of the rest.
    random : numpy Generator
    """
    import torch

    layers = [(next((n for n in names if n.startswith(start)), ""), share) for start, share in _ARM]
    if not all(name for name, _ in layers):
        return
    columns = torch.nonzero((tissues != 0).any(dim=2).any(dim=1)).flatten()
    if not len(columns):
        return
    ni, nj, nk = tissues.shape
    k = torch.arange(nk, dtype=torch.float32) - nk / 2
    for edge, side in ((int(columns[0]), -1), (int(columns[-1]), 1)):
        radius = float(random.uniform(7, 12))
        x = edge + side * (radius + float(random.uniform(-3, 2))) + float(random.normal(0, 0.05)) * k
        y = nj / 2 + float(random.uniform(-10, 8)) + float(random.normal(0, 0.08)) * k
        square = (torch.arange(ni)[:, None, None] - x) ** 2 + (torch.arange(nj)[None, :, None] - y) ** 2
        room = tissues == 0
        for name, share in layers:
            where = room & (square < (share * radius) ** 2)
            tissues[where] = names.index(name)
            classes[where] = bone if share < _BONE_SHARE else body


def _field_of_view(shape: Sequence[int], settings: RandomScan, random: np.random.Generator) -> torch.Tensor:
    """Voxels that the scan covers."""
    import torch

    ni, nj, nk = shape
    seen = torch.ones(ni, nj, nk, dtype=torch.bool)
    if random.random() < settings.slab:
        count = int(random.integers(max(4, nk // 6), nk))
        first = int(random.integers(0, nk - count + 1))
        seen[:, :, :first] = seen[:, :, first + count :] = False
    for axis, side in enumerate((ni, nj)):
        along = seen.movedim(axis, 0)
        for first_side in (True, False):
            if random.random() < settings.cut:
                count = int(random.integers(1, max(2, side // 3)))
                along[slice(0, count) if first_side else slice(side - count, side)] = False
    if random.random() < settings.circle:
        middle = (np.array([ni, nj]) - 1) / 2 + random.uniform(-6, 6, 2)
        radius = float(random.uniform(0.36, 0.52)) * max(ni, nj)
        x, y = torch.arange(ni)[:, None, None] - middle[0], torch.arange(nj)[None, :, None] - middle[1]
        seen &= x**2 + y**2 <= radius**2
    return seen
