"""Tables and charts of a run folder as nodes, and how the panel finds them: as references of the dose volume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import SynthDoseError
from .tables import numbersFromTexts, readCsv, tableNode, tableNodeFromCsv

TABLES: Mapping[str, tuple[str, str]] = {
    "organTable": ("organ_doses.csv", "organ doses"),
    "budgetTable": ("uncertainty_budget.csv", "uncertainty budget"),
    "limitsTable": ("constraints.csv", "limits"),
    "bedTable": ("bed.csv", "BED and EQD2"),
    "metricsTable": ("dvh_metrics.csv", "histogram metrics"),
    "kineticsTable": ("kinetics.csv", "kinetics"),
    "fieldsTable": ("activity_fields.csv", "what the images say"),
    "enginesTable": ("engines.csv", "dose engines"),
    "cumulativeTable": ("cumulative_organ_doses.csv", "cumulative organ doses"),
    "qualityTable": ("phantom.json", "phantom quality"),
}
"""Role of the reference from the dose volume, file of the run folder, and what people call it."""

DOSE_COLUMN = "dose ± total [Gy]"
ORGAN_COLUMNS = ("organ", DOSE_COLUMN, "mean_dose_Gy", "total_sigma_Gy", "sigma_Gy")
CHART_ROLES = ("dvhChart", "activityChart")
ROLE_PREFIX = "SynthDose."
QUALITY_ATTRIBUTE = "SynthDose.qualityVerdict"
CURVES_SHOWN = 8


def runTables(folder: Path, title: str, scene: Any) -> dict[str, Any]:
    """Add every table that a run folder has to the scene, by role."""
    found = {}
    for role, (file, words) in TABLES.items():
        path = folder / file
        if not path.is_file():
            continue
        name = f"{title} {words}"
        if file.endswith(".json"):
            found[role] = qualityTable(path, name, scene)
        elif role == "organTable":
            found[role] = organDoseTable(path, name, scene)
        else:
            found[role] = tableNodeFromCsv(path, name, scene)
    return found


def withUncertainty(value: float, sigma: float) -> str:
    """Return a value with its standard uncertainty to two digits, as it is read aloud.

    Examples
    --------
    >>> withUncertainty(0.0963448, 0.00504504), withUncertainty(241.97, 25.75), withUncertainty(3.0, float("nan"))
    ('0.0963 ± 0.0050', '242 ± 26', '3')
    """
    if not math.isfinite(value):
        return ""
    if not (math.isfinite(sigma) and sigma > 0):
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(sigma)))
    return f"{value:.{digits}f} ± {sigma:.{digits}f}"


def organDoseTable(path: Path, name: str, scene: Any) -> Any:
    """Add ``organ_doses.csv`` with a column of doses with their uncertainties in words, the highest dose first."""
    columns = readCsv(path)
    known = {title: numbers for title, texts in columns.items() if (numbers := numbersFromTexts(texts)) is not None}
    means = known.get("mean_dose_Gy")
    if means is None or "organ" not in columns:
        return tableNodeFromCsv(path, name, scene)
    totals = known.get("total_sigma_Gy", [math.nan] * len(means))
    words = [withUncertainty(mean, total) for mean, total in zip(means, totals, strict=True)]
    order = sorted(range(len(means)), key=lambda row: -means[row] if math.isfinite(means[row]) else math.inf)
    shown: dict[str, Sequence[Any]] = {**columns, **known, DOSE_COLUMN: words}
    titles = [title for title in ORGAN_COLUMNS if title in shown] + [title for title in columns if title not in ORGAN_COLUMNS]
    return tableNode({title: [shown[title][row] for row in order] for title in titles}, name, scene)


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record)
    except (OSError, ValueError, TypeError) as error:
        raise SynthDoseError(f"{path} cannot be read: {error}.") from error


def qualityTable(path: Path, name: str, scene: Any) -> Any:
    """Add the verdict of ``phantom.json`` per organ, worst first, with what was found and what to do about it."""
    record = _record(path)
    rows = []
    for organ in record.get("organs", []):
        findings = [f for f in record.get("findings", []) if f["organ"] == organ["organ"]]
        found = "; ".join(f"{f['check']}: {f['found']}" for f in findings)
        action = " ".join(f["action"] for f in findings if f["action"])
        mass = organ.get("mass_g")
        rows.append((organ["organ"], organ["verdict"], float("nan") if mass is None else float(mass), found, action))
    rows += [
        ("", f["severity"], float("nan"), f"{f['check']}: {f['found']}", f["action"])
        for f in record.get("findings", [])
        if not f["organ"]
    ]
    order = ("fail", "warning", "note", "pass")
    rows.sort(key=lambda row: order.index(row[1]) if row[1] in order else 0)
    columns = (
        dict(zip(("organ", "verdict", "mass_g", "found", "what_to_do"), zip(*rows, strict=True), strict=True)) if rows else {}
    )
    return tableNode(columns, name, scene)


def qualityVerdict(folder: Path) -> str:
    """The phantom's overall verdict, "pass", "warning" or "fail"; "" if the folder does not say."""
    path = folder / "phantom.json"
    return str(_record(path).get("verdict", "")) if path.is_file() else ""


