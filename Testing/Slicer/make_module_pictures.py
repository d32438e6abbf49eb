"""Pictures of the modules for the README and the tutorial: a synthetic patient through each panel, drawn without a screen.

usage: python Testing/Slicer/make_module_pictures.py Docs/Pictures [PICTURE ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from make_pictures import HERE, compose, drawChart

PANEL, VIEW = (490, 860), 430


def patient(scene: Any) -> tuple[Any, Any]:
    """CT and organs of the synthetic patient as nodes."""
    from SynthDoseLib.mrml import segmentationNodeFromLabelMap, volumeNodeFromImage
    from SynthDoseLib.phantom import synthetic_patient

    made = synthetic_patient(1, spacing_mm=(4.0, 4.0, 4.0), noise_hu=3.0)
    ct = volumeNodeFromImage(made.ct, "CT", scene)
    return ct, segmentationNodeFromLabelMap(made.organ_labels, "Organs", scene)


def segmentation(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    p = widget._parameterNode
    p.image, organs = patient(scene)
    scene.RemoveNode(organs)
    run("runButton")


def phantom(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    p = widget._parameterNode
    p.image, p.segmentation = patient(scene)
    widget.ui.schneiderButton.click()
    widget.ui.addKnotButton.click()
    knots = p.calibrationTable
    for column, text in enumerate(("2500", "2.4")):  # a scanner whose bone is lighter
        knots.SetCellText(knots.GetNumberOfRows() - 1, column, text)
    widget.ui.curveButton.click()
    run("runButton")
    widget.ui.patientButton.collapsed = True
    widget.ui.calibrationButton.collapsed = False
    widget.logic.goTo(p, [p.qualityTable.GetCellText(row, 0) for row in range(p.qualityTable.GetNumberOfRows())].index("liver"))


def monteCarlo(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    from SynthDoseLib.cli import main
    from SynthDoseLib.core import inner_point
    from SynthDoseLib.io import write_segmentation
    from SynthDoseLib.mrml import imageFromVolumeNode, jumpSlices, labelMapFromSegmentationNode, loadPhantom, saveImage

    ct, organs = patient(scene)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        image = imageFromVolumeNode(ct)
        saveImage(image, work / "ct.nrrd")
        write_segmentation(work / "labels.seg.nrrd", labelMapFromSegmentationNode(organs, image.grid))
        files = [str(work / name) for name in ("ct.nrrd", "labels.seg.nrrd")]
        assert main(["phantom", *files, "--modality", "CT", "--out", str(work / "phantom")]) == 0
        node = loadPhantom(work / "phantom", scene, title="Patient", organs=organs)
    p = widget._parameterNode
    p.phantom, p.organWeights, p.histories = node, "liver = 1", 2_000_000
    run("runButton")
    widget.ui.precisionButton.collapsed = True  # what is left has room for the results
    labels = labelMapFromSegmentationNode(organs, node)
    jumpSlices(scene, inner_point(labels.mask("liver"), labels.grid))


def person(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    p = widget._parameterNode
    p.age, p.sex, p.personVoxelMm = 5.0, "male", 4.0
    for group in ("patientButton", "calibrationButton"):
        getattr(widget.ui, group).collapsed = True
    widget.ui.personGroup.collapsed = False
    run("personButton")


def radiomics(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    from SynthDoseLib.mrml.display import showImage

    p = widget._parameterNode
    p.image, p.segmentation = patient(scene)
    p.organs = "liver, spleen, kidney_left, kidney_right"
    showImage(scene, p.image)
    run("runButton")
    run("ibsiButton")
    widget.ui.settingsButton.collapsed = True


PICTURES: dict[str, tuple[str, Callable[..., None]]] = {
    "SynthDoseSegmentation": ("SynthDoseSegmentation", segmentation),
    "SynthDosePhantom": ("SynthDosePhantom", phantom),
    "stylised_person": ("SynthDosePhantom", person),
    "SynthDoseMonteCarlo": ("SynthDoseMonteCarlo", monteCarlo),
    "SynthDoseRadiomics": ("SynthDoseRadiomics", radiomics),
}
"""Name of the picture; the module that it shows, and what is done with it."""


def views(host: Any, name: str, widget: Any, work: Path) -> list[Path]:
    """What is drawn beside the panel, from top to bottom."""
    from slicerhost.views import SliceView, ThreeDView

    if name == "stylised_person":
        view = ThreeDView(host.core, size=(VIEW, 2 * VIEW))
        for colour in (view.node.SetBackgroundColor, view.node.SetBackgroundColor2):
            colour(0.0, 0.0, 0.0)  # as the slices, and a smaller file than the shaded one
        view.look(azimuth=25, elevation=8)
        view.renderer.GetActiveCamera().Zoom(1.8)
        return [view.save(work / "3d.png")]
    green = SliceView(host.core, "Green", (VIEW, VIEW)).save(work / "Green.png")
    if name == "SynthDosePhantom":
        drawChart(widget._parameterNode.curveChart, work / "chart.png", "Calibration", VIEW)
        return [green, work / "chart.png"]
    return [green, SliceView(host.core, "Red", (VIEW, VIEW)).save(work / "Red.png")]


def main(folder: str, *wanted: str) -> None:
    from slicerhost import install

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    host = install()
    for picture in wanted or PICTURES:
        name, fill = PICTURES[picture]
        host.core.scene.Clear()
        module = host.loadModule(HERE.parents[1] / "SynthDose" / f"{name}.py")
        widget = host.show(module, *PANEL)
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            widget._parameterNode.outputFolder = work

            def run(button: str, widget: Any = widget) -> None:
                getattr(widget.ui, button).click()
                host.waitUntil(lambda: not widget.logic.running, 900)
                print(widget.ui.statusLabel.text)

            fill(widget, host.core.scene, run)
            widget.ui.outputEdit.currentPath = host.core.temporaryPath
            host.screenshot(module.widgetRepresentation(), work / "panel.png")
            parts = [(work / "panel.png", 0, 0)]
            parts += [(file, PANEL[0], row * VIEW) for row, file in enumerate(views(host, picture, widget, work))]
            compose(parts, PANEL[0] + VIEW, PANEL[1], out / f"{picture}.png")
        module.discard()


if __name__ == "__main__":
    main(*sys.argv[1:])
