"""Organ doses and dose volume histograms as table, plot series and chart nodes."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray

from ..core import SynthDoseError
from .volumes import sceneOrDefault

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Dose, Gy, and fraction of the volume that receives at least that dose; equal lengths."""

ALIKE = 0.35
"""Distance of two RGB colours, 0 to 1 each, below which lines are hard to tell apart."""


def readCsv(path: Path) -> dict[str, list[str]]:
    """Read a CSV file of the run folder, column by column.

    Raises
    ------
    SynthDoseError
        If the file is missing, empty, or a row is shorter than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except OSError as error:
        raise SynthDoseError(f"Cannot read {path}: {error.strerror}.") from error
    if not rows:
        raise SynthDoseError(f"{path} is empty; expected a header row.")
    header, *body = rows
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise SynthDoseError(f"{path}, row {number}: {len(row)} values for {len(header)} columns.")
    return {name: [row[column] for row in body] for column, name in enumerate(header)}


def numbersFromTexts(texts: Sequence[str]) -> list[float] | None:
    """Return texts as numbers, empty ones as nan; None if one of them is no number."""
    try:
        return [float(text) if text else float("nan") for text in texts]
    except ValueError:
        return None


def _addColumn(table: Any, name: str, values: Sequence[Any]) -> None:
    array = vtk.vtkStringArray() if any(isinstance(value, str) for value in values) else vtk.vtkDoubleArray()
    array.SetName(name)
    for value in values:
        array.InsertNextValue(value)
    table.AddColumn(array)


def tableNode(columns: Mapping[str, Sequence[Any]], name: str, scene: Any = None) -> Any:
    """Add columns to the scene as a locked ``vtkMRMLTableNode``."""
    node = sceneOrDefault(scene).AddNewNodeByClass("vtkMRMLTableNode", name)
    for title, values in columns.items():
        _addColumn(node, title, values)
    node.SetUseColumnTitleAsColumnHeader(False)
    node.SetLocked(True)
    return node


def tableNodeFromCsv(path: Path, name: str, scene: Any = None, first: Sequence[str] = ()) -> Any:
    """Add a CSV file to the scene as a ``vtkMRMLTableNode``; columns of numbers become numbers, those of `first` lead.

    Raises
    ------
    SynthDoseError
        If the file cannot be read (see `readCsv`).
    """
    columns = readCsv(path)
    order = [title for title in first if title in columns] + [title for title in columns if title not in first]
    return tableNode({title: numbersFromTexts(columns[title]) or columns[title] for title in order}, name, scene)


def doseTable(path: Path, name: str, decays: float, per: str, scene: Any = None) -> Any:
    """Add a CSV file with doses per decay or particle to the scene, as doses in Gy if the number of decays is known.

    Parameters
    ----------
    path : Path
        With columns that end with ``dose_Gy`` or ``sigma_Gy``.
    name : str
    decays : float
        What these columns are multiplied by; 0: they stay, and their names say what they are per.
    per : str
        "decay" or "particle".

    Raises
    ------
    SynthDoseError
        If the file cannot be read.
    """
    columns: dict[str, Sequence[Any]] = {}
    for title, texts in readCsv(path).items():
        numbers = numbersFromTexts(texts)
        if numbers is None or not title.endswith(("dose_Gy", "sigma_Gy")):
            columns[title] = texts if numbers is None else numbers
        elif decays > 0:
            columns[title] = [decays * number for number in numbers]
        else:
            columns[f"{title}_per_{per}"] = numbers
    return tableNode(columns, name, scene)


def dvhCurves(path: Path) -> dict[str, Curve]:
    """Read ``dvh.csv`` (columns ``organ,dose_Gy,volume_fraction``) as one curve per organ, in the order of the file.

    Raises
    ------
    SynthDoseError
        If a column is missing or a value is not a number.
    """
    columns = readCsv(path)
    missing = [name for name in ("organ", "dose_Gy", "volume_fraction") if name not in columns]
    if missing:
        raise SynthDoseError(f"{path} lacks the columns {', '.join(missing)}; found {', '.join(columns)}.")
    dose, fraction = numbersFromTexts(columns["dose_Gy"]), numbersFromTexts(columns["volume_fraction"])
    if dose is None or fraction is None:
        raise SynthDoseError(f"{path}: dose_Gy and volume_fraction have to be numbers.")
    points: dict[str, list[tuple[float, float]]] = {}
    for organ, x, y in zip(columns["organ"], dose, fraction, strict=True):
        points.setdefault(organ, []).append((x, y))
    return {organ: (np.array([x for x, _ in p]), np.array([y for _, y in p])) for organ, p in points.items()}


def dvhTableNode(curves: Mapping[str, Curve], name: str = "Dose volume histograms", scene: Any = None) -> Any:
    """Add histograms to the scene as one table with two columns per organ, ``<organ> dose_Gy`` and ``<organ> volume_fraction``.

    Curves shorter than the longest one repeat their last point: nothing is interpolated.
    """
    node = sceneOrDefault(scene).AddNewNodeByClass("vtkMRMLTableNode", name)
    rows = max((len(dose) for dose, _ in curves.values()), default=0)
    for organ, (dose, fraction) in curves.items():
        fill = rows - len(dose)
        for title, values in (("dose_Gy", dose), ("volume_fraction", fraction)):
            _addColumn(node, f"{organ} {title}", np.pad(values, (0, fill), mode="edge").tolist())
    node.SetLocked(True)
    return node


def dvhChartNode(
    table: Any,
    curves: Mapping[str, Curve],
    colours: Mapping[str, tuple[float, float, float]] | None = None,
    shown: Sequence[str] | None = None,
    name: str = "Dose volume histograms",
    scene: Any = None,
) -> Any:
    """Add a chart of cumulative dose volume histograms with one plot series per organ.

    Parameters
    ----------
    table : vtkMRMLTableNode
        From `dvhTableNode`.
    curves : mapping of organ to curve
        The same as the table's.
    colours : mapping of organ to RGB, optional
        0 to 1; organs without one get Slicer's next colour.
    shown : sequence of str, optional
        Organs to draw; all if not given.

    Returns
    -------
    vtkMRMLPlotChartNode
        Curves whose colours are hard to tell apart differ in the style of their lines.
    """
    scene = sceneOrDefault(scene)
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    drawn: list[tuple[float, ...]] = []
    for organ in curves if shown is None else [organ for organ in shown if organ in curves]:
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", organ)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)
        series.SetXColumnName(f"{organ} dose_Gy")
        series.SetYColumnName(f"{organ} volume_fraction")
        series.SetMarkerStyle(series.MarkerStyleNone)
        if colours and organ in colours:
            series.SetColor(*colours[organ])
        else:
            series.SetUniqueColor()
        alike = sum(math.dist(series.GetColor(), colour) < ALIKE for colour in drawn)
        series.SetLineStyle(
            (series.LineStyleSolid, series.LineStyleDash, series.LineStyleDot, series.LineStyleDashDot)[alike % 4]
        )
        drawn.append(series.GetColor())
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(name)
    chart.SetXAxisTitle("absorbed dose [Gy]")
    chart.SetYAxisTitle("fraction of volume")
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.02)
    return chart
