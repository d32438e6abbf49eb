"""The scans of a case: a table node with a row per activity volume, what is known of it and what is missing.

The table is part of the scene: it refers to the volumes, can be edited in any table view, and is saved with them.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import slicer
import vtk

from ..core import ImageVolume, SynthDoseError
from .volumes import MODALITY_ATTRIBUTE, UNIT_ATTRIBUTE

VOLUMES_REFERENCE = "SynthDose.activityVolume"
HEADER_ATTRIBUTE = "SynthDose.header"
"""JSON of what is known about how a volume was acquired; see `noteHeader`."""

MOST_TIME_POINTS = 10
COLUMNS = ("volume", "when", "unit", "missing", "cps_per_MBq", "duration_s", "weight_kg", "decay_corrected_to", "known_from")
COLUMN_TIPS = {
    "volume": "SPECT, PET, or map of time-integrated activity",
    "when": "Hours after administration, or date and time of the scan, as in 2024-02-01 10:00",
    "unit": "Bq/ml, counts, g/ml (SUV), MBq*s or MBq*s/ml (time-integrated)",
    "cps_per_MBq": "Sensitivity, counts per second and MBq, of an image in counts",
    "duration_s": "Acquisition time, s, of an image in counts",
    "weight_kg": "Patient weight, kg, of an image in SUV",
    "decay_corrected_to": "START of the scan, ADMIN(istration) or NONE",
    "known_from": "Where the values come from: header, name of the volume, or typed",
    "missing": "What has to be filled in",
}
UNITS = ("Bq/ml", "counts", "g/ml", "MBq*s", "MBq*s/ml")
INTEGRATED = ("MBq*s", "MBq*s/ml")
_HEADER_KEYS = (
    "radionuclide",
    "injected_activity_MBq",
    "injected_at",
    "duration_s",
    "sensitivity_cps_per_MBq",
    "patient_weight_kg",
    "decay_correction",
    "decay_correction_header",
)
_HOURS_IN_NAME = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*h(?:ours?|r)?(?![a-z])", re.IGNORECASE)
_SPELLINGS = {
    "bqml": "Bq/ml",
    "bq/cc": "Bq/ml",
    "bq/cm3": "Bq/ml",
    "cnts": "counts",
    "cps": "counts",
    "gml": "g/ml",
    "suv": "g/ml",
}
_SPELLINGS |= {
    "suvbw": "g/ml",
    "{suvbw}g/ml": "g/ml",
    "mbqs": "MBq*s",
    "mbq s": "MBq*s",
    **{unit.lower(): unit for unit in UNITS},
}


@dataclass(frozen=True)
class Recognised:
    """What is known of an activity volume; "" and None are unknown.

    Attributes
    ----------
    modality, unit, nuclide, decay_correction : str
    hours : float or None
        After administration.
    acquired_at, administered_at : datetime or None
    administered_MBq, sensitivity_cps_per_MBq, duration_s, weight_kg : float or None
    source : str
        "header", "name" or "".
    """

    modality: str = ""
    unit: str = ""
    nuclide: str = ""
    decay_correction: str = ""
    hours: float | None = None
    acquired_at: datetime | None = None
    administered_at: datetime | None = None
    administered_MBq: float | None = None
    sensitivity_cps_per_MBq: float | None = None
    duration_s: float | None = None
    weight_kg: float | None = None
    source: str = ""


def noteHeader(node: Any, image: ImageVolume) -> None:
    """Keep what is known of the acquisition on a volume node, without who the patient is."""
    known: dict[str, Any] = {key: image.metadata[key] for key in _HEADER_KEYS if image.metadata.get(key) not in (None, "")}
    if image.acquired_at is not None:
        known["acquired_at"] = image.acquired_at
    node.SetAttribute(HEADER_ATTRIBUTE, json.dumps(known, default=str) if known else None)
    node.SetAttribute(MODALITY_ATTRIBUTE, image.modality or None)
    node.SetAttribute(UNIT_ATTRIBUTE, image.unit or None)


def dicomSeries(node: Any) -> tuple[Path, str] | None:
    """Folder and Series Instance UID of a volume that Slicer loaded from its DICOM database, None for others."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return None
    first = database.fileForInstance(uids[0])
    if not first or not Path(first).is_file():
        return None
    return Path(first).parent, str(database.fileValue(first, "0020,000e") or "")


