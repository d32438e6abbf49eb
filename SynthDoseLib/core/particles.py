"""Particles that another program recorded one by one where they crossed a surface: a phase space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .emissions import PARTICLES
from .errors import SynthDoseError

_UNIT_TOLERANCE = 1e-2  # of a direction's length; single-precision and rounded text files miss 1 by far less


@dataclass(frozen=True, eq=False)
class ParticleList:
    """Particles one by one, in a frame of their own. The arrays are taken over and become read-only.

    Particles that come from the same original history (a decay, or an electron on the target of an accelerator) follow each
    other; only the first of them has `first_of_history`.

    Parameters
    ----------
    position_mm : ndarray of float32, (n, 3)
    direction : ndarray of float32, (n, 3)
        Unit vectors; made exactly so here.
    energy_MeV : ndarray of float32, (n,)
        Kinetic, above 0.
    particle : ndarray of uint8, (n,)
        Place in `PARTICLES`: photon 0, electron 1, positron 2.
    weight : ndarray of float32, (n,)
        Statistical weight, 0 or more.
    first_of_history : ndarray of bool, (n,)
        The first particle counts as True whatever it says.
    original_histories : float
        Histories behind the list, those that left no particle included: what a dose is per.
    notes : tuple of str
        What the reader did or found remarkable.

    Raises
    ------
    SynthDoseError
        If there is no particle, or one is not physical.
    """

    position_mm: NDArray[np.float32]
    direction: NDArray[np.float32]
    energy_MeV: NDArray[np.float32]
    particle: NDArray[np.uint8]
    weight: NDArray[np.float32]
    first_of_history: NDArray[np.bool_]
    original_histories: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = np.asarray(self.energy_MeV).size
        if count == 0:
            raise SynthDoseError("The list of particles is empty.")
        kinds = {"position_mm": np.float32, "direction": np.float32, "energy_MeV": np.float32, "particle": np.uint8,
                 "weight": np.float32, "first_of_history": np.bool_}  # fmt: skip
        for name, kind in kinds.items():
            array: NDArray[Any] = np.ascontiguousarray(getattr(self, name), dtype=kind)
            shape = (count, 3) if name in ("position_mm", "direction") else (count,)
            if array.shape != shape:
                raise SynthDoseError(f"{name} of a list of {count} particles has to have shape {shape}; found {array.shape}.")
            if kind == np.float32 and not np.isfinite(array).all():
                bad = int(np.count_nonzero(~np.isfinite(array.reshape(count, -1)).all(axis=1)))
                raise SynthDoseError(f"{bad} of {count} particles have a {name} that is not a finite number.")
            object.__setattr__(self, name, array)
        self._require(self.energy_MeV > 0, "an energy of 0 or less")
        self._require(self.weight >= 0, "a negative weight")
        self._require(self.particle <= PARTICLES.index("positron"), "a kind other than photon, electron and positron")
        length = np.linalg.norm(self.direction, axis=1)
        self._require(np.abs(length - 1) <= _UNIT_TOLERANCE, "a direction that is no unit vector")
        if not self.weight.any():
            raise SynthDoseError("Every particle of the list has weight 0: there is no source.")
        object.__setattr__(self, "direction", self.direction / length[:, None])
        first = self.first_of_history.copy()
        first[0] = True
        object.__setattr__(self, "first_of_history", first)
        for name in kinds:
            getattr(self, name).setflags(write=False)
        if not (np.isfinite(self.original_histories) and self.original_histories > 0):
            raise SynthDoseError(f"The number of original histories has to be positive; found {self.original_histories}.")
        if self.original_histories < self.histories:
            raise SynthDoseError(
                f"The list holds particles of {self.histories} histories, more than the {self.original_histories:g} original "
                "histories it is said to come from. Give the right number as original_histories."
            )

    @property
    def histories(self) -> int:
        """Histories that left at least one particle."""
        return int(np.count_nonzero(self.first_of_history))

    def _require(self, good: NDArray[np.bool_], fault: str) -> None:
        bad = int(np.count_nonzero(~good))
        if bad:
            place = int(np.argmin(good)) + 1
            raise SynthDoseError(f"{bad} of {good.size} particles have {fault} (the first is number {place}).")
