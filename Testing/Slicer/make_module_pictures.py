"""Pictures of the modules for the README and the tutorial: a synthetic patient through each panel, drawn without a screen.

usage: python Testing/Slicer/make_module_pictures.py Docs/Pictures [MODULE ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from make_pictures import HERE, compose

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
    run("runButton")
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
    labels = labelMapFromSegmentationNode(organs, node)
    jumpSlices(scene, inner_point(labels.mask("liver"), labels.grid))


def radiomics(widget: Any, scene: Any, run: Callable[[str], None]) -> None:
    p = widget._parameterNode
    p.image, p.segmentation = patient(scene)
    p.organs = "liver, spleen, kidney_left, kidney_right"
    run("runButton")
    run("ibsiButton")


MODULES = {
    "SynthDoseSegmentation": segmentation,
    "SynthDosePhantom": phantom,
    "SynthDoseMonteCarlo": monteCarlo,
    "SynthDoseRadiomics": radiomics,
}


def main(folder: str, *wanted: str) -> None:
    from slicerhost import install
    from slicerhost.views import SliceView

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    host = install()
    for name in wanted or MODULES:
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

            MODULES[name](widget, host.core.scene, run)
            widget.ui.outputEdit.currentPath = host.core.temporaryPath
            host.screenshot(module.widgetRepresentation(), work / "panel.png")
            for view in ("Red", "Green"):
                SliceView(host.core, view, (VIEW, VIEW)).save(work / f"{view}.png")
            parts = [(work / "panel.png", 0, 0), (work / "Green.png", PANEL[0], 0), (work / "Red.png", PANEL[0], VIEW)]
            compose(parts, PANEL[0] + VIEW, PANEL[1], out / f"{name}.png")
        module.discard()


if __name__ == "__main__":
    main(*sys.argv[1:])
