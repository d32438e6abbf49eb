"""S values: absorbed fractions from them, and organ doses by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..core import Emission, OrganDose, SynthDoseError

MEV_J = 1.602176634e-13


@dataclass(frozen=True)
class SValue:
    """Mean dose of a target organ per decay in a source organ.

    Attributes
    ----------
    source, target : str
    target_mass_g : float
    dose_Gy, sigma_Gy : float
        Per decay, Gy/(Bq s).
    """

    source: str
    target: str
    target_mass_g: float
    dose_Gy: float
    sigma_Gy: float = 0.0


@dataclass(frozen=True)
class AbsorbedFraction:
    """Part of the emitted energy that a target organ absorbs, with its standard error; specific: per kg of the target."""

    source: str
    target: str
    absorbed_fraction: float
    sigma: float
    specific_per_kg: float


def absorbed_fractions_of(values: Iterable[SValue], emissions: Sequence[Emission]) -> tuple[AbsorbedFraction, ...]:
    """Absorbed fractions per pair of organs: S times the target's mass over the energy emitted per decay.

    Parameters
    ----------
    values : iterable of SValue
        Rows of ``s_values.csv`` of `simulate`.
    emissions : sequence of Emission
        What the S values were made with. Of positrons the annihilation quanta count as emitted.

    Raises
    ------
    SynthDoseError
        If nothing is emitted.

    Examples
    --------
    >>> whole = SValue("liver", "liver", 1000.0, 1.602176634e-13)
    >>> absorbed_fractions_of([whole], [Emission.line("photon", 2.0, 1.0)])[0].absorbed_fraction
    0.5
    """
    quanta = 2 * 0.51099895
    emitted = sum(e.yield_per_decay * (e.mean_energy_MeV + (quanta if e.particle == "positron" else 0.0)) for e in emissions)
    if emitted <= 0:
        raise SynthDoseError("The emissions carry no energy; there is no absorbed fraction.")
    result = []
    for value in values:
        mass_kg = value.target_mass_g / 1000.0
        scale = mass_kg / (emitted * MEV_J)
        fraction = value.dose_Gy * scale
        specific = fraction / mass_kg if mass_kg > 0 else math.nan
        result.append(AbsorbedFraction(value.source, value.target, fraction, value.sigma_Gy * scale, specific))
    return tuple(result)


def organ_doses_by_s_values(
    values: Iterable[SValue], tia_MBq_s: Mapping[str, float | tuple[float, float]]
) -> tuple[OrganDose, ...]:
    """Organ doses of time-integrated activities: the sum over sources of S times activity (MIRD).

    Parameters
    ----------
    values : iterable of SValue
    tia_MBq_s : mapping of source to MBq s, or to (MBq s, standard uncertainty)
        Every source needs S values.

    Returns
    -------
    tuple of OrganDose
        Gy; uncertainties of activities and of S values, taken as independent between sources.

    Raises
    ------
    SynthDoseError
        If a source has no S value.

    References
    ----------
    W.E. Bolch et al., MIRD Pamphlet 21, J. Nucl. Med. 50 (2009) 477.
    """
    table: dict[str, dict[str, SValue]] = {}
    sources: set[str] = set()
    for value in values:
        table.setdefault(value.target, {})[value.source] = value
        sources.add(value.source)
    lacking = [name for name in tia_MBq_s if name not in sources]
    if lacking:
        raise SynthDoseError(
            f"There is no S value for the source '{lacking[0]}'. Sources: {', '.join(sorted(sources)) or 'none'}."
        )
    doses = []
    for target, by_source in table.items():
        dose, variance, mass = 0.0, 0.0, 0.0
        for source, value in by_source.items():
            mass = value.target_mass_g
            given = tia_MBq_s.get(source, 0.0)
            amount, sigma = given if isinstance(given, tuple) else (given, 0.0)
            dose += amount * 1e6 * value.dose_Gy
            variance += (sigma * 1e6 * value.dose_Gy) ** 2 + (amount * 1e6 * value.sigma_Gy) ** 2
        doses.append(OrganDose(target, mass, dose, math.sqrt(variance)))
    return tuple(doses)