def activityChart(
    path: Path, name: str, scene: Any, colours: Mapping[str, tuple[float, float, float]]
) -> tuple[Any, list[Any]]:
    """Add a chart of ``time_activity.csv``: measured activities as points and the fitted courses as lines.

    The regions with the highest activity are drawn; the table has all.

    Returns
    -------
    chart : vtkMRMLPlotChartNode
    details : list of nodes
        The table and the plot series.
    """
    columns = readCsv(path)
    courses: dict[str, list[tuple[float, ...]]] = {}
    for row in zip(*(columns[key] for key in ("organ", "time_h", "activity_MBq", "fitted_MBq")), strict=True):
        courses.setdefault(row[0], []).append(tuple(float(text) if text else float("nan") for text in row[1:]))
    rows = max(len(course) for course in courses.values())
    cells: dict[str, Sequence[Any]] = {}
    for organ, course in courses.items():
        course = sorted(course)
        course += [course[-1]] * (rows - len(course))
        for position, what in enumerate(("time_h", "activity_MBq", "fitted_MBq")):
            cells[f"{organ} {what}"] = [point[position] for point in course]
    table = tableNode(cells, f"{name} data", scene)
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    details = [table]
    highest = sorted(courses, key=lambda organ: -max(point[1] for point in courses[organ]))[:CURVES_SHOWN]
    for organ in (organ for organ in courses if organ in highest):
        for what, label in (("activity_MBq", organ), ("fitted_MBq", f"{organ} fit")):
            series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", label)
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetPlotType(series.PlotTypeScatter)
            series.SetXColumnName(f"{organ} time_h")
            series.SetYColumnName(f"{organ} {what}")
            series.SetColor(*colours.get(organ, (0.3, 0.3, 0.3)))
            fitted = what == "fitted_MBq"
            series.SetMarkerStyle(series.MarkerStyleNone if fitted else series.MarkerStyleCircle)
            series.SetLineStyle(series.LineStyleSolid if fitted else series.LineStyleNone)
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
            details.append(series)
    chart.SetTitle(name)
    chart.SetXAxisTitle("time after administration [h]")
    chart.SetYAxisTitle("activity [MBq]")
    return chart, details


def referTo(dose: Any, nodes: Mapping[str, Any]) -> None:
    """Let a dose volume refer to the nodes of its run by role; the references are saved with the scene."""
    for role, node in nodes.items():
        if node is not None:
            dose.SetNodeReferenceID(ROLE_PREFIX + role, node.GetID())


def resultOf(dose: Any, role: str) -> Any:
    """Return what a dose volume refers to by a role, None if there is no such node."""
    return dose.GetNodeReference(ROLE_PREFIX + role) if dose is not None else None
