"""What is known about an activity image, where it comes from, and what is missing: a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core import ImageVolume


@dataclass(frozen=True)
class ActivityField:
    """One line of the table.

    Attributes
    ----------
    name : str
        As in `ImageVolume.metadata`.
    value : str
        "" if missing.
    unit : str
    source : str
        "header", "plan", "computed" or "missing".
    tag : str
        DICOM keyword that it is read from.
    used_for : str
    """

    name: str
    value: str
    unit: str
    source: str
    tag: str
    used_for: str


_FIELDS: tuple[tuple[str, str, str, str], ...] = (
    ("modality", "", "Modality", "how the values are read"),
    ("unit", "", "Units, RealWorldValueMapping", "activity concentration"),
    ("radionuclide", "", "RadionuclideCodeSequence", "check against the plan"),
    ("half_life_s", "s", "RadionuclideHalfLife", "decay corrections of the file"),
    ("radiopharmaceutical", "", "Radiopharmaceutical", "report"),
    ("injected_activity_MBq", "MBq", "RadionuclideTotalDose", "SUV, residence times"),
    ("injected_at", "", "RadiopharmaceuticalStartDateTime", "time since administration, SUV"),
    ("acquired_at", "", "SeriesTime, AcquisitionTime", "time since administration"),
    ("timezone_offset", "", "TimezoneOffsetFromUTC", "comparing times"),
    ("decay_correction", "", "DecayCorrection", "bringing values to the start of the scan"),
    ("decay_correction_header", "", "DecayCorrection", "what the file said before the reader brought it to the scan"),
    ("corrections", "", "CorrectedImage", "decay during the acquisition"),
    ("duration_s", "s", "ActualFrameDuration", "counts to activity"),
    ("sensitivity_cps_per_MBq", "counts/s/MBq", "", "counts to activity"),
    ("activity_factor_Bq_ml", "Bq/ml", "(7053,1009) Philips", "counts to activity"),
    ("suv_factor", "g/ml", "(7053,1000) Philips", "counts to SUV"),
    ("suv_type", "", "SUVType", "SUV to activity"),
    ("patient_weight_kg", "kg", "PatientWeight", "SUV"),
    ("patient_height_m", "m", "PatientSize", "SUV by lean body mass"),
    ("patient_sex", "", "PatientSex", "SUV by lean body mass"),
    ("frame_of_reference_uid", "", "FrameOfReferenceUID", "registration of time points"),
    ("manufacturer", "", "Manufacturer", "private elements"),
)


def activity_fields(image: ImageVolume, overrides: Mapping[str, Any] | None = None) -> tuple[ActivityField, ...]:
    """List every field of an activity image that something is computed from.

    Parameters
    ----------
    image : ImageVolume
    overrides : mapping, optional
        What the plan or the user stated, by the same names; it wins over the header.

    Returns
    -------
    tuple of ActivityField
        In a fixed order; fields of overrides that are in no header follow.

    Examples
    --------
    >>> import numpy as np
    >>> from SynthDoseLib.core import VoxelGrid
    >>> image = ImageVolume(VoxelGrid.from_spacing((1, 1, 1), (1, 1, 1)), np.ones((1, 1, 1)), "NM", "counts")
    >>> fields = {f.name: f for f in activity_fields(image, {"duration_s": 1200.0})}
    >>> fields["duration_s"].source, fields["unit"].value, fields["acquired_at"].source
    ('plan', 'counts', 'missing')
    """
    given = {name: value for name, value in (overrides or {}).items() if value not in (None, "")}
    known: dict[str, Any] = {"modality": image.modality, "unit": image.unit, "acquired_at": image.acquired_at, **image.metadata}
    rows = []
    for name, unit, tag, used_for in _FIELDS:
        value = given.get(name, known.get(name))
        source = "plan" if name in given else "missing" if value in (None, "") else "header"
        if name == "decay_correction" and source == "header" and known.get("decay_correction_header"):
            source = "computed"
        if name == "decay_correction_header" and source == "missing":
            continue
        rows.append(ActivityField(name, _text(value), unit, source, tag, used_for))
    listed = {row.name for row in rows}
    rows += [ActivityField(name, _text(value), "", "plan", "", "") for name, value in given.items() if name not in listed]
    return tuple(rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return f"{value:.8g}" if isinstance(value, float) else str(value)
