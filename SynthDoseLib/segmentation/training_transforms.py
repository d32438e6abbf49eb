"""Transforms of a training chain that MONAI does not have, in MONAI's form: they run beside its own in one ``Compose``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from ..core import SynthDoseError
from .deformation import Deformation, linear_at, nearest_at, random_places
from .randomised import RandomScan, add_arms, random_scan
from .recipe import AIR_HU, REST

TISSUE, TISSUE_NAMES, SEEN = "tissue", "tissue_names", "seen"


class RandomWindowd(Randomizable, MapTransform):
    """Take a window anywhere along the patient, turned, scaled and bent.

    Parameters
    ----------
    keys : sequence of str
        Of arrays (1, ni, nj, nk) with axes along R, A, S and cubic voxels; absent ones are passed over. Arrays of integers
        are looked up at the nearest voxel.
    spatial_size : sequence of 3 int
        Voxels of the window.
    spacing_mm : float
        Edge of its voxels.
    outside : float
        Value of images beyond their border; labels become 0.
    organ_share : float
        Share of the windows whose middle is at the level of some organ, each organ as often as the others: small ones are
        seen often enough. The others are anywhere.
    organs : sequence of str
        In the order of their classes, from 1: skeleton and rest of the body are everywhere, and not aimed at.
    rotation_deg, scale, axis_scale, shift_mm, bends
        See `Deformation`.
    """

    def __init__(
        self,
        keys: Sequence[str],
        spatial_size: Sequence[int],
        spacing_mm: float,
        outside: float = AIR_HU,
        organ_share: float = 0.0,
        organs: Sequence[str] = (),
        **deformation: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys=True)
        if len(spatial_size) != 3 or min(spatial_size) < 1:
            raise SynthDoseError(f"RandomWindowd needs a spatial_size of three numbers of voxels; found {spatial_size}.")
        self.window = (int(spatial_size[0]), int(spatial_size[1]), int(spatial_size[2]))
        self.spacing_mm, self.outside = float(spacing_mm), float(outside)
        self.organ_share = float(organ_share)
        self.everywhere = tuple(place for place, name in enumerate(organs, start=1) if name in ("skeleton", REST))
        self.deformation = Deformation(**deformation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        places: torch.Tensor | None = None
        for key in self.key_iterator(data):
            values = data[key]
            plain = values.as_tensor() if isinstance(values, MetaTensor) else values
            if places is None:
                random = np.random.default_rng(self.R.randint(2**31))
                level = self._level(data.get("label"), random)
                places = random_places(
                    tuple(plain.shape[1:]),
                    _spacing_mm(values),
                    self.window,
                    self.spacing_mm,
                    self.deformation,
                    random,
                    level=level,
                )
            if plain.is_floating_point():
                result[key] = linear_at(plain[0], places, self.outside)[None]
            else:
                result[key] = nearest_at(plain[0], places)[None]
        return result

    def _level(self, labels: Any, random: np.random.Generator) -> float | None:
        """A slice that holds a random organ."""
        if labels is None or random.random() >= self.organ_share:
            return None
        present = [int(c) for c in torch.unique(labels[0, ::2, ::2, ::2]) if c > 0 and int(c) not in self.everywhere]
        if not present:
            return None
        chosen = (labels[0] == present[int(random.integers(len(present)))]).any(dim=0).any(dim=0)
        slices = torch.nonzero(chosen if not isinstance(chosen, MetaTensor) else chosen.as_tensor()).flatten()
        return float(slices[int(random.integers(len(slices)))])


class RandomScand(Randomizable, MapTransform):
    """Make an image from a map of tissues, of a random scanner; patients that come with an image keep theirs.

    The result says under "seen" what the field of view includes; the rest has to become air once the image is normalised.

    Parameters
    ----------
    keys : str
        Of the image to make.
    spacing_mm : float
        Edge of the cubic voxels.
    organs : sequence of str
        In the order of their classes, from 1: where the skeleton, or else the rest of the body, is in arms beside the patient.
    modality, strange, thick_slices, slab, circle, cut, couch, arms
        See `RandomScan`.
    """

    def __init__(self, keys: str, spacing_mm: float, organs: Sequence[str] = (), **scan: Any) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys=True)
        self.spacing_mm = float(spacing_mm)
        self.rest = list(organs).index(REST) + 1 if REST in organs else 0
        self.bone = list(organs).index("skeleton") + 1 if "skeleton" in organs else self.rest
        self.scan = RandomScan(**scan)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if TISSUE not in result:
            return result
        random = np.random.default_rng(self.R.randint(2**31))
        tissues, classes = result.pop(TISSUE)[0].clone(), result["label"][0].clone()
        names = result.pop(TISSUE_NAMES)
        if random.random() < self.scan.arms:
            add_arms(tissues, classes, names, self.bone, self.rest, random)
        image, classes, seen = random_scan(tissues, classes, names, self.spacing_mm, self.scan, random)
        result[self.keys[0]], result["label"], result[SEEN] = image[None], classes[None], seen[None]
        return result


def _spacing_mm(values: Any) -> float:
    """Edge of the voxels of an array with an affine; 1 without one."""
    if not isinstance(values, MetaTensor):
        return 1.0
    edges = np.linalg.norm(np.asarray(values.affine, np.float64)[:3, :3], axis=0)
    if edges.max() > 1.01 * edges.min():
        raise SynthDoseError(
            f"RandomWindowd needs cubic voxels; found {', '.join(f'{edge:.3g}' for edge in edges)} mm. "
            "Put Spacingd into the preparation."
        )
    return float(edges.mean())
