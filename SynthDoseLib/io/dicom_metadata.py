"""What a DICOM header says about patient, nuclide and time, under plain names."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from ..core import SYMBOLS
from .text import clean_text

UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts", "PROPCNTS": "counts"}
"""DICOM units of PET to those of `ImageVolume`; others are passed on as they are."""

GE_SCAN_START = (0x0009, 0x100D)
"""Private element of GE: date and time at which the scan started."""

_ELEMENT_NAMES = {
    "actinium": "Ac", "astatine": "At", "bismuth": "Bi", "carbon": "C", "chromium": "Cr", "cobalt": "Co", "copper": "Cu",
    "fluorine": "F", "fluor": "F", "gallium": "Ga", "holmium": "Ho", "indium": "In", "iodine": "I", "krypton": "Kr",
    "lead": "Pb", "lutetium": "Lu", "lutecium": "Lu", "nitrogen": "N", "oxygen": "O", "phosphorus": "P", "radium": "Ra",
    "rhenium": "Re", "rubidium": "Rb", "samarium": "Sm", "scandium": "Sc", "strontium": "Sr", "technetium": "Tc",
    "terbium": "Tb", "thallium": "Tl", "thorium": "Th", "tin": "Sn", "xenon": "Xe", "yttrium": "Y", "zirconium": "Zr",
}  # fmt: skip


def nuclide_name(text: object) -> str:
    """Find a nuclide in free text and spell it "Lu-177"; "" if there is none.

    Examples
    --------
    >>> [nuclide_name(t) for t in ("18F", "^99m^Technetium", "Lu-177 DOTATATE", "177Lu", "FDG")]
    ['F-18', 'Tc-99m', 'Lu-177', 'Lu-177', '']
    """
    cleaned = clean_text(text, 128).replace("[", " ").replace("]", " ").replace("(", " ").replace(")", " ")
    for pattern in (
        r"(?<![A-Za-z0-9])\^?(?P<mass>\d{1,3})(?P<meta>m?)\^?[\s-]?(?P<element>[A-Za-z]{1,10})(?![a-z])",
        r"(?<![A-Za-z])(?P<element>[A-Za-z]{1,10})[\s^-]?\^?(?P<mass>\d{1,3})(?P<meta>m?)(?![A-Za-z0-9])",
    ):
        for found in re.finditer(pattern, cleaned):
            element = found["element"]
            symbol = _ELEMENT_NAMES.get(element.lower(), element.capitalize() if len(element) <= 2 else "")
            mass = int(found["mass"])
            # an element has more nucleons than protons and fewer than three per proton (hydrogen aside)
            if symbol in SYMBOLS and SYMBOLS.index(symbol) + 1 <= mass <= 3 * (SYMBOLS.index(symbol) + 1) + 2:
                return f"{symbol}-{mass}{found['meta']}"
    return ""


def number(value: object) -> float | None:
    """A finite number of a header, or None."""
    try:
        result = float(str(value))
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def moment(date: object, time: object = None) -> datetime | None:
    """Combine a DICOM date and time (or one date-time); None if they say nothing usable. The zone offset is dropped."""
    digits = re.sub(r"[:-]", "", str(date or "")) if time is not None else re.split(r"[+-]", str(date or ""))[0]
    text = digits + re.sub(":", "", str(time or "")) if time is not None else digits
    found = re.match(r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})?(\d{2})?(\.\d+)?", text.strip())
    if not found:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    try:
        # a leap second is written as 60
        whole = datetime(year, month, day, hour, minute, min(second, 59))
    except ValueError:
        return None
    return whole + timedelta(microseconds=round(float(found[7] or 0) * 1e6))


def acquisition_moment(header: Dataset) -> datetime | None:
    """When the acquisition of one image started, by the most specific tags that are filled."""
    return (
        moment(header.get("AcquisitionDateTime"))
        or moment(header.get("AcquisitionDate"), header.get("AcquisitionTime") or "")
        or moment(header.get("SeriesDate"), header.get("SeriesTime") or "")
        or moment(header.get("ContentDate"), header.get("ContentTime") or "")
        or moment(header.get("StudyDate"), header.get("StudyTime") or "")
    )


def reference_moment(headers: list[Dataset], modality: str) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the time that the values refer to, and notes.

    PET corrected to its start refers to the series time, unless that is later than the first acquisition: then the
    series was made from another one, and the start of the scan in GE's private element is meant, or else the first
    acquisition (as in the SUV recipe of QIBA).
    """
    times = [t for t in map(acquisition_moment, headers) if t is not None]
    earliest = min(times, default=None)
    if modality != "PT":
        return earliest, ()
    series = moment(headers[0].get("SeriesDate"), headers[0].get("SeriesTime") or "")
    if series is None or earliest is None or series <= earliest:
        return series or earliest, ()
    started = moment(headers[0][GE_SCAN_START].value) if GE_SCAN_START in headers[0] else None
    if started is not None and started <= earliest and "GE" in str(headers[0].get("Manufacturer", "")).upper():
        return started, (
            f"The series time ({series:%Y-%m-%d %H:%M:%S}) is later than the first acquisition: the scan's start in the "
            f"scanner's private element ({started:%Y-%m-%d %H:%M:%S}) was taken as the time that the values refer to.",
        )
    note = (
        f"The series time ({series:%Y-%m-%d %H:%M:%S}) is later than the first acquisition ({earliest:%Y-%m-%d %H:%M:%S}): "
        "the acquisition was taken as the time that the values refer to."
    )
    return earliest, (note,)


