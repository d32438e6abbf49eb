"""Red marrow from blood samples, and activity that no image shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core import Emission, SynthDoseError
from .spongiosa import Spongiosa, absorbed_fractions

MEV_J = 1.602176634e-13
EXTRACELLULAR_FRACTION = 0.19  # of red marrow: RMECFF, Sgouros 1993
BLOOD_G_ML, MARROW_G_ML = 1.06, 1.03


@dataclass(frozen=True)
class BloodMarrowDose:
    """Dose to red marrow by what circulates in it, and by the rest of the body.

    Attributes
    ----------
    self_Gy, self_sigma_Gy : float
        By charged particles emitted in the marrow.
    remainder_Gy : float
        By activity in the rest of the body; nan if it was not given.
    marrow_blood_ratio : float
        Activity concentration of marrow over that of blood, per mass.
    notes : tuple of str
    """

    self_Gy: float
    self_sigma_Gy: float
    remainder_Gy: float
    marrow_blood_ratio: float
    notes: tuple[str, ...]

    @property
    def total_Gy(self) -> float:
        """Self dose and what the rest of the body adds, as far as known."""
        return self.self_Gy + (0.0 if math.isnan(self.remainder_Gy) else self.remainder_Gy)


def marrow_to_blood_ratio(hematocrit: float, *, extracellular_fraction: float = EXTRACELLULAR_FRACTION) -> float:
    """Activity concentration of marrow over blood for what enters no cells and does not bind: RMECFF / (1 - hematocrit).

    References
    ----------
    G. Sgouros, J. Nucl. Med. 34 (1993) 689.

    Examples
    --------
    >>> f"{marrow_to_blood_ratio(0.47):.2f}"
    '0.36'
    """
    if not 0 <= hematocrit < 1:
        raise SynthDoseError(f"The hematocrit is a fraction between 0 and 1; found {hematocrit}.")
    return extracellular_fraction / (1 - hematocrit)


def marrow_dose_from_blood(
    blood_MBq_s_ml: float,
    emissions: Sequence[Emission],
    *,
    hematocrit: float | None = None,
    ratio: float | None = None,
    relative_sigma: float = 0.0,
    remainder_MBq_s: float | None = None,
    remainder_s_value_Gy_MBq_s: float | None = None,
) -> BloodMarrowDose:
    """Dose to red marrow from the time-integrated activity concentration of blood.

    ``D = C_blood ratio Delta phi``: activity per mass of marrow times the energy of charged particles times the fraction
    that stays in the marrow of the spongiosa (see `absorbed_fractions`). The mass of the marrow cancels, so that the result
    holds for the patient's own (Traino). The remainder's dose is its time-integrated activity times the S value given.

    Parameters
    ----------
    blood_MBq_s_ml : float
        Decays per volume of whole blood, from administration to infinity.
    emissions : sequence of Emission
    hematocrit : float, optional
        For `marrow_to_blood_ratio`; needed unless `ratio` is given.
    ratio : float, optional
        Activity concentration of marrow over blood, where it is known (1 for many peptides and antibodies' fragments).
    relative_sigma : float
        Of the concentration.
    remainder_MBq_s, remainder_s_value_Gy_MBq_s : float, optional
        Time-integrated activity of the rest of the body, and the S value from it to red marrow, Gy per MBq s.

    Raises
    ------
    SynthDoseError
        If a number is missing or out of range.

    References
    ----------
    G. Sgouros, J. Nucl. Med. 34 (1993) 689; A.C. Traino et al., Phys. Med. Biol. 52 (2007) 5231; C. Hindorf et al., Eur. J.
    Nucl. Med. Mol. Imaging 37 (2010) 1238.
    """
    if not (math.isfinite(blood_MBq_s_ml) and blood_MBq_s_ml >= 0):
        raise SynthDoseError(f"The concentration of blood has to be 0 or more; found {blood_MBq_s_ml} MBq s/ml.")
    if ratio is None and hematocrit is None:
        raise SynthDoseError("Give the hematocrit, or the ratio of activity concentrations marrow over blood.")
    given = marrow_to_blood_ratio(hematocrit) if ratio is None and hematocrit is not None else float(ratio or 0.0)
    if not given > 0:
        raise SynthDoseError(f"The ratio of marrow over blood has to be above 0; found {given}.")
    per_g = blood_MBq_s_ml * 1e6 / BLOOD_G_ML * given
    self_Gy = per_g * marrow_energy_J(emissions) * 1000.0
    rest = math.nan
    notes = [f"Red marrow from blood: activity concentration of marrow is {given:.2f} of that of blood, by mass."]
    if remainder_MBq_s is not None and remainder_s_value_Gy_MBq_s is not None:
        rest = remainder_MBq_s * remainder_s_value_Gy_MBq_s
    else:
        notes.append("What the rest of the body adds to the marrow's dose was not given and is not in it.")
    notes.append("Binding to marrow, blood cells or bone is not seen in blood: then the marrow's dose is higher.")
    return BloodMarrowDose(self_Gy, self_Gy * relative_sigma, rest, given, tuple(notes))


def marrow_energy_J(emissions: Sequence[Emission], spongiosa: Spongiosa | None = None) -> float:
    """Energy per decay that charged particles from the marrow leave in the marrow, J."""
    structure = Spongiosa() if spongiosa is None else spongiosa
    total = 0.0
    for emission in emissions:
        if emission.particle == "photon":
            continue
        middle = (emission.edges_MeV[1:] + emission.edges_MeV[:-1]) / 2
        particle = "alpha" if emission.particle == "alpha" else "electron"
        kept, _ = absorbed_fractions(structure, middle.clip(1e-3), source="marrow", particle=particle)
        total += emission.yield_per_decay * float(emission.probability @ (middle * kept)) * MEV_J
    return total


@dataclass(frozen=True)
class Remainder:
    """Activity that was given but lies outside the image.

    Attributes
    ----------
    activity_MBq, sigma_MBq : float
        At the time of the image.
    fraction : float
        Of the activity that is left of the administered one by decay.
    note : str
    """

    activity_MBq: float
    sigma_MBq: float
    fraction: float
    note: str


def activity_outside(
    administered_MBq: float,
    seen_MBq: float,
    hours: float,
    physical_half_life_h: float,
    *,
    excreted_MBq: float = 0.0,
    whole_body_fraction: float | None = None,
    relative_sigma_administered: float = 0.05,
    relative_sigma_seen: float = 0.0,
) -> Remainder:
    """Activity outside the field of view: what the body holds less what the image shows.

    The body holds the administered activity, decayed, less what was excreted; or, with whole-body counts, their fraction of
    the decayed activity.

    Parameters
    ----------
    administered_MBq : float
    seen_MBq : float
        In the image, at its own time.
    hours : float
        After administration.
    physical_half_life_h : float
    excreted_MBq : float
        Until then, decayed to then.
    whole_body_fraction : float, optional
        Whole-body count rate over that right after administration, both decay-corrected; 1 before the first voiding.
    relative_sigma_administered, relative_sigma_seen : float

    Raises
    ------
    SynthDoseError
        If numbers are out of range, or the image holds more than the body by over three standard uncertainties.

    Examples
    --------
    >>> left = activity_outside(7400, 2500, 24.0, 159.5, excreted_MBq=3000)
    >>> f"{left.activity_MBq:.0f} MBq"
    '1167 MBq'
    """
    if not (administered_MBq > 0 and seen_MBq >= 0 and hours >= 0 and physical_half_life_h > 0 and excreted_MBq >= 0):
        raise SynthDoseError(
            f"Administered activity and half-life have to be above 0, the others 0 or more; found {administered_MBq} MBq "
            f"given, {seen_MBq} MBq seen, {excreted_MBq} MBq excreted, {hours} h, half-life {physical_half_life_h} h."
        )
    if whole_body_fraction is not None and not 0 < whole_body_fraction <= 1.1:
        raise SynthDoseError(f"The whole-body fraction lies between 0 and 1; found {whole_body_fraction}.")
    decayed = administered_MBq * 2 ** (-hours / physical_half_life_h)
    body = decayed * whole_body_fraction if whole_body_fraction is not None else decayed - excreted_MBq
    sigma = math.hypot(relative_sigma_administered * body, relative_sigma_seen * seen_MBq)
    left = body - seen_MBq
    if left < -3 * sigma:
        raise SynthDoseError(
            f"The image shows {seen_MBq:.4g} MBq, more than the {body:.4g} MBq that the body can hold {hours:g} h after "
            f"{administered_MBq:.4g} MBq. Check the calibration, the times and the administered activity."
        )
    source = "whole-body counts" if whole_body_fraction is not None else "administered activity less decay and excretion"
    note = (
        f"{max(0.0, left):.4g} MBq ({max(0.0, left) / decayed:.0%} of the decayed administered activity) lie outside the "
        f"image, from {source}; their dose to the organs in the image is not in the result unless stated."
    )
    return Remainder(max(0.0, left), sigma, max(0.0, left) / decayed, note)
