"""Emissions in groups that share their histories: each line of a nuclide with hundreds of them need not have its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core import Emission, ParticleList, SynthDoseError
from .geometry import PHOTON, POSITRON
from .histories import ALPHA, KINDS
from .sampling import Spectrum, build_spectrum
from .tables import E_HIGHEST, REST_ENERGY

MOST_SINGLE = 10  # up to so many emissions each is a group of its own
_ENERGY_STEPS_MEV = {
    "photon": (0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6),
    "electron": (0.01, 0.05, 0.2),
    "positron": (),
    "alpha": (1.0, 6.5),  # recoil nuclei below
}
ALPHA_HIGHEST_MEV = 10.0


@dataclass(frozen=True, eq=False)
class EmissionGroup:
    """Emissions of one particle and similar energy.

    Attributes
    ----------
    kind : int
        As on the stack.
    label : str
    yield_per_decay : float
    mean_energy_MeV, max_energy_MeV : float
    spectrum : Spectrum
    """

    kind: int
    label: str
    yield_per_decay: float
    mean_energy_MeV: float
    max_energy_MeV: float
    spectrum: Spectrum


def group_emissions(emissions: Sequence[Emission]) -> tuple[EmissionGroup, ...]:
    """Group emissions; those of zero yield are left out.

    Raises
    ------
    SynthDoseError
        If nothing is emitted, or an energy lies above the tables.
    """
    for emission in emissions:
        limit = ALPHA_HIGHEST_MEV if emission.particle == "alpha" else E_HIGHEST
        if emission.max_energy_MeV > limit:
            raise SynthDoseError(
                f"The source emits {emission.particle}s of {emission.max_energy_MeV:g} MeV; the engine's tables end at "
                f"{limit:g} MeV."
            )
    places = [n for n, emission in enumerate(emissions) if emission.yield_per_decay > 0]
    if not places:
        raise SynthDoseError("The source emits nothing: every yield_per_decay is 0.")
    if len(places) <= MOST_SINGLE:
        return tuple(_group(emissions, [place]) for place in places)
    members: dict[tuple[str, int], list[int]] = {}
    for place in places:
        emission = emissions[place]
        step = int(np.searchsorted(_ENERGY_STEPS_MEV[emission.particle], emission.mean_energy_MeV))
        members.setdefault((emission.particle, step), []).append(place)
    return tuple(_group(emissions, members[key]) for key in sorted(members))


def list_group(particles: ParticleList) -> EmissionGroup:
    """The histories of a list of particles as one group; its spectrum is not used.

    Raises
    ------
    SynthDoseError
        If a particle has more energy than the tables.
    """
    highest = float(particles.energy_MeV.max())
    if highest > E_HIGHEST:
        count = int(np.count_nonzero(particles.energy_MeV > E_HIGHEST))
        raise SynthDoseError(
            f"{count} of {particles.energy_MeV.size} particles of the list have more than {E_HIGHEST:g} MeV (up to "
            f"{highest:g}), where the engine's tables end."
        )
    mean = float(np.average(particles.energy_MeV, weights=particles.weight))
    per_history = particles.histories / particles.original_histories
    positrons = particles.energy_MeV[particles.particle == POSITRON]
    if positrons.size:
        # the quanta of annihilation in flight, and the electrons that they set free
        highest = max(highest, min(float(positrons.max()) + 2 * REST_ENERGY, E_HIGHEST))
    spectrum = build_spectrum([Emission.line("photon", mean, 1.0)], [0])
    return EmissionGroup(PHOTON, "particle list", per_history, mean, highest, spectrum)


def _group(emissions: Sequence[Emission], places: list[int]) -> EmissionGroup:
    chosen = [emissions[place] for place in places]
    total = sum(e.yield_per_decay for e in chosen)
    mean = sum(e.yield_per_decay * e.mean_energy_MeV for e in chosen) / total
    label = chosen[0].label or chosen[0].particle if len(chosen) == 1 else f"{len(chosen)} {chosen[0].particle} emissions"
    return EmissionGroup(
        KINDS[chosen[0].particle], f"{label} {1000 * mean:.4g} keV", total, mean, max(e.max_energy_MeV for e in chosen),
        build_spectrum(chosen, places),
    )  # fmt: skip


def relative_cost(group: EmissionGroup) -> float:
    """Expected time of a history in microseconds, roughly: a model, because a clock would make the allotment irreproducible."""
    if group.kind == ALPHA:
        return 0.3
    if group.kind == KINDS["photon"]:
        return 1.5
    return 0.3 + 2.5 * group.mean_energy_MeV + (3.0 if group.kind == KINDS["positron"] else 0.0)
