"""Standardised uptake values back to activity concentration."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np

from ..core import ImageVolume, SynthDoseError


def suv_to_bq_ml(
    image: ImageVolume,
    *,
    patient_weight_kg: float | None = None,
    injected_activity_MBq: float | None = None,
    injected_at: datetime | None = None,
    half_life_s: float | None = None,
    acquired_at: datetime | None = None,
) -> ImageVolume:
    """Convert body-weight SUV (g/ml) to Bq/ml at the start of the scan.

    Parameters
    ----------
    image : ImageVolume
        In g/ml.
    patient_weight_kg, injected_activity_MBq, injected_at, half_life_s, acquired_at
        Used instead of what the file says, or where it says nothing.

    Returns
    -------
    ImageVolume
        In Bq/ml; the values refer to `acquired_at`.

    Raises
    ------
    SynthDoseError
        If the image is no body-weight SUV, or something is missing: it is named.

    Notes
    -----
    SUV = C(t) m / (A 2^(-(t - t_A) / T)), with the activity concentration C at the start of the scan t, the body
    mass m in g, and the activity A injected at t_A.
    """
    if image.unit != "g/ml":
        raise SynthDoseError(f"The image is in '{image.unit or 'unknown units'}', not in g/ml (SUV).")
    kind = str(image.metadata.get("suv_type") or "BW")
    if kind != "BW":
        raise SynthDoseError(f"The SUV is normalised to '{kind}', not to the body weight (BW); it is not converted.")
    says = image.metadata
    weight = patient_weight_kg or says.get("patient_weight_kg")
    activity = injected_activity_MBq or says.get("injected_activity_MBq")
    start = injected_at or says.get("injected_at")
    half_life = half_life_s or says.get("half_life_s")
    scan = acquired_at or image.acquired_at
    named = {
        "patient_weight_kg": weight,
        "injected_activity_MBq": activity,
        "injected_at": start,
        "half_life_s": half_life,
        "acquired_at": scan,
    }
    missing = [name for name, value in named.items() if not value]
    if missing or not (weight and activity and start and half_life and scan):
        raise SynthDoseError(f"SUV cannot be converted to Bq/ml: {', '.join(missing)} is not in the file. Give it.")
    if min(weight, activity, half_life) <= 0 or not np.isfinite([weight, activity, half_life]).all():
        raise SynthDoseError("Weight, injected activity and half-life have to be positive numbers.")
    seconds = (scan - start).total_seconds()
    if seconds < 0:
        raise SynthDoseError(f"The injection ({start}) is later than the scan ({scan}). Correct one of them.")
    factor = activity * 1e6 * 0.5 ** (seconds / half_life) / (weight * 1000)
    note = (
        f"SUV was converted to Bq/ml with {activity:.1f} MBq injected {seconds / 60:.1f} min before the scan, "
        f"half-life {half_life:g} s, weight {weight:g} kg (1 g/ml = {factor:.1f} Bq/ml)."
    )
    return replace(image, values=image.values * np.float32(factor), unit="Bq/ml", acquired_at=scan, notes=(*image.notes, note))
