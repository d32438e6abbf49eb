"""Images that no scanner took: random contrast, texture, resolution and artefacts on a map of tissues.

A network that sees the same anatomies under contrasts wider than those of any scanner has to rely on what they share, and
so meets real images as just another contrast (domain randomisation; Billot et al., Med. Image Anal. 86 (2023) 102789).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .noise import blur, smooth_noise
from .organ_detail import add_organ_detail

if TYPE_CHECKING:
    import torch

AIR_HU = -1000.0


@dataclass(frozen=True)
class TissueLook:
    """What a tissue may look like.

    Attributes
    ----------
    hu, hu_spread : float
        Mean CT number without contrast medium and its standard deviation between people, HU.
    gain_HU : float
        Rise in a full contrast phase, HU.
    texture_HU : float
        Largest amplitude of what varies within the tissue, HU.
    t1, t2 : float
        Brightness in MR of T1 and T2 weighting, 0 to 1.
    """

    hu: float
    hu_spread: float
    gain_HU: float
    texture_HU: float
    t1: float
    t2: float


LOOKS: dict[str, TissueLook] = {
    "air": TissueLook(-1000, 0, 0, 0, 0.0, 0.0),
    "gas": TissueLook(-950, 40, 0, 20, 0.0, 0.0),
    "fat": TissueLook(-100, 9, 0, 14, 0.95, 0.75),
    "muscle": TissueLook(52, 10, 12, 22, 0.40, 0.20),
    "skin": TissueLook(15, 20, 10, 15, 0.40, 0.30),
    "lung": TissueLook(-770, 70, 20, 130, 0.08, 0.08),
    "liver": TissueLook(55, 10, 55, 16, 0.60, 0.35),
    "spleen": TissueLook(46, 6, 75, 16, 0.42, 0.60),
    "kidney": TissueLook(33, 6, 140, 60, 0.42, 0.65),
    "pancreas": TissueLook(36, 12, 50, 25, 0.60, 0.40),
    "blood": TissueLook(42, 7, 130, 20, 0.30, 0.25),
    "myocardium": TissueLook(44, 6, 70, 35, 0.40, 0.30),
    "bowel": TissueLook(26, 14, 25, 45, 0.40, 0.50),
    "stomach": TissueLook(28, 14, 20, 45, 0.40, 0.50),
    "urine": TissueLook(8, 6, 0, 8, 0.15, 0.98),
    "bile": TissueLook(10, 8, 0, 5, 0.30, 0.95),
    "gland": TissueLook(40, 8, 40, 20, 0.42, 0.50),
    "thyroid": TissueLook(95, 20, 60, 15, 0.45, 0.50),
    "adrenal": TissueLook(25, 14, 45, 10, 0.42, 0.45),
    "brain": TissueLook(35, 4, 4, 8, 0.50, 0.60),
    "nerve": TissueLook(32, 8, 4, 8, 0.45, 0.60),
    "breast": TissueLook(10, 25, 10, 40, 0.45, 0.45),
    "breast_gland": TissueLook(10, 25, 10, 40, 0.45, 0.45),
    "cartilage": TissueLook(90, 25, 5, 40, 0.35, 0.25),
    "spongiosa": TissueLook(190, 45, 15, 80, 0.70, 0.45),
    "cortical": TissueLook(680, 130, 0, 150, 0.06, 0.05),
    "tumour": TissueLook(45, 20, 45, 30, 0.40, 0.60),
    "csf": TissueLook(8, 5, 0, 5, 0.15, 1.0),
    "eye": TissueLook(15, 8, 0, 5, 0.20, 0.95),
    "thymus": TissueLook(15, 30, 10, 25, 0.60, 0.50),
    "wall": TissueLook(40, 8, 45, 15, 0.42, 0.40),
    "contents": TissueLook(20, 14, 0, 30, 0.40, 0.60),
    "stool": TissueLook(20, 25, 0, 70, 0.45, 0.40),
    "medullary": TissueLook(-40, 30, 0, 25, 0.90, 0.70),
}
"""Typical values for 120 kV and 1.5 T by tissue, or by a part of its name; chosen here: the ranges are what matters."""

OTHER_TISSUE = TissueLook(40, 25, 40, 25, 0.45, 0.45)
_ARM = (("fat", 1.0), ("muscle", 0.85), ("cortical", 0.32), ("spongiosa", 0.2))  # tissue and share of the radius
_BONE_SHARE = 0.5
_FATTY = {"fat": 0.15, "medullary": 0.2, "spongiosa": 0.3, "skin": 0.5}  # what fat suppression leaves
_CONTENTS = ("bowel", "stomach", "contents", "stool")


def look_of(tissue: str) -> TissueLook:
    """Look of a tissue: by its name, by a part of it ("spongiosa_ribs", "colon_wall"), or that of any soft tissue.

    Examples
    --------
    >>> look_of("spongiosa_ribs") == LOOKS["spongiosa"], look_of("cervix") == OTHER_TISSUE
    (True, True)
    """
    if tissue in LOOKS:
        return LOOKS[tissue]
    parts = tissue.split("_")
    for part in (parts[-1], *parts):
        if part in LOOKS:
            return LOOKS[part]
    return OTHER_TISSUE


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
        Chance of a couch under the patient, and of arms beside it; CT only.
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
) -> tuple[torch.Tensor, torch.Tensor]:
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
        Image, float32: HU for CT, about 0 to 1 for MR; and the classes inside the field of view, uint8. Outside it the
        image is air and the class 0.
    """
    import torch

    looks = [look_of(name) for name in names]
    place = {name: index for index, name in enumerate(names)}
    coarse, fine = smooth_noise(tissues.shape, 6.0, random), smooth_noise(tissues.shape, 2.5, random)
    if settings.modality == "CT":
        image = _ct(tissues, looks, place, coarse, fine, settings, random)
    else:
        image = _mr(tissues, looks, place, coarse, fine, settings, random)
    image = _resolve(image, settings.thick_slices, random)
    white = torch.from_numpy(random.standard_normal(tuple(image.shape), dtype=np.float32))
    if settings.modality == "CT":
        if random.random() < settings.couch:
            _add_couch(image, tissues, random)
        level = float(np.exp(random.uniform(np.log(3), np.log(30))))
        image += level * (white + float(random.uniform(0, 1.2)) * fine.roll((3, 5, 7), (0, 1, 2)))
        if random.random() < 0.3:
            image += float(random.uniform(5, 35)) * _streaks(image.shape, random)
        image += float(random.uniform(0, 10)) * smooth_noise(image.shape, 24.0, random) + float(random.normal(0, 5))
        outside = AIR_HU
    else:
        image *= torch.exp(float(random.uniform(0, 0.45)) * smooth_noise(image.shape, 36.0, random))
        level = float(np.exp(random.uniform(np.log(0.008), np.log(0.08))))
        image = torch.hypot(image + level * white, level * white.roll((11, 13, 17), (0, 1, 2)))
        outside = 0.0
    return _field_of_view(image, classes.clone(), outside, settings, random)


