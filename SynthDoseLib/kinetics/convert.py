"""Bringing an activity image to Bq/ml."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import numpy as np

from ..core import ImageVolume, SynthDoseError
from .values import require_positive


def activity_from_counts(
    image: ImageVolume, *, sensitivity_cps_per_MBq: float, duration_s: float, physical_half_life_s: float | None = None
) -> ImageVolume:
    """Turn reconstructed counts per voxel into activity concentration.

    Parameters
    ----------
    image : ImageVolume
        Counts in each voxel over the whole acquisition.
    sensitivity_cps_per_MBq : float
        Calibration factor of the reconstruction: counts per second and MBq.
    duration_s : float
        Time of acquisition that the counts belong to, s.
    physical_half_life_s : float, optional
        Corrects for decay during the acquisition, so that the activity is that at its start, unless the header says that
        this was done (``corrections`` in the metadata holds DECY).

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
    decay, said = 1.0, ""
    if physical_half_life_s is not None and "DECY" not in str(image.metadata.get("corrections", "")).split():
        decay = decay_during(duration_s, physical_half_life_s)
        said = f"; decay during the acquisition was corrected for by {decay:.5f}"
    factor *= decay
    note = (
        f"Counts were turned into Bq/ml with {sensitivity_cps_per_MBq:g} counts/s/MBq and {duration_s:g} s of acquisition "
        f"({factor:.5g} Bq/ml per count{said})."
    )
    return replace(image, values=np.asarray(image.values * np.float32(factor)), unit="Bq/ml", notes=(*image.notes, note))


def decay_during(duration_s: float, physical_half_life_s: float) -> float:
    """Activity at the start of an acquisition over the mean activity during it, λT/(1 - exp(-λT)).

    Examples
    --------
    >>> round(decay_during(1800, 6586.2), 4)  # F-18, half an hour
    1.0977
    """
    exponent = (
        math.log(2)
        * require_positive("duration_s", duration_s, "s")
        / require_positive("physical_half_life_s", physical_half_life_s, "s")
    )
    return exponent / -math.expm1(-exponent)


def to_scan_time(
    image: ImageVolume, *, correction: str, seconds_since_injection: float, physical_half_life_s: float
) -> ImageVolume:
    """Bring an activity image to the start of its acquisition, once.

    Parameters
    ----------
    image : ImageVolume
        Bq/ml. Its metadata may say what it is corrected to (``decay_correction``); then that has to agree.
    correction : {"ADMIN", "START", "NONE"}
        What the values are decay-corrected to: the administration, or the start of the acquisition (nothing to do).
    seconds_since_injection, physical_half_life_s : float

    Raises
    ------
    SynthDoseError
        If `correction` is not one of these, or contradicts what the reader has already done.
    """
    if correction not in ("ADMIN", "START", "NONE"):
        raise SynthDoseError(f'decay_correction has to be "ADMIN", "START" or "NONE"; found "{correction}".')
    if correction != "ADMIN":
        return image
    if image.metadata.get("decay_correction_header"):
        raise SynthDoseError(
            "The activity image was already brought from the injection to the start of the scan when it was read; a second "
            'decay correction is refused. Leave decay_correction out, or set it to "START".'
        )
    factor = math.exp2(-seconds_since_injection / require_positive("physical_half_life_s", physical_half_life_s, "s"))
    note = (
        "The activity image was decay-corrected to the administration; it was brought to the scan, "
        f"{seconds_since_injection:.0f} s later (factor {factor:.5g})."
    )
    metadata = {**image.metadata, "decay_correction": "START", "decay_correction_header": "ADMIN"}
    return replace(image, values=np.asarray(image.values * np.float32(factor)), metadata=metadata, notes=(*image.notes, note))


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
