"""What a nuclide emits where it decays, with the fate of radioactive daughters stated, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..core import Emission, SynthDoseError
from ..physics import decay_chain, decay_emissions, radioactive_progeny


def emissions_of(
    nuclide: str, progeny: str | Mapping[str, float] | None, *, progeny_max_half_life_d: float = 10.0
) -> tuple[tuple[Emission, ...], tuple[str, ...]]:
    """Emissions per decay of `nuclide` and, if asked for, of its progeny.

    Parameters
    ----------
    nuclide : str
    progeny : str, mapping of str to float, or None
        "none", "all" or the fraction of each daughter that decays where the parent does; None if not stated.
    progeny_max_half_life_d : float
        Progeny living longer is left out and named, d.

    Returns
    -------
    emissions : tuple of Emission
    notes : tuple of str
        What was left out.

    Raises
    ------
    SynthDoseError
        If the nuclide or the half-life makes no sense, or a daughter is radioactive and `progeny` is None.
    """
    if not (math.isfinite(progeny_max_half_life_d) and progeny_max_half_life_d > 0):
        raise SynthDoseError(f"progeny_max_half_life_d has to be positive; found {progeny_max_half_life_d}.")
    if progeny is None:
        daughters = radioactive_progeny(nuclide)
        if daughters:
            raise SynthDoseError(
                f'{nuclide} decays to radioactive {", ".join(daughters)}. Say what becomes of it: progeny = "none", '
                f'"all" or a table such as {{ {daughters[0]} = 0.5 }} (fraction that decays where the parent does).'
            )
        progeny = "none"
    emissions = decay_emissions(nuclide, progeny, progeny_max_half_life_d=progeny_max_half_life_d)
    if progeny == "none":
        return emissions, ()
    note = decay_chain(nuclide, progeny, progeny_max_half_life_d=progeny_max_half_life_d).note()
    return emissions, (note,) if note else ()
