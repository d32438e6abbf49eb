"""Tables that a user edits to make a phantom, as nodes: the knots of a calibration, and tissues of organs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from ..core import SynthDoseError
from .phantoms import MATERIAL_TABLE_REFERENCE, MATERIALS_REFERENCE, organsOfPhantom, segmentNames
from .segmentations import labelMapFromSegmentationNode
from .tables import readCsv, tableNode

CALIBRATION_COLUMNS = ("hu", "density_g_cm3", "material")
TISSUE_COLUMNS = ("organ", "material", "density_g_cm3")
_TIPS = {
    "hu": "CT number, HU; increasing",
    "density_g_cm3": "Mass density, g/cm3",
    "material": "Name of a material, as in water, bone or titanium; empty: that of the CT number",
    "organ": "Segment of the patient, as in liver",
}


def _table(scene: Any, name: str, columns: Sequence[str], numbers: Sequence[str] = ()) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name))
    for title in columns:
        array = vtk.vtkDoubleArray() if title in numbers else vtk.vtkStringArray()
        array.SetName(title)
        node.AddColumn(array)
        node.SetColumnDescription(title, _TIPS[title])
    return node


def calibrationTable(scene: Any, name: str = "HU calibration") -> Any:
    """Add an empty table of knots to the scene: CT number, mass density and, where one begins, the material."""
    return _table(scene, name, CALIBRATION_COLUMNS, CALIBRATION_COLUMNS[:2])


def setKnots(table: Any, hu: Iterable[float], density_g_cm3: Iterable[float], materials: Iterable[str] | None = None) -> None:
    """Give a table of knots new contents."""
    rows = list(zip(hu, density_g_cm3, strict=True))
    names = list(materials) if materials is not None else [""] * len(rows)
    with slicer.util.NodeModify(table):
        while table.GetNumberOfRows():
            table.RemoveRow(0)
        for (x, density), name in zip(rows, names, strict=True):
            row = table.AddEmptyRow()
            for column, text in enumerate((f"{x:.6g}", f"{density:.6g}", name)):
                table.SetCellText(row, column, text)


def readKnots(table: Any, path: Path) -> None:
    """Fill a table of knots from a CSV file with the columns ``hu,density_g_cm3`` and, if wanted, ``material``.

    Raises
    ------
    SynthDoseError
        If the file cannot be read, or has other columns; the table is unchanged.
    """
    columns = readCsv(path)
    if not set(CALIBRATION_COLUMNS[:2]) <= set(columns) <= set(CALIBRATION_COLUMNS):
        raise SynthDoseError(
            f"{path.name} has the columns {', '.join(columns)}; a calibration has hu,density_g_cm3 and optionally material."
        )
    try:
        hu, densities = ([float(text) for text in columns[name]] for name in CALIBRATION_COLUMNS[:2])
    except ValueError as error:
        raise SynthDoseError(f"{path.name}: CT numbers and densities have to be numbers: {error}.") from None
    setKnots(table, hu, densities, columns.get("material"))


def addKnot(table: Any, after: int) -> int:
    """Add a knot half-way to the one below, so that the curve stays what it was; return its row.

    Parameters
    ----------
    after : int
        Row that it follows; the last one if there is none such.
    """
    rows = table.GetNumberOfRows()
    after = after if 0 <= after < rows else rows - 1
    knots = [(float(table.GetCellText(row, 0)), float(table.GetCellText(row, 1))) for row in range(rows)]
    if not knots:
        new = (-1000.0, 0.00121)
    elif after == rows - 1:
        new = (knots[-1][0] + 100, knots[-1][1])
    else:
        (hu, density), (hu_next, density_next) = knots[after], knots[after + 1]
        new = ((hu + hu_next) / 2, (density + density_next) / 2)
    names = [table.GetCellText(row, 2) for row in range(rows)]
    knots.insert(after + 1, new)
    names.insert(after + 1, "")
    setKnots(table, [hu for hu, _ in knots], [density for _, density in knots], names)
    return after + 1


def removeKnot(table: Any, row: int) -> None:
    """Remove a knot; the last one if there is no such row."""
    rows = table.GetNumberOfRows()
    if rows:
        table.RemoveRow(row if 0 <= row < rows else rows - 1)


def knotsAsCsv(table: Any) -> str:
    """Return a table of knots as the text of a calibration file; the column of materials only if one is named."""
    rows = [[table.GetCellText(row, column).strip() for column in range(3)] for row in range(table.GetNumberOfRows())]
    width = 3 if any(row[2] for row in rows) else 2
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([CALIBRATION_COLUMNS[:width], *(row[:width] for row in rows)])
    return stream.getvalue()


def calibrationChart(scene: Any, tables: Sequence[Any], names: Sequence[str]) -> Any:
    """Add a chart of density against CT number with a line per table of knots; it follows the tables as they are edited."""
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName("HU calibration"))
    for table, name in zip(tables, names, strict=True):
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)
        series.SetXColumnName("hu")
        series.SetYColumnName("density_g_cm3")
        series.SetUniqueColor()
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetXAxisTitle("CT number [HU]")
    chart.SetYAxisTitle("mass density [g/cm3]")
    return chart


def curvesBeside(scene: Any, chart: Any, own: Any, name: str, hu: Iterable[float], density_g_cm3: Iterable[float]) -> Any:
    """Return a chart of the user's calibration beside a published one: the given chart, if it shows just these already.

    Parameters
    ----------
    scene : vtkMRMLScene
    chart : vtkMRMLPlotChartNode or None
        From an earlier call.
    own : vtkMRMLTableNode or None
        Knots of the user.
    name : str
        Of the published calibration.
    hu, density_g_cm3 : iterable of float
        Its knots.
    """
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] if chart is not None else []
    shown = [entry.GetTableNode() for entry in series]
    wanted = [own] if own is not None else []
    if shown and shown[-1] is not None and shown[:-1] == wanted:
        return chart
    published = shown[-1] if shown else None
    if published is None:
        published = calibrationTable(scene, name)
        setKnots(published, hu, density_g_cm3)
        published.SetLocked(True)
    return calibrationChart(scene, [*wanted, published], [*(table.GetName() for table in wanted), name])


def tissueTable(scene: Any, organs: Iterable[str], known: Any = None) -> Any:
    """Return a table of organs whose material or density can be set by hand.

    Parameters
    ----------
    scene : vtkMRMLScene
    organs : iterable of str
        A row is added for each that has none.
    known : vtkMRMLTableNode, optional
        Table to go on with; a new one otherwise.
    """
    table = known or _table(scene, "Tissues by hand", TISSUE_COLUMNS)
    listed = {table.GetCellText(row, 0) for row in range(table.GetNumberOfRows())}
    with slicer.util.NodeModify(table):
        for organ in organs:
            if organ not in listed:
                table.SetCellText(table.AddEmptyRow(), 0, organ)
    return table


def overridesOf(table: Any) -> list[str]:
    """Return what a table of tissues sets, as ``ORGAN=MATERIAL`` and ``ORGAN=DENSITY``; rows without either set nothing.

    Raises
    ------
    SynthDoseError
        If a density is not a positive number, or a row with a tissue has no organ.
    """
    found = []
    for row in range(table.GetNumberOfRows() if table is not None else 0):
        organ, material, density = (table.GetCellText(row, column).strip() for column in range(3))
        if not (material or density):
            continue
        if not organ:
            raise SynthDoseError(f"Tissues by hand: row {row + 1} names no organ.")
        try:
            value = float(density) if density else 1.0
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise SynthDoseError(f"Tissues by hand: the density of {organ} has to be a number in g/cm3; found '{density}'.")
        found += [f"{organ}={text}" for text in (material, density) if text]
    return found


def qualityTable(organs: Iterable[Mapping[str, Any]], name: str, tissues: Mapping[str, str]) -> Any:
    """Add a table with the verdict, mass, volume, density and tissue of a phantom's organs to the scene, the worst first.

    Parameters
    ----------
    organs : iterable of mapping
        As in the ``phantom.json`` of a phantom.
    name : str
    tissues : mapping of str to str
        See `tissuesOfPhantom`.
    """
    rows = sorted(organs, key=lambda row: ("fail", "warning", "pass").index(row.get("verdict", "pass")))
    columns = {title: [row[title] for row in rows] for title in ("organ", "verdict") if all(title in row for row in rows)}
    for title in ("mass_g", "reference_mass_g", "volume_ml", "density_g_cm3"):
        values = [row.get(title) for row in rows]
        if any(value is not None for value in values):
            columns[title] = ["-" if value is None else f"{float(value):.4g}" for value in values]
    columns["tissue"] = [tissues.get(row["organ"], "") for row in rows]
    return tableNode(columns, name)


def tissuesOfPhantom(phantom: Any) -> dict[str, str]:
    """Return the commonest material of each organ of a phantom node, see `commonTissues`."""
    labels = labelMapFromSegmentationNode(organsOfPhantom(phantom), phantom)
    materials = np.asarray(slicer.util.arrayFromVolume(phantom.GetNodeReference(MATERIALS_REFERENCE)))
    listed = json.loads(phantom.GetNodeReference(MATERIAL_TABLE_REFERENCE).GetText())
    found = commonTissues(labels.labels, materials, {entry["index"]: entry["name"] for entry in listed})
    bySegment = {organ.name: found.get(organ.index, "") for organ in labels.organs}
    return {organ: bySegment.get(name, "") for organ, name in segmentNames(phantom).items()}


def commonTissues(labels: NDArray[Any], materials: NDArray[Any], names: dict[int, str]) -> dict[int, str]:
    """Return per label which material most of its voxels have, with its share if that is not all: "soft tissue (83 %)".

    Parameters
    ----------
    labels, materials : ndarray of int, (nk, nj, ni)
    names : dict of int to str
        Name of each material index.
    """
    width = int(materials.max(initial=0)) + 1
    pairs = np.bincount((labels.astype(np.int64) * width + materials).ravel())
    counts = np.pad(pairs, (0, -len(pairs) % width)).reshape(-1, width)
    found = {}
    for label in np.flatnonzero(counts.sum(axis=1)):
        most = int(counts[label].argmax())
        share = counts[label, most] / counts[label].sum()
        found[int(label)] = names.get(most, str(most)) + (f" ({100 * share:.0f} %)" if share < 0.995 else "")
    return found