def readHeader(node: Any) -> None:
    """Note what the DICOM files of a volume from Slicer's database say; other volumes stay as they are."""
    if node.GetAttribute(HEADER_ATTRIBUTE) or (found := dicomSeries(node)) is None:
        return
    from ..io import read_image

    folder, series = found
    noteHeader(node, read_image(folder, series=series or None))


def recognise(node: Any) -> Recognised:
    """Say what is known of an activity volume from its header, as kept on the node, and from its name."""
    try:
        known = json.loads(node.GetAttribute(HEADER_ATTRIBUTE) or "{}")
    except ValueError:
        known = {}
    acquired, administered = _moment(known.get("acquired_at")), _moment(known.get("injected_at"))
    hours = (acquired - administered).total_seconds() / 3600 if acquired and administered else None
    unit = _unit(node)
    source = "header" if known or unit else ""
    if hours is None and acquired is None and (found := _HOURS_IN_NAME.search(node.GetName() or "")):
        hours, source = float(found.group(1)), "header, name" if source else "name"
    return Recognised(
        modality=node.GetAttribute(MODALITY_ATTRIBUTE) or "",
        unit=unit,
        nuclide=str(known.get("radionuclide") or ""),
        decay_correction=str(known.get("decay_correction_header") or known.get("decay_correction") or ""),
        hours=hours,
        acquired_at=acquired,
        administered_at=administered,
        administered_MBq=known.get("injected_activity_MBq"),
        sensitivity_cps_per_MBq=known.get("sensitivity_cps_per_MBq"),
        duration_s=known.get("duration_s"),
        weight_kg=known.get("patient_weight_kg"),
        source=source,
    )


def _unit(node: Any) -> str:
    coded = node.GetVoxelValueUnits()
    texts = [node.GetAttribute(UNIT_ATTRIBUTE) or "", coded.GetCodeValue() or "" if coded is not None else ""]
    return next((_SPELLINGS[text.strip().lower()] for text in texts if text.strip().lower() in _SPELLINGS), "")


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def timePointTable(scene: Any, name: str = "SynthDose scans") -> Any:
    """Add an empty table of scans to the scene."""
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    for title in COLUMNS:
        column = vtk.vtkStringArray()
        column.SetName(title)
        table.AddColumn(column)
        table.SetColumnDescription(title, COLUMN_TIPS[title])
    table.SetUseColumnTitleAsColumnHeader(False)
    return table


def volumesOf(table: Any) -> list[Any]:
    """Volume nodes of the rows, None where one has been deleted."""
    scene = table.GetScene()
    return [scene.GetNodeByID(_volumeId(table, row) or "") for row in range(table.GetNumberOfRows())]


def _volumeId(table: Any, row: int) -> str | None:
    identifier = table.GetNthNodeReferenceID(VOLUMES_REFERENCE, row)
    return str(identifier) if identifier else None


def addTimePoint(table: Any, node: Any) -> Recognised:
    """Add a volume to the table, in the order of time where it is known, with what is recognised.

    Raises
    ------
    SynthDoseError
        If it is in the table already, or the table is full.
    """
    volumes = volumesOf(table)
    if node in volumes:
        raise SynthDoseError(f"'{node.GetName()}' is in the table already.")
    if len(volumes) >= MOST_TIME_POINTS:
        raise SynthDoseError(f"{MOST_TIME_POINTS} time points are the most; remove one first.")
    readHeader(node)
    known = recognise(node)
    when = ""
    if known.hours is not None:
        when = f"{known.hours:.6g}"
    elif known.acquired_at is not None:
        when = known.acquired_at.isoformat(sep=" ")
    values = {
        "volume": node.GetName(),
        "when": when,
        "unit": known.unit,
        "cps_per_MBq": _number(known.sensitivity_cps_per_MBq),
        "duration_s": _number(known.duration_s if known.unit == "counts" else None),
        "weight_kg": _number(known.weight_kg if known.unit == "g/ml" else None),
        "decay_corrected_to": known.decay_correction,
        "known_from": known.source,
    }
    row = table.AddEmptyRow()
    table.SetNthNodeReferenceID(VOLUMES_REFERENCE, row, node.GetID())
    for title, text in values.items():
        table.SetCellText(row, COLUMNS.index(title), text)
    updateMissing(table)
    return known


