"""From dose per decay to absorbed dose."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..core import DoseMap, OrganDose, SynthDoseError


def _require_decays(decays: float) -> None:
    if not (math.isfinite(decays) and decays > 0):
        raise SynthDoseError(f"The number of decays has to be finite and above 0; found {decays}.")


def absolute_dose(per_decay: DoseMap, decays: float) -> DoseMap:
    """Multiply a dose per decay, and its standard error, by the number of decays.

    Parameters
    ----------
    per_decay : DoseMap
        With ``per = "decay"``.
    decays : float
        From administration to infinity: time-integrated activity in MBq s times 1e6.

    Returns
    -------
    DoseMap
        Gy. `decays` is taken as exact: the standard error stays the Monte Carlo one.

    Raises
    ------
    SynthDoseError
        If the dose is not per decay, or `decays` is not above 0.
    """
    if per_decay.per != "decay":
        raise SynthDoseError(f"Only a dose per decay can be scaled by decays; this one is per '{per_decay.per}'.")
    _require_decays(decays)
    # a dose per decay is around 1e-16 Gy: the product is formed in float64 before it is stored as float32
    dose = (per_decay.dose_Gy.astype(np.float64) * decays).astype(np.float32)
    sigma = (per_decay.sigma_Gy.astype(np.float64) * decays).astype(np.float32)
    return DoseMap(per_decay.grid, dose, sigma)


def absolute_organ_doses(per_decay: Iterable[OrganDose], decays: float) -> tuple[OrganDose, ...]:
    """Multiply organ doses per decay, and their standard errors, by the number of decays; Gy."""
    _require_decays(decays)
    return tuple(OrganDose(o.organ, o.mass_g, o.dose_Gy * decays, o.sigma_Gy * decays) for o in per_decay)
