"""Pictures of the panel for the README: a synthetic patient through the real calculation, drawn without a screen.

usage: python Testing/Slicer/make_pictures.py Docs/Pictures [HISTORIES]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform.startswith("linux"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

PANEL_WIDTH, PANEL_HEIGHT, VIEW = 440, 960, 480


def addPatient(scene: Any) -> tuple[Any, Any, Any, dict[str, float]]:
    """CT, organs and SPECT of the synthetic patient as nodes, and the half-lives that are true for it."""
    from SynthDoseLib.mrml import segmentationNodeFromLabelMap, volumeNodeFromImage
    from SynthDoseLib.phantom import synthetic_patient

    patient = synthetic_patient(1, spacing_mm=(4.0, 4.0, 4.0), noise_hu=3.0)
    names = {"kidney_left": "kidneys", "liver": "liver", "spleen": "spleen"}
    halfLives = {group: patient.activity[organ].effective_half_life_h for organ, group in names.items()}
    return (
        volumeNodeFromImage(patient.ct, "CT", scene),
        segmentationNodeFromLabelMap(patient.organ_labels, "Organs", scene),
        volumeNodeFromImage(patient.spect, "SPECT 24 h", scene),
        {**halfLives, "": patient.activity["rest_of_body"].effective_half_life_h},
    )


def drawChart(chart: Any, path: Path, title: str = "Dose volume histograms", size: int = VIEW) -> None:
    """Draw a chart node with VTK's charts, which Slicer's plot view is made of."""
    import vtk

    view = vtk.vtkContextView()
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetSize(size, size)
    view.GetRenderer().SetBackground(1, 1, 1)
    drawn = vtk.vtkChartXY()
    view.GetScene().AddItem(drawn)
    drawn.SetTitle(title)
    drawn.SetShowLegend(True)
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        plot = drawn.AddPlot(vtk.vtkChart.LINE)
        plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        plot.SetLabel(series.GetName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(2)
        plot.GetPen().SetLineType(series.GetLineStyle())  # the numbers of both are the same
    drawn.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chart.GetXAxisTitle())
    drawn.GetAxis(vtk.vtkAxis.LEFT).SetTitle(chart.GetYAxisTitle())
    view.GetRenderWindow().Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.GetRenderWindow())
    grab.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(grab.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()


def compose(parts: list[tuple[Path, int, int]], width: int, height: int, path: Path) -> None:
    """Put pictures side by side."""
    import qt

    canvas = qt.QImage(width, height, qt.QImage.Format.Format_RGB32)
    canvas.fill(qt.QColor(0, 0, 0))
    painter = qt.QPainter(canvas)
    try:
        for part, x, y in parts:
            painter.drawImage(x, y, qt.QImage(str(part)))
    finally:
        painter.end()
    formats = qt.QImage.Format
    # 16 bits of colour are enough to look at and a quarter smaller; quality 0 is the smallest PNG
    canvas.convertToFormat(formats.Format_RGB16).convertToFormat(formats.Format_RGB32).save(str(path), "PNG", 0)


def main(folder: str, histories: str = "20000000") -> None:
    from slicerhost import install
    from slicerhost.views import SliceView

    from SynthDoseLib.mrml.run_tables import resultOf

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    host = install()
    module = host.loadModule(HERE.parents[1] / "SynthDose" / "SynthDose.py")
    widget = host.show(module, PANEL_WIDTH, PANEL_HEIGHT)
    ct, organs, spect, halfLives = addPatient(host.core.scene)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        p = widget._parameterNode
        p.ctVolume, p.segmentation = ct, organs
        widget.logic.addTimePoint(p, spect)
        p.outputFolder, p.histories, p.restHalfLifeHours = work, int(histories), round(halfLives.pop(""), 1)
        p.maxMinutes = 4.0
        p.organHalfLives = "\n".join(f"{organ} = {hours:.1f}" for organ, hours in halfLives.items())
        views = {name: SliceView(host.core, name, (VIEW, VIEW)) for name in ("Red", "Green")}  # before there is a dose scale
        widget.ui.runButton.click()
        host.waitUntil(lambda: not widget.logic.running, 500)
        print(widget.ui.statusLabel.text, widget.ui.logEdit.toPlainText())
        widget.ui.outputEdit.currentPath = host.core.temporaryPath
        organs.GetDisplayNode().SetOpacity2DOutline(0.8)
        organs.GetDisplayNode().SetSliceIntersectionThickness(1)
        host.screenshot(module.widgetRepresentation(), work / "panel.png")
        for name, view in views.items():
            view.fit(view.logic.GetSliceOffset())
            view.save(work / f"{name}.png")
        drawChart(resultOf(p.doseVolume, "dvhChart"), work / "chart.png")
        right = PANEL_WIDTH + VIEW
        compose(
            [(work / "panel.png", 0, 0), (work / "Green.png", PANEL_WIDTH, 0), (work / "Red.png", PANEL_WIDTH, VIEW)],
            right,
            PANEL_HEIGHT,
            out / "panel.png",
        )
        parts = [(work / "Red.png", 0, 0), (work / "Green.png", VIEW, 0), (work / "chart.png", 2 * VIEW, 0)]
        compose(parts, 3 * VIEW, VIEW, out / "dose_over_ct.png")
    module.discard()


if __name__ == "__main__":
    main(*sys.argv[1:])
