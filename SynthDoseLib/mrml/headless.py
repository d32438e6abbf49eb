"""A scene with what the desktop application sets up around it, without Qt: for writing scenes on computers without Slicer."""

from __future__ import annotations

import tempfile
from typing import Any

import slicer
import vtk

from ..core import MissingPackageError

SLICE_VIEWS = (("Red", "Axial", "R"), ("Yellow", "Sagittal", "Y"), ("Green", "Coronal", "G"))
_SLICE_COLOURS = {"Red": (0.953, 0.290, 0.200), "Yellow": (0.929, 0.835, 0.298), "Green": (0.431, 0.690, 0.294)}

_MODULE_LOGICS = (
    ("Units", "vtkSlicerUnitsLogic"),
    ("Volumes", "vtkSlicerVolumesLogic"),
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    ("Tables", "vtkSlicerTablesLogic"),
    ("Plots", "vtkSlicerPlotsLogic"),
    ("Cameras", "vtkSlicerCamerasModuleLogic"),
)


class HeadlessScene:
    """An MRML scene with application logic, colours, module logics and three slice views.

    Attributes
    ----------
    scene : vtkMRMLScene
    applicationLogic : vtkSlicerApplicationLogic
    sliceLogics : dict of view name to vtkMRMLSliceLogic

    Raises
    ------
    MissingPackageError
        If ``slicer`` is not the one of 3D Slicer or slicer-core, or lacks its module logics.
    """

    def __init__(self) -> None:
        missing = [name for _, name in _MODULE_LOGICS if not hasattr(slicer, name)]
        if missing or not hasattr(slicer, "vtkSlicerApplicationLogic"):
            raise MissingPackageError("slicer-core", f"A Slicer scene ({', '.join(missing) or 'application logic'})")
        self.scene = scene = slicer.vtkMRMLScene()
        for className in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode"):
            node = getattr(slicer, className)()
            node.SetSingletonTag("Singleton")
            scene.AddNode(node)
        self.applicationLogic = logic = slicer.vtkSlicerApplicationLogic()
        logic.SetMRMLScene(scene)
        self._temporary = tempfile.TemporaryDirectory(prefix="SynthDose-scene-", ignore_cleanup_errors=True)
        logic.SetTemporaryPath(self._temporary.name)
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        colours = logic.GetColorLogic()
        colours.SetMRMLScene(scene)
        colours.AddDefaultColorNodes()
        logic.SetModuleLogic("Colors", colours)  # the Volumes logic looks it up by this name
        scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())  # no core logic registers it
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self._logics = {}
        for name, className in _MODULE_LOGICS:
            moduleLogic = getattr(slicer, className)()
            moduleLogic.SetMRMLApplicationLogic(logic)
            moduleLogic.SetMRMLScene(scene)
            logic.SetModuleLogic(name, moduleLogic)
            self._logics[name] = moduleLogic
        self.sliceLogics = {name: self._sliceLogic(name, orientation, label) for name, orientation, label in SLICE_VIEWS}
        self._viewLogic = slicer.vtkMRMLViewLogic()
        self._viewLogic.SetMRMLApplicationLogic(logic)
        self._viewLogic.SetMRMLScene(scene)
        self._viewLogic.AddViewNode("1")
        # last: it makes the views of a layout that are not there yet, without orientation
        self._layoutLogic = slicer.vtkMRMLLayoutLogic()
        self._layoutLogic.SetMRMLApplicationLogic(logic)
        self._layoutLogic.SetMRMLScene(scene)

    def _sliceLogic(self, name: str, orientation: str, label: str) -> Any:
        sliceLogic = slicer.vtkMRMLSliceLogic()
        sliceLogic.SetMRMLApplicationLogic(self.applicationLogic)
        self.applicationLogic.GetSliceLogics().AddItem(sliceLogic)
        sliceLogic.SetMRMLScene(self.scene)
        node = sliceLogic.AddSliceNode(name)
        node.SetOrientation(orientation)
        node.SetLayoutLabel(label)
        node.SetLayoutColor(*_SLICE_COLOURS[name])
        return sliceLogic

    def fitSlices(self, centreRas: tuple[float, float, float], size: int = 512) -> None:
        """Show the whole background in every slice view and put the slices through `centreRas`, mm."""
        for sliceLogic in self.sliceLogics.values():
            sliceLogic.ResizeSliceNode(size, size)
            sliceLogic.FitSliceToBackground()
            sliceLogic.GetSliceNode().JumpSliceByOffsetting(*centreRas)

    def setLayout(self, arrangement: int) -> None:
        """Choose the view arrangement in which the scene opens, a value of ``vtkMRMLLayoutNode``; makes its views."""
        self._layoutLogic.GetLayoutNode().SetViewArrangement(arrangement)