def patient_metadata(header: Dataset) -> dict[str, Any]:
    """Weight, height, sex, age and identifiers of study, series and frame of reference; only what is there."""
    age = clean_text(header.get("PatientAge"), 8)
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
    found = re.fullmatch(r"(\d{1,3})([YMWD])", age)
    height = number(header.get("PatientSize"))
    values: dict[str, Any] = {
        "patient_weight_kg": _positive(header.get("PatientWeight")),
        # some systems write centimetres
        "patient_height_m": height / 100 if height and height > 3 else height or None,
        "patient_id": clean_text(header.get("PatientID")),
        "patient_sex": clean_text(header.get("PatientSex"), 8),
        "patient_age": age,
        "patient_age_years": int(found[1]) / per_year[found[2]] if found else None,
        "units": clean_text(header.get("Units"), 16),
        "frame_of_reference_uid": clean_text(header.get("FrameOfReferenceUID")),
        "study_instance_uid": clean_text(header.get("StudyInstanceUID")),
        "series_instance_uid": clean_text(header.get("SeriesInstanceUID")),
        "series_description": clean_text(header.get("SeriesDescription")),
        "manufacturer": clean_text(header.get("Manufacturer")),
    }
    return {key: value for key, value in values.items() if value not in (None, "")}


def _positive(value: object) -> float | None:
    result = number(value)
    return result if result is not None and result > 0 else None