def _table(values: Sequence[float] | NDArray[np.float64]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.asarray(values, np.float32))


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
    image = _table(hu)[index]
    image += _table(amplitude * share)[index] * coarse + _table(amplitude * (1 - share))[index] * fine
    if random.random() < settings.detail:
        add_organ_detail(image, tissues, place, hu, (-20.0, 130.0), random)
    _fill_bowel(image, index, place, coarse, random, gas=-950.0, bright=float(random.uniform(150, 450)))
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


def _mr(
    tissues: torch.Tensor,
    looks: Sequence[TissueLook],
    place: dict[str, int],
    coarse: torch.Tensor,
    fine: torch.Tensor,
    settings: RandomScan,
    random: np.random.Generator,
) -> torch.Tensor:
    """MR brightness before resolution and noise."""
    number = len(looks)
    weight = random.uniform(-0.2, 1.2)
    bright = np.array([weight * look.t1 + (1 - weight) * look.t2 for look in looks])
    living = np.array([look.hu > -300 for look in looks])
    bright += living * random.normal(0, 0.12, number)
    if random.random() < 0.35:
        for name, own in place.items():  # fat suppression
            left = next((left for start, left in _FATTY.items() if name.startswith(start)), 1.0)
            bright[own] *= left * (random.uniform(0.5, 1.5) if left < 1 else 1.0)
    if "blood" in place and random.random() < 0.5:
        bright[place["blood"]] = random.uniform(0, 1.2)
    if random.random() < settings.strange * 3:
        soft = living & np.array([not name.startswith("cortical") for name in place])
        bright[soft] = random.uniform(0.1, 1.0, int(soft.sum()))
    bright = np.clip(bright, 0, 1.3)
    amplitude = 0.25 * bright * random.uniform(0, 1, number)
    share = random.uniform(0, 1, number)
    index = tissues.long()
    image = _table(bright)[index]
    image += _table(amplitude * share)[index] * coarse + _table(amplitude * (1 - share))[index] * fine
    if random.random() < settings.detail:
        add_organ_detail(image, tissues, place, bright, (0.05, 1.1), random)
    _fill_bowel(image, index, place, coarse, random, gas=0.02, bright=float(random.uniform(0.1, 1.1)))
    if "muscle" in place and "fat" in place:
        image[(index == place["fat"]) & (fine > random.uniform(1.3, 3.5))] = float(bright[place["muscle"]])
        muscle = index == place["muscle"]
        image[muscle & (fine.roll((9, 4, 13), (0, 1, 2)) > random.uniform(1.2, 3.5))] = float(bright[place["fat"]])
    return image.clamp_(min=0.0)


