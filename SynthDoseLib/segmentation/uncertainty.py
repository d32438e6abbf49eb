"""How sure a segmentation is: what small changes of the image do to each organ's volume (test-time augmentation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..core import ImageVolume, LabelMap, SynthDoseError
from .preparation import Motion
from .tables import organ_group

ROTATION_DEG = 4.0  # standard deviations of the changes; those of how patients lie and scanners differ
SHIFT_MM = 4.0
ZOOM = 0.03
GAIN, OFFSET, NOISE = 0.03, 0.01, 0.01
COVERAGE = 0.95


@dataclass(frozen=True)
class OrganVolume:
    """Volume of one organ and its uncertainty.

    Attributes
    ----------
    organ : str
    volume_ml : float
        Of the result.
    sigma_ml : float
        Standard deviation over the inferences, brought to `volume_ml`.
    low_ml, high_ml : float
        Interval that holds a further inference with a probability of 95 %.
    inferences_ml : tuple of float
        What each inference found, before islands and holes were mended; the unchanged image first.
    """

    organ: str
    volume_ml: float
    sigma_ml: float
    low_ml: float
    high_ml: float
    inferences_ml: tuple[float, ...]

    @property
    def relative_sigma(self) -> float:
        """`sigma_ml` over `volume_ml`; nan for an empty organ."""
        return self.sigma_ml / self.volume_ml if self.volume_ml > 0 else math.nan


def motions(image: ImageVolume, samples: int, seed: int) -> list[Motion]:
    """Draw changes of an image: turned, moved, scaled, values scaled and shifted, noise.

    Images are not mirrored: a network that tells left from right would be asked something else.

    Parameters
    ----------
    image : ImageVolume
        Turned about its middle.
    samples : int
    seed : int
        The same changes for the same seed.
    """
    middle = image.grid.to_ras((np.asarray(image.grid.shape[::-1]) - 1) / 2)
    result = []
    for number in range(samples):
        rng = np.random.default_rng([seed, number])
        linear = _rotation(rng.normal(0.0, math.radians(ROTATION_DEG), 3)) * math.exp(rng.normal(0.0, ZOOM))
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = middle - linear @ middle + rng.normal(0.0, SHIFT_MM, 3)
        gain, offset = math.exp(rng.normal(0.0, GAIN)), float(rng.normal(0.0, OFFSET))
        result.append(Motion(matrix, gain, offset, NOISE, int(rng.integers(1 << 31))))
    return result


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix of a rotation vector, radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)


def organ_volumes(labels: LabelMap, inferences_ml: NDArray[np.float64]) -> tuple[OrganVolume, ...]:
    """Volumes of all organs with their uncertainty.

    Parameters
    ----------
    labels : LabelMap
        The result; indices are the channels of the network.
    inferences_ml : ndarray of float64, (inferences, channels)
    """
    counts = labels.voxel_counts()
    return tuple(
        volume_interval(organ.name, counts[organ.name] * labels.grid.voxel_volume_ml, inferences_ml[:, organ.index].tolist())
        for organ in labels.organs
    )


def volume_interval(organ: str, volume_ml: float, inferences_ml: Sequence[float]) -> OrganVolume:
    """Spread of several volumes of one organ, brought to its volume in the result.

    Raises
    ------
    SynthDoseError
        If there are fewer than two.

    Examples
    --------
    Two volumes tell little, ten more (Student's t, one further inference):

    >>> found = volume_interval("liver", 100.0, [98.0, 102.0] * 5)
    >>> round(found.sigma_ml, 2), round(found.low_ml, 1), round(found.high_ml, 1)
    (2.11, 95.0, 105.0)
    """
    if len(inferences_ml) < 2:
        raise SynthDoseError(f"A spread needs two inferences or more; found {len(inferences_ml)}.")
    values = np.asarray(inferences_ml, np.float64)
    mean = float(values.mean())
    sigma = float(values.std(ddof=1)) * (volume_ml / mean if mean > 0 else 0.0)
    reach = float(special.stdtrit(len(values) - 1, (1 + COVERAGE) / 2)) * sigma * math.sqrt(1 + 1 / len(values))
    return OrganVolume(organ, volume_ml, sigma, max(0.0, volume_ml - reach), volume_ml + reach, tuple(values.tolist()))


def relative_volume_sigmas(volumes: Sequence[OrganVolume]) -> dict[str, float]:
    """Relative standard uncertainty of the volume per organ, and per group of organs that are all there.

    What a whole inference finds of a group is added up, so that organs that take from each other do not count twice.
    """
    known = {volume.organ: volume for volume in volumes if volume.volume_ml > 0}
    result = {name: volume.relative_sigma for name, volume in known.items()}
    for group in _groups_of(known):
        members = [known[name] for name in organ_group(group) if name in known]
        total = sum(member.volume_ml for member in members)
        inferences = np.sum([member.inferences_ml for member in members], axis=0)
        result.setdefault(group, volume_interval(group, total, inferences.tolist()).relative_sigma)
    return {name: min(sigma, 0.999) for name, sigma in result.items()}


def _groups_of(names: Sequence[str] | dict[str, OrganVolume]) -> list[str]:
    from .tables import canonical_organs

    found = canonical_organs()
    return sorted({group for name in names if name in found for group in found[name].groups})
