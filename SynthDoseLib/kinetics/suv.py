"""Standardised uptake values to activity concentrations and back, by body weight or lean body mass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..core import ImageVolume, SynthDoseError
from .values import require_positive

SUV_UNITS = {
    "bw": "g/ml",
    "lbm-james": "g/ml (LBMJAMES128)",
    "lbm-janmahasatian": "g/ml (LBMJANMA)",
}
"""Normalisations that can be converted, and the unit of `ImageVolume` of each; "g/ml (LBM)" does not say which formula."""


def lean_body_mass_kg(formula: str, *, weight_kg: float, height_m: float, sex: str) -> float:
    """Lean body mass, kg.

    Parameters
    ----------
    formula : {"lbm-james", "lbm-janmahasatian"}
    weight_kg, height_m : float
    sex : {"M", "F"}

    Raises
    ------
    SynthDoseError
        If a value is missing or out of range, or the formula gives nothing sensible for it.

    References
    ----------
    James, Research on Obesity, HMSO 1976, as used by DICOM (LBMJAMES128): men 1.10 W - 128 (W/H)², women
    1.07 W - 148 (W/H)², H in cm. Janmahasatian et al., Clin. Pharmacokinet. 44 (2005) 1051-1065: men
    9270 W/(6680 + 216 BMI), women 9270 W/(8780 + 244 BMI).

    Examples
    --------
    >>> [round(lean_body_mass_kg(f, weight_kg=80, height_m=1.8, sex="M"), 2) for f in ("lbm-james", "lbm-janmahasatian")]
    [62.72, 61.73]
    """
    weight, height = require_positive("patient_weight_kg", weight_kg, "kg"), require_positive("patient_height_m", height_m, "m")
    if sex not in ("M", "F"):
        raise SynthDoseError(f'SUV by lean body mass needs the sex, "M" or "F"; found "{sex}". Give patient_sex.')
    if not 0.4 < height < 2.6:
        raise SynthDoseError(f"The height of {height:g} m is no person's; give patient_height_m in metres.")
    if formula == "lbm-james":
        ratio = (weight / (100 * height)) ** 2
        mass = 1.10 * weight - 128 * ratio if sex == "M" else 1.07 * weight - 148 * ratio
        if mass < 0.3 * weight:
            raise SynthDoseError(
                f"James' formula gives a lean body mass of {mass:.1f} kg for {weight:g} kg and {height:g} m: it does not "
                'hold for so heavy a person. Use "lbm-janmahasatian".'
            )
        return mass
    if formula == "lbm-janmahasatian":
        index = weight / height**2
        return 9270 * weight / (6680 + 216 * index) if sex == "M" else 9270 * weight / (8780 + 244 * index)
    raise SynthDoseError(f"There is no lean body mass '{formula}'. Formulas: lbm-james, lbm-janmahasatian.")


def suv_factor_Bq_ml(
    kind: str,
    *,
    injected_MBq: float,
    weight_kg: float,
    seconds_since_injection: float,
    physical_half_life_s: float,
    height_m: float | None = None,
    sex: str = "",
) -> float:
    """Activity concentration, Bq/ml at the start of the acquisition, of an SUV of 1.

    Parameters
    ----------
    kind : {"bw", "lbm-james", "lbm-janmahasatian"}
    injected_MBq : float
        At the time of injection.
    weight_kg : float
    seconds_since_injection : float
        From injection to the start of the acquisition, s, 0 or more.
    physical_half_life_s : float
    height_m, sex
        For lean body mass.

    Raises
    ------
    SynthDoseError
        If a value is missing or out of range.
    """
    if kind not in SUV_UNITS:
        raise SynthDoseError(f"There is no SUV '{kind}'. Normalisations: {', '.join(SUV_UNITS)}.")
    require_positive("injected_MBq", injected_MBq, "MBq")
    require_positive("weight_kg", weight_kg, "kg")
    require_positive("physical_half_life_s", physical_half_life_s, "s")
    if not (math.isfinite(seconds_since_injection) and seconds_since_injection >= 0):
        raise SynthDoseError(f"The scan has to start after the injection; found {seconds_since_injection:g} s between them.")
    mass_kg = weight_kg
    if kind != "bw":
        if height_m is None:
            raise SynthDoseError("SUV by lean body mass needs the height. Give patient_height_m.")
        mass_kg = lean_body_mass_kg(kind, weight_kg=weight_kg, height_m=height_m, sex=sex)
    left_Bq = injected_MBq * 1e6 * math.exp2(-seconds_since_injection / physical_half_life_s)
    return left_Bq / (mass_kg * 1000.0)


def activity_from_suv(
    image: ImageVolume,
    *,
    injected_MBq: float,
    weight_kg: float,
    seconds_since_injection: float,
    physical_half_life_s: float,
    kind: str = "bw",
    height_m: float | None = None,
    sex: str = "",
) -> ImageVolume:
    """Turn SUV into the activity concentration at the start of the acquisition.

    Parameters
    ----------
    image : ImageVolume
        SUV, g/ml; by its definition it does not depend on the time that the scanner corrected it to.
    injected_MBq, weight_kg, seconds_since_injection, physical_half_life_s, kind, height_m, sex
        As for `suv_factor_Bq_ml`; `kind` has to be the normalisation of the image.

    Returns
    -------
    ImageVolume
        Bq/ml, with a note that states the factor.

    Raises
    ------
    SynthDoseError
        If a number is out of its range or missing.
    """
    factor = suv_factor_Bq_ml(
        kind,
        injected_MBq=injected_MBq,
        weight_kg=weight_kg,
        seconds_since_injection=seconds_since_injection,
        physical_half_life_s=physical_half_life_s,
        height_m=height_m,
        sex=sex,
    )
    note = (
        f"SUV ({_normalised(kind)}) was turned into Bq/ml with {injected_MBq:g} MBq injected "
        f"{seconds_since_injection / 60:.1f} min before the scan and {weight_kg:g} kg ({factor:.5g} Bq/ml per SUV)."
    )
    return replace(image, values=np.asarray(image.values * np.float32(factor)), unit="Bq/ml", notes=(*image.notes, note))


def suv_from_activity(
    image: ImageVolume,
    *,
    injected_MBq: float,
    weight_kg: float,
    seconds_since_injection: float,
    physical_half_life_s: float,
    kind: str = "bw",
    height_m: float | None = None,
    sex: str = "",
) -> ImageVolume:
    """Turn an activity concentration, Bq/ml at the start of the acquisition, into SUV; see `activity_from_suv`."""
    if image.unit != "Bq/ml":
        raise SynthDoseError(f"SUV is computed from Bq/ml; the image is in '{image.unit or 'unknown units'}'.")
    factor = suv_factor_Bq_ml(
        kind,
        injected_MBq=injected_MBq,
        weight_kg=weight_kg,
        seconds_since_injection=seconds_since_injection,
        physical_half_life_s=physical_half_life_s,
        height_m=height_m,
        sex=sex,
    )
    note = f"Bq/ml was turned into SUV ({_normalised(kind)}; {factor:.5g} Bq/ml per SUV)."
    metadata = {**image.metadata, "suv_type": {"bw": "BW", "lbm-james": "LBMJAMES128", "lbm-janmahasatian": "LBMJANMA"}[kind]}
    return replace(
        image,
        values=np.asarray(image.values / np.float32(factor)),
        unit=SUV_UNITS[kind],
        metadata=metadata,
        notes=(*image.notes, note),
    )


def _normalised(kind: str) -> str:
    return {"bw": "body weight", "lbm-james": "lean body mass, James", "lbm-janmahasatian": "lean body mass, Janmahasatian"}[
        kind
    ]