def _fill_bowel(
    image: torch.Tensor,
    index: torch.Tensor,
    place: dict[str, int],
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


def _resolve(image: torch.Tensor, thick_slices: float, random: np.random.Generator) -> torch.Tensor:
    """Blur across and along the slices; sometimes average slices to thick ones."""
    import torch.nn.functional as functional

    across = float(random.uniform(0.25, 0.75))
    image = blur(image, (across, across, float(random.uniform(0.25, 0.9))))
    if random.random() < thick_slices:
        count = image.shape[2]
        fewer = max(2, round(count / float(random.uniform(1.5, 3.0))))
        averaged = functional.interpolate(image[None, None], size=(*image.shape[:2], fewer), mode="area")
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


def _field_of_view(
    image: torch.Tensor, classes: torch.Tensor, outside: float, settings: RandomScan, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make what the scan does not cover air and background, in place."""
    import torch

    ni, nj, nk = image.shape
    lost = torch.zeros(1, 1, 1, dtype=torch.bool)
    if random.random() < settings.slab:
        count = int(random.integers(max(4, nk // 6), nk))
        first = int(random.integers(0, nk - count + 1))
        k = torch.arange(nk)
        lost = lost | ((k < first) | (k >= first + count))[None, None, :]
    for axis, side in enumerate((ni, nj)):
        along = torch.arange(side).reshape([-1 if a == axis else 1 for a in range(3)])
        for first_side in (True, False):
            if random.random() < settings.cut:
                count = int(random.integers(1, max(2, side // 3)))
                lost = lost | (along < count if first_side else along >= side - count)
    if random.random() < settings.circle:
        middle = (np.array([ni, nj]) - 1) / 2 + random.uniform(-6, 6, 2)
        radius = float(random.uniform(0.36, 0.52)) * max(ni, nj)
        x, y = torch.arange(ni)[:, None, None] - middle[0], torch.arange(nj)[None, :, None] - middle[1]
        lost = lost | (x**2 + y**2 > radius**2)
    gone = lost.expand(image.shape)
    image[gone] = outside
    classes[gone] = 0
    return image, classes
