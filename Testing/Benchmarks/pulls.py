"""Is sigma honest? Differences between runs with other seeds, in units of the sigma they state.

The pull of two independent runs is the difference of their doses over the root of the sum of their variances: mean 0, and
width 1 but for the noise of sigma itself, which comes from a finite number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission, LabelMap, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import OrganSource, RunSettings, Source, simulate

SCORES = 100
"""An organ or voxel with fewer scores than that has too skew a distribution for a normal pull."""


@dataclass(frozen=True, eq=False)
class Pulls:
    """Pulls of pairs of runs, over the organs or over the voxels that have enough scores.

    Attributes
    ----------
    mean, square : ndarray of float64, (pairs,)
        Mean of the pull and of its square, pair by pair: organs and voxels of one pair share tracks, pairs share nothing.
        Squares are in units of what Student's t with 2 (batches - 1) degrees of freedom has.
    number : int
        Of organs or voxels.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    number: int

    @property
    def bias(self) -> tuple[float, float]:
        """Mean pull and its standard error: 0 is right."""
        return _mean(self.mean)

    @property
    def width(self) -> tuple[float, float]:
        """Mean square of the pull and its standard error: 1 is right."""
        return _mean(self.square)


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def pulls_of(
    phantom: VoxelPhantom, source: Source, emissions: Sequence[Emission], settings: RunSettings, pairs: int
) -> tuple[Pulls, Pulls]:
    """Pulls of organs and of voxels in pairs of runs, with seeds from that of the settings on."""
    seeds = range(settings.seed, settings.seed + 2 * pairs)
    runs = [simulate(phantom, source, emissions, replace(settings, seed=seed)) for seed in seeds]
    freedom = 2 * (runs[0].batches - 1)
    organs = [[(organ.dose_Gy, organ.sigma_Gy) for organ in run.organs] for run in runs]
    voxels = [np.stack([run.dose.dose_Gy.ravel(), run.dose.sigma_Gy.ravel()], axis=-1) for run in runs]
    return _pulls(np.array(organs), freedom), _pulls(np.array(voxels, np.float64), freedom)


def _pulls(values: NDArray[np.float64], freedom: int) -> Pulls:
    """Pulls of doses and sigmas (runs, n, 2)."""
    dose, sigma = values[..., 0], values[..., 1]
    # n equal scores have a relative sigma of 1 / sqrt(n), unequal ones a larger one; over all runs: not chosen by their noise
    known = np.sqrt((sigma**2).mean(axis=0)) < dose.mean(axis=0) / np.sqrt(SCORES)
    dose, sigma = dose[:, known], sigma[:, known]
    pull = (dose[::2] - dose[1::2]) / np.hypot(sigma[::2], sigma[1::2])
    expected = freedom / (freedom - 2)
    return Pulls(pull.mean(axis=1), (pull**2).mean(axis=1) / expected, int(known.sum()))


def two_organs() -> VoxelPhantom:
    """Water, 13 x 13 x 17 voxels of 4 mm, with two organs of 3 x 3 x 3 voxels 2 cm apart and the rest of the body."""
    grid = VoxelGrid.from_spacing((13, 13, 17), (4.0, 4.0, 4.0))
    labels = np.full(grid.shape, 3, np.uint16)
    labels[5:8, 5:8, 4:7], labels[5:8, 5:8, 11:14] = 1, 2
    organs = LabelMap(grid, labels, organ_table(["source", "target", "body"]))
    water = get_material("water")
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (water,), organs)


SOURCE = OrganSource({"source": 1.0})
