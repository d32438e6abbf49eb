"""Efficiency 1 / (sigma^2 CPU time) of the engine and of PenRed in the same case, for organ means and for voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission
from SynthDoseLib.pipeline.case import Case
from SynthDoseLib.transport import RunSettings, simulate

from .peer import PeerSettings, PenRed

SEEDS = 6  # the variance that 64 batches of one run give is known to 18 %, the mean of six to 7 %
PEER_SEED = 7


@dataclass(frozen=True, eq=False)
class Measured:
    """Relative variance times CPU time of quantities, s: the reciprocal of their efficiency."""

    cost_s: dict[str, float]
    histories_per_s: float


@dataclass(frozen=True, eq=False)
class Contest:
    """A case for both codes.

    Attributes
    ----------
    title : str
    case : Case
        Phantom, source, all emissions.
    histories : int
        Of each of the engine's runs.
    organs : tuple of str
        Quantities: the means of these.
    voxels_of : tuple of str
        One more quantity: the mean over these organs of (mean variance of the voxels) / (mean dose)^2.
    parts : tuple of tuple of (tuple of Emission, float)
        Emissions that PenRed runs together, and the histories per second expected of it.
    """

    title: str
    case: Case
    histories: int
    organs: tuple[str, ...]
    voxels_of: tuple[str, ...]
    parts: tuple[tuple[tuple[Emission, ...], float], ...]
    estimator: str = "auto"

    @property
    def voxels_name(self) -> str:
        """Name of the quantity of voxels."""
        return "voxels of " + ", ".join(self.voxels_of)


def measure_engine(contest: Contest) -> Measured:
    """Cost of the engine, the mean of independent runs with one thread."""
    costs: dict[str, list[float]] = {}
    rates = []
    named = contest.organs or contest.voxels_of
    for seed in range(1, SEEDS + 1):
        settings = RunSettings(
            histories=contest.histories, organs=named, seed=seed, device="cpu", threads=1, estimator=contest.estimator
        )
        result = simulate(contest.case.phantom, contest.case.source, contest.case.emissions, settings)
        rates.append(result.histories / result.transport_cpu_s)
        for organ in result.organs:
            if organ.organ in contest.organs:
                relative = (organ.sigma_Gy / organ.dose_Gy) ** 2
                costs.setdefault(organ.organ, []).append(relative * result.transport_cpu_s)
        if contest.voxels_of:
            relative = voxel_variance(contest, result.dose.dose_Gy, result.dose.sigma_Gy)
            costs.setdefault(contest.voxels_name, []).append(relative * result.transport_cpu_s)
    return Measured({name: float(np.mean(values)) for name, values in costs.items()}, float(np.mean(rates)))


def voxel_variance(contest: Contest, dose: NDArray[np.floating], sigma: NDArray[np.floating]) -> float:
    """Mean over organs of the mean variance of their voxels over the square of their mean dose."""
    shares = []
    for name in contest.voxels_of:
        mask = contest.case.phantom.labels.mask(name)
        variance = np.mean(sigma[mask].astype(np.float64) ** 2)
        shares.append(variance / np.mean(dose[mask], dtype=np.float64) ** 2)
    return float(np.mean(shares))


def measure_peer(contest: Contest, peer: PenRed, settings: PeerSettings, seconds: float) -> Measured:
    """Cost of PenRed: (sum of sqrt(V t))^2 / D^2, what the best split of its time among the emissions reaches."""
    doses: dict[str, float] = {}
    roots: dict[str, float] = {}
    voxel_dose: dict[str, float] = {}
    voxel_roots: dict[str, float] = {}
    rate = 0.0
    case = contest.case
    for emissions, expected_rate in contest.parts:
        histories = int(seconds * expected_rate)
        found = peer.run(case.phantom, case.source, emissions, contest.organs, histories, settings=settings, seed=PEER_SEED)
        weight = sum(emission.yield_per_decay for emission in emissions)
        rate = found.histories / found.cpu_s
        for name in contest.organs:
            mean, error = found.organs[name]
            doses[name] = doses.get(name, 0.0) + weight * mean
            roots[name] = roots.get(name, 0.0) + weight * error * np.sqrt(found.cpu_s)
        for name in contest.voxels_of:
            mask = case.phantom.labels.mask(name)
            voxel_dose[name] = voxel_dose.get(name, 0.0) + weight * float(found.dose_Gy[mask].mean())
            root = weight * np.sqrt((found.sigma_Gy[mask] ** 2).mean() * found.cpu_s)
            voxel_roots[name] = voxel_roots.get(name, 0.0) + float(root)
    costs = {name: float((roots[name] / doses[name]) ** 2) for name in doses}
    if contest.voxels_of:
        costs[contest.voxels_name] = float(np.mean([(voxel_roots[n] / voxel_dose[n]) ** 2 for n in contest.voxels_of]))
    return Measured(costs, rate)


def with_emissions(case: Case, emissions: Sequence[Emission]) -> Case:
    """The same case with other emissions."""
    return replace(case, emissions=tuple(emissions))
