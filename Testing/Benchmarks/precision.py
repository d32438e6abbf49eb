"""Runs with as many histories as a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from SynthDoseLib.core import Emission, VoxelPhantom
from SynthDoseLib.transport import RunSettings, SimulationResult, simulate
from SynthDoseLib.transport.sources import Source

from .comparison import OWN_SHARE

MARGIN = 0.75  # sigma aimed at, of the largest allowed: the short run knows it to some 20 %


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes
    ----------
    share : float
        Of the histories that the tolerances ask for.
    threads : int
    estimator, device : str
    """

    share: float = 1.0
    threads: int = 0
    estimator: str = "auto"
    device: str = "cpu"


def precise_run(
    phantom: VoxelPhantom,
    source: Source,
    emissions: Sequence[Emission],
    tolerances: Mapping[str, float],
    effort: Effort,
    *,
    seed: int,
    first: int = 100_000,
    most: int = 100_000_000,
) -> SimulationResult:
    """Run until the standard error of every organ of `tolerances` is a third of its tolerance.

    A short run tells how many histories that takes; its own are not used again.
    """
    settings = RunSettings(
        histories=first,
        organs=tuple(tolerances),
        seed=seed,
        device=effort.device,
        threads=effort.threads,
        estimator=effort.estimator,
    )
    trial = simulate(phantom, source, emissions, settings)
    factor = 0.0
    for organ in trial.organs:
        if organ.organ in tolerances:
            wanted = MARGIN * OWN_SHARE * tolerances[organ.organ]
            relative = organ.sigma_Gy / organ.dose_Gy if organ.dose_Gy > 0 else 1.0
            factor = max(factor, (relative / wanted) ** 2)
    histories = int(min(most, max(first * factor, 20_000) * effort.share))
    return simulate(phantom, source, emissions, replace(settings, histories=histories, seed=seed + 1))