def nuclide_metadata(header: Dataset, acquired_at: datetime | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the header says about the radiopharmaceutical and its corrections, and notes."""
    values: dict[str, Any] = {
        "decay_correction": clean_text(header.get("DecayCorrection"), 16).upper(),
        "suv_type": clean_text(header.get("SUVType"), 16).upper(),
    }
    values |= acquisition_metadata(header)
    notes: list[str] = []
    items = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(items) > 1:
        notes.append(f"The header lists {len(items)} radiopharmaceuticals; the first was used.")
    if items:
        item = items[0]
        dose, remark = _dose_MBq(item, clean_text(header.get("Modality")))
        notes += remark
        code = (item.get("RadionuclideCodeSequence") or [Dataset()])[0]
        texts = (code.get("CodeMeaning"), code.get("CodeValue"), item.get("Radiopharmaceutical"))
        values["radionuclide"] = next((n for n in map(nuclide_name, texts) if n), "")
        values["radiopharmaceutical"] = clean_text(item.get("Radiopharmaceutical"))
        values["injected_activity_MBq"] = dose
        values["half_life_s"] = _positive(item.get("RadionuclideHalfLife"))
        injected, note = _injection(item, header, acquired_at)
        values["injected_at"] = injected
        notes += note
    return {key: value for key, value in values.items() if value not in (None, "")}, tuple(notes)


def acquisition_metadata(header: Dataset) -> dict[str, Any]:
    """Duration and corrections of the acquisition, and the vendor's factors; None for what is not there."""
    rotation = (header.get("RotationInformationSequence") or [Dataset()])[0]
    frame_ms, frames = number(rotation.get("ActualFrameDuration")), number(rotation.get("NumberOfFramesInRotation"))
    duration_ms = frame_ms * frames if frame_ms and frames else number(header.get("ActualFrameDuration"))
    corrections = header.get("CorrectedImage") or ()
    listed = [corrections] if isinstance(corrections, str) else list(corrections)
    factors = philips_factors(header)
    return {
        "duration_s": duration_ms / 1000 if duration_ms else None,
        "timezone_offset": timezone_offset(header),
        "corrections": " ".join(clean_text(c, 16) for c in listed),
        "activity_factor_Bq_ml": factors.get("Bq/ml"),
        "suv_factor": factors.get("g/ml"),
    }


def timezone_offset(header: Dataset) -> str:
    """Offset from UTC of the header's times, as "+0100"; "" if it is not said.

    Examples
    --------
    >>> header = Dataset()
    >>> header.AcquisitionDateTime = "20240331103000.0+0200"
    >>> timezone_offset(header)
    '+0200'
    """
    for text in (header.get("TimezoneOffsetFromUTC"), header.get("AcquisitionDateTime")):
        found = re.search(r"[+-]\d{4}$", str(text or "").strip())
        if found:
            return found[0]
    return ""


def seconds_between(earlier: datetime, later: datetime, offset: str) -> float | None:
    """Seconds from a time to one of the header, whose zone is `offset`; None if only one of them has a zone."""
    if earlier.tzinfo is not None and later.tzinfo is None and offset:
        later = datetime.fromisoformat(f"{later.isoformat()}{offset[:3]}:{offset[3:]}")
    if (earlier.tzinfo is None) != (later.tzinfo is None):
        return None
    return (later - earlier).total_seconds()


def philips_factors(header: Dataset) -> dict[str, float]:
    """Factors from counts to Bq/ml and to body-weight SUV (g/ml) in Philips' private elements, those that are there."""
    if "PHILIPS" not in str(header.get("Manufacturer", "")).upper():
        return {}
    found = {}
    for unit, tag in (("Bq/ml", (0x7053, 0x1009)), ("g/ml", (0x7053, 0x1000))):
        value = _positive(header[tag].value) if tag in header else None
        if value is not None:
            found[unit] = value
    return found


def _dose_MBq(item: Dataset, modality: str) -> tuple[float | None, tuple[str, ...]]:
    """Injected activity: the standard has it in Bq for PET and in MBq for NM, scanners in either."""
    dose = _positive(item.get("RadionuclideTotalDose"))
    # nobody images less than 0.1 MBq or gives more than 100 GBq
    if dose is None or (modality != "PT" and dose < 1e5):
        return dose, ()
    if modality == "PT" and dose >= 1e5:
        return dose / 1e6, ()
    said, meant, value = ("Bq", "MBq", dose) if modality == "PT" else ("MBq", "Bq", dose / 1e6)
    return value, (f"The header's injected activity, {dose:g} {said}, is no patient's; it was taken as {meant}.",)


def _injection(item: Dataset, header: Dataset, acquired_at: datetime | None) -> tuple[datetime | None, tuple[str, ...]]:
    full = moment(item.get("RadiopharmaceuticalStartDateTime"))
    if full is not None:
        return full, ()
    time = item.get("RadiopharmaceuticalStartTime")
    if not time:
        return None, ()
    date = acquired_at.strftime("%Y%m%d") if acquired_at else header.get("SeriesDate") or header.get("StudyDate")
    injected = moment(date, time)
    if injected is not None and acquired_at is not None and injected > acquired_at:
        injected -= timedelta(days=1)
        return injected, ("The injection time has no date and lies after the scan's: the day before was taken.",)
    return injected, ()