def removeTimePoint(table: Any, row: int) -> None:
    """Take a row out of the table; the volume stays in the scene."""
    ids = [_volumeId(table, index) for index in range(table.GetNumberOfRows())]
    del ids[row]
    table.RemoveRow(row)
    table.RemoveNodeReferenceIDs(VOLUMES_REFERENCE)
    for index, identifier in enumerate(ids):
        table.SetNthNodeReferenceID(VOLUMES_REFERENCE, index, identifier)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _cells(table: Any, row: int) -> dict[str, str]:
    return {title: table.GetCellText(row, column).strip() for column, title in enumerate(COLUMNS)}


def _missing(cells: dict[str, str], volume: Any) -> str:
    if volume is None:
        return "the volume"
    unit = cells["unit"]
    if not unit:
        return "unit"
    needed = {"counts": ("cps_per_MBq", "duration_s"), "g/ml": ("weight_kg",)}.get(unit, ())
    gaps = [title for title in needed if not cells[title]]
    if unit not in INTEGRATED and not cells["when"]:
        gaps.insert(0, "when")
    return ", ".join(gaps)


def updateMissing(table: Any) -> bool:
    """Bring the column of missing values, and the names of the volumes, up to date; return whether nothing is missing."""
    complete = True
    for row, volume in enumerate(volumesOf(table)):
        cells = _cells(table, row)
        missing = _missing(cells, volume)
        complete = complete and not missing
        for title, text in (("missing", missing), ("volume", volume.GetName() if volume is not None else cells["volume"])):
            if cells[title] != text:
                table.SetCellText(row, COLUMNS.index(title), text)
    return complete


def missingValues(table: Any) -> str:
    """What has to be filled in, for people; "" if nothing."""
    for row, volume in enumerate(volumesOf(table)):
        if missing := _missing(cells := _cells(table, row), volume):
            return f"{cells['volume'] or 'Row ' + str(row + 1)}: fill in {missing} in the table"
    return ""


def activityTables(table: Any) -> list[dict[str, Any]]:
    """Tables ``[[activity]]`` of a plan; the volumes are ``activity_1.nrrd`` and so on.

    Raises
    ------
    SynthDoseError
        If a cell cannot be understood.
    """
    found = []
    for row in range(table.GetNumberOfRows()):
        cells = _cells(table, row)
        name, unit = cells["volume"], cells["unit"]
        if unit not in UNITS:
            raise SynthDoseError(f"{name}: the unit is '{unit}'. Allowed: {', '.join(UNITS)}.")
        file = f"activity_{row + 1}.nrrd"
        if unit == "MBq*s":
            found.append({"tia_MBq_s": file})
            continue
        values: dict[str, Any] = {"path": file, "unit": unit}
        if unit not in INTEGRATED:
            values |= _when(cells["when"], name)
        for title, key in (
            ("cps_per_MBq", "sensitivity_cps_per_MBq"),
            ("duration_s", "duration_s"),
            ("weight_kg", "patient_weight_kg"),
        ):
            if cells[title]:
                values[key] = _positive(cells[title], f"{name}: {title}")
        if cells["decay_corrected_to"]:
            values["decay_correction"] = cells["decay_corrected_to"]
        found.append(values)
    return found


def _positive(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise SynthDoseError(f"{what} is '{text}'. Write a positive number.")
    return value


def _when(text: str, name: str) -> dict[str, Any]:
    try:
        return {"hours_after_administration": float(text)}
    except ValueError:
        moment = _moment(text)
    if moment is None:
        raise SynthDoseError(
            f"{name}: when is '{text}'. Write hours after administration, or a date and time as 2024-02-01 10:00."
        )
    return {"acquired_at": moment}
