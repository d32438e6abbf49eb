"""What a decay (or a beam) sends out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import SynthDoseError

PARTICLES = ("photon", "electron", "positron", "alpha")
MOST_PER_DECAY = 1e9  # far beyond any source, and doses stay within single precision


@dataclass(frozen=True, eq=False)
class Emission:
    """Particles of one kind with a histogram spectrum; a line is a spectrum of one empty bin.

    Parameters
    ----------
    particle : str
        "photon", "electron", "positron" or "alpha".
    yield_per_decay : float
        Number of particles per decay.
    edges_MeV : ndarray of float64, (n + 1,)
        Bin edges, not decreasing; two equal edges make a line.
    probability : ndarray of float64, (n,)
        Per bin, normalised to 1 here; energy is uniform within a bin.
    label : str
        For tables: "beta-", "gamma", "conversion electrons" …

    Raises
    ------
    SynthDoseError
        If the particle is unknown, or a number is negative, not finite or not in order.
    """

    particle: str
    yield_per_decay: float
    edges_MeV: NDArray[np.float64]
    probability: NDArray[np.float64]
    label: str = ""

    def __post_init__(self) -> None:
        if self.particle not in PARTICLES:
            raise SynthDoseError(f"'{self.particle}' is not a known particle. Known: {', '.join(PARTICLES)}.")
        if not 0 <= self.yield_per_decay <= MOST_PER_DECAY:
            raise SynthDoseError(f"yield_per_decay has to be from 0 to {MOST_PER_DECAY:g}; found {self.yield_per_decay}.")
        edges = np.array(self.edges_MeV, dtype=np.float64)
        probability = np.array(self.probability, dtype=np.float64)
        if edges.ndim != 1 or edges.size != probability.size + 1 or probability.size < 1:
            raise SynthDoseError(f"A spectrum of n bins has n + 1 edges; found {probability.size} bins, {edges.size} edges.")
        if not np.isfinite(edges).all() or edges[0] < 0 or edges[-1] <= 0 or (np.diff(edges) < 0).any():
            raise SynthDoseError("Spectrum energies have to be finite, positive and in increasing order.")
        if not np.isfinite(probability).all() or probability.min() < 0 or probability.sum() <= 0:
            raise SynthDoseError("Spectrum probabilities have to be finite, not negative, and not all zero.")
        probability /= probability.sum()
        for array in (edges, probability):
            array.setflags(write=False)
        object.__setattr__(self, "edges_MeV", edges)
        object.__setattr__(self, "probability", probability)

    @classmethod
    def line(cls, particle: str, energy_MeV: float, yield_per_decay: float, label: str = "") -> Emission:
        """One energy, MeV."""
        return cls(particle, yield_per_decay, np.array([energy_MeV, energy_MeV]), np.ones(1), label)

    @property
    def mean_energy_MeV(self) -> float:
        """Mean energy per particle, MeV."""
        return float(self.probability @ (self.edges_MeV[1:] + self.edges_MeV[:-1])) / 2

    @property
    def max_energy_MeV(self) -> float:
        """Upper end of the spectrum, MeV."""
        return float(self.edges_MeV[-1])
