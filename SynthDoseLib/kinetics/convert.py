"""Bringing an activity image to Bq/ml."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import numpy as np

from ..core import ImageVolume, SynthDoseError
from .values import require_positive


def activity_from_counts(image: ImageVolume, *, sensitivity_cps_per_MBq: float, duration_s: float) -> ImageVolume:
    """Turn reconstructed counts per voxel into activity concentration.

    Parameters
    ----------
    image : ImageVolume
        Counts in each voxel over the whole acquisition.
    sensitivity_cps_per_MBq : float
        Calibration factor of the reconstruction: counts per second and MBq.
    duration_s : float
        Time of acquisition that the counts belong to, s.

    Returns
    -------
    ImageVolume
        Bq/ml, with a note that states the factor.

    Raises
    ------
    SynthDoseError
        If a number is not above 0.
    """
    require_positive("sensitivity_cps_per_MBq", sensitivity_cps_per_MBq, "counts/s/MBq")
    require_positive("duration_s", duration_s, "s")
    factor = 1e6 / (sensitivity_cps_per_MBq * duration_s * image.grid.voxel_volume_ml)
    note = (
        f"Counts were turned into Bq/ml with {sensitivity_cps_per_MBq:g} counts/s/MBq and {duration_s:g} s of acquisition "
        f"({factor:.5g} Bq/ml per count)."
    )
    return replace(image, values=np.asarray(image.values * np.float32(factor)), unit="Bq/ml", notes=(*image.notes, note))


def activity_from_suv(
    image: ImageVolume, *, injected_MBq: float, weight_kg: float, seconds_since_injection: float, physical_half_life_s: float
) -> ImageVolume:
    """Turn body-weight SUV into the activity concentration at the start of the acquisition.

    Parameters
    ----------
    image : ImageVolume
        SUV normalised to body weight, g/ml, decay-corrected to the start of the acquisition (DICOM START).
    injected_MBq : float
        At the time of injection.
    weight_kg : float
    seconds_since_injection : float
        From injection to the start of the acquisition, s, 0 or more.
    physical_half_life_s : float

    Returns
    -------
    ImageVolume
        Bq/ml, with a note that states the factor.

    Raises
    ------
    SynthDoseError
        If a number is out of its range.
    """
    require_positive("injected_MBq", injected_MBq, "MBq")
    require_positive("weight_kg", weight_kg, "kg")
    require_positive("physical_half_life_s", physical_half_life_s, "s")
    if not (math.isfinite(seconds_since_injection) and seconds_since_injection >= 0):
        raise SynthDoseError(f"The scan has to start after the injection; found {seconds_since_injection:g} s between them.")
    left_Bq = injected_MBq * 1e6 * math.exp2(-seconds_since_injection / physical_half_life_s)
    factor = left_Bq / (weight_kg * 1000.0)
    note = (
        f"SUV (body weight) was turned into Bq/ml with {injected_MBq:g} MBq injected {seconds_since_injection / 60:.1f} min "
        f"before the scan and {weight_kg:g} kg ({factor:.5g} Bq/ml per SUV)."
    )
    return replace(image, values=np.asarray(image.values * np.float32(factor)), unit="Bq/ml", notes=(*image.notes, note))


def hours_between(administered_at: datetime, acquired_at: datetime) -> float:
    """Hours from administration to scan; raise `SynthDoseError` if the scan came first or the times cannot be compared."""
    if (administered_at.tzinfo is None) != (acquired_at.tzinfo is None):
        raise SynthDoseError(
            f"One of the times has a time zone and the other has none (administered {administered_at}, scan {acquired_at}). "
            "Write both with or both without."
        )
    hours = (acquired_at - administered_at).total_seconds() / 3600.0
    if hours < 0:
        raise SynthDoseError(
            f"The scan ({acquired_at}) was before the administration ({administered_at}). "
            "Check administered_at in the plan and the acquisition time of the activity image."
        )
    return hours
