"""What a simulation is asked for, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import DoseMap, OrganDose, SynthDoseError

DEVICES = ("auto", "cpu", "cuda")
ESTIMATORS = ("auto", "analog")


class CheckpointError(SynthDoseError):
    """A checkpoint cannot be gone on with: it belongs to another simulation, or is damaged."""


def part_name(name: str) -> str:
    """Name that a checkpoint has while it is being written."""
    return f"{name}.part"


@dataclass(frozen=True)
class RunSettings:
    """When a simulation stops (whichever limit is met first) and how it is done.

    Parameters
    ----------
    histories : int, optional
        Particle histories in total; the engine allots them among the emissions.
    relative_sigma : float, optional
        Stop when the relative standard error of every one of `organs` is at most this.
    organs : tuple of str
        Organs that matter: for `relative_sigma` and for the allotment of histories; all organs if empty.
    max_seconds : float, optional
        Wall-clock limit of the transport.
    seed : int
        The same seed gives the same dose for any number of threads (unless `max_seconds` cut the run short).
    device : str
        "cpu"; "cuda" for an NVIDIA GPU, which is an error where none can be used; "auto" for a GPU if there are one and
        numba-cuda, and otherwise the CPU.
    threads : int
        0 for all cores; a GPU takes one.
    estimator : str
        "auto": photon dose by track length where the secondary electrons' range is negligible, analog elsewhere;
        "analog": energy is scored where it is deposited, everywhere.
    components : bool
        Also give the dose split by what the source emits; see `ComponentDose`.

    Raises
    ------
    SynthDoseError
        If a value is out of range, or no limit is given.
    """

    histories: int | None = None
    relative_sigma: float | None = None
    organs: tuple[str, ...] = ()
    max_seconds: float | None = None
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    estimator: str = "auto"
    components: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "organs", (self.organs,) if isinstance(self.organs, str) else tuple(self.organs))
        for name in ("histories", "seed", "threads"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _whole(name, value))
        if self.histories is None and self.relative_sigma is None and self.max_seconds is None:
            raise SynthDoseError("The run needs a limit: histories, relative_sigma or max_seconds.")
        if self.histories is not None and self.histories < 100:
            raise SynthDoseError(f"histories has to be at least 100 for an uncertainty; found {self.histories}.")
        if self.relative_sigma is not None and not 1e-5 <= self.relative_sigma < 1:
            raise SynthDoseError(f"relative_sigma has to be between 0.00001 and 1; found {self.relative_sigma}.")
        if self.max_seconds is not None and not (np.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise SynthDoseError(f"max_seconds has to be positive; found {self.max_seconds}.")
        if not 0 <= self.seed < 2**63:
            raise SynthDoseError(f"seed has to be between 0 and 2^63 - 1; found {self.seed}.")
        if self.device not in DEVICES:
            raise SynthDoseError(f"device '{self.device}' is not known. Allowed: {', '.join(DEVICES)}.")
        if self.threads < 0:
            raise SynthDoseError(f"threads has to be 0 (all cores) or more; found {self.threads}.")
        if self.estimator not in ESTIMATORS:
            raise SynthDoseError(f"estimator '{self.estimator}' is not known. Allowed: {', '.join(ESTIMATORS)}.")


def _whole(name: str, value: Any) -> int:
    is_number = isinstance(value, int | float | np.integer) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value) or value != int(value):
        raise SynthDoseError(f"{name} has to be a whole number; found {value!r}.")
    return int(value)


@dataclass(frozen=True, eq=False)
class ComponentDose:
    """The part of the dose that stems from one kind of emitted particle, with all that it sets free.

    Attributes
    ----------
    component : str
        "photon", "electron" (beta particles, conversion and Auger electrons), "positron" (with its annihilation quanta),
        "alpha" (with recoils).
    dose : DoseMap
        Per decay, on the grid of the phantom.
    organs : tuple of OrganDose
    """

    component: str
    dose: DoseMap
    organs: tuple[OrganDose, ...]


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """Dose per decay (per particle for a beam) with its Monte Carlo standard error.

    Attributes
    ----------
    dose : DoseMap
        Per decay, on the grid of the phantom.
    organs : tuple of OrganDose
        Energy imparted over mass, per decay, for every organ of the phantom that is not empty.
    histories : int
        Particle histories in total.
    histories_per_emission : tuple of int
        In the order of the emissions that were given.
    cpu_s, wall_s : float
        Of the whole call; `transport_cpu_s` of the histories alone with those of the pilot run, summed over threads, s (on a
        GPU by the clock on the wall).
    device : str
        "cpu", or "cuda: " and the name of the GPU.
    threads : int
        Threads that were used; fewer than asked for if memory is short.
    seed : int
    energy_emitted_MeV, energy_deposited_MeV, energy_escaped_MeV : float
        Per decay; a positron counts its kinetic energy plus 1.022 MeV. `energy_deposited_MeV` is what the particles followed
        gave up inside the grid.
    energy_scored_MeV : float
        Integral of the dose map: the same, except where photons score along their tracks what they transfer on average; there
        it is another estimate, and differs by a statistical error.
    batches : int
        Independent batches that sigma comes from.
    notes : tuple of str
        What is remarkable, one sentence each.
    components : tuple of ComponentDose
        If the settings ask for them; their doses sum to the total to rounding.
    missed_sigma : tuple of str
        One of the notes: organs that did not reach the relative sigma asked for, and why. Empty if all did.
    memory_forecast_GiB, memory_peak_GiB : float, optional
        What the run was expected to take besides phantom and source before it began, and how much the process has grown.
    """

    dose: DoseMap
    organs: tuple[OrganDose, ...]
    histories: int
    histories_per_emission: tuple[int, ...]
    cpu_s: float
    wall_s: float
    transport_cpu_s: float
    device: str
    threads: int
    seed: int
    energy_emitted_MeV: float
    energy_deposited_MeV: float
    energy_escaped_MeV: float
    energy_scored_MeV: float
    batches: int
    notes: tuple[str, ...] = ()
    components: tuple[ComponentDose, ...] = ()
    missed_sigma: tuple[str, ...] = ()
    memory_forecast_GiB: float | None = None
    memory_peak_GiB: float | None = None


@dataclass(frozen=True)
class SValues:
    """Doses per decay in one source organ, in which it is uniform in volume.

    Attributes
    ----------
    source : str
    targets : tuple of OrganDose
        Of every organ that is not empty.
    histories, batches : int
    notes : tuple of str
        A relative sigma that was asked for and not reached.
    """

    source: str
    targets: tuple[OrganDose, ...]
    histories: int
    batches: int
    notes: tuple[str, ...] = ()
