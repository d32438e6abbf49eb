"""The application core of the desktop program as far as panels need it: scene, logics, subject hierarchy items."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Any

import slicer
import vtk

from SynthDoseLib.mrml.headless import HeadlessScene

_MORE_LOGICS = (
    ("Models", "vtkSlicerModelsLogic"),
    ("Transforms", "vtkSlicerTransformLogic"),
    ("Markups", "vtkSlicerMarkupsLogic"),
    ("Texts", "vtkSlicerTextsLogic"),
    ("Sequences", "vtkSlicerSequencesLogic"),
    ("CropVolume", "vtkSlicerCropVolumeLogic"),
    ("VolumeRendering", "vtkSlicerVolumeRenderingLogic"),
)

_HIERARCHY_CLASSES = (
    "vtkMRMLDisplayableNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceNode",
)


class SlicerCore(HeadlessScene):
    """A `HeadlessScene` with the remaining module logics, file access, and hierarchy items for new nodes.

    Terminologies are left out: their logic wants a folder of term files that slicer-core does not carry, and aborts the
    process on malformed ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporaryPath = tempfile.mkdtemp(prefix="SlicerHost-")
        atexit.register(shutil.rmtree, self.temporaryPath, ignore_errors=True)
        scene, logic = self.scene, self.applicationLogic
        logic.SetTemporaryPath(self.temporaryPath)
        self.selectionNode = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        self.interactionNode = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        scene.RegisterNodeClass(slicer.vtkMRMLCommandLineModuleNode())
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        for name, className in _MORE_LOGICS:
            self._addLogic(name, getattr(slicer, className)())
        self._addDataIO()
        # in the application Qt plugins make an item for each data node
        scene.AddObserver(scene.NodeAddedEvent, self._onNodeAdded)
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)

    @property
    def logics(self) -> dict[str, Any]:
        """Module logics by module name."""
        return self._logics

    @property
    def subjectHierarchy(self) -> Any:
        """The scene's subject hierarchy node."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def _addLogic(self, name: str, moduleLogic: Any) -> None:
        if hasattr(moduleLogic, "SetModuleShareDirectory"):
            moduleLogic.SetModuleShareDirectory(self.temporaryPath)
        moduleLogic.SetMRMLApplicationLogic(self.applicationLogic)
        moduleLogic.SetMRMLScene(self.scene)
        self.applicationLogic.SetModuleLogic(name, moduleLogic)
        self._logics[name] = moduleLogic

    def _addDataIO(self) -> None:
        """Without the data IO manager, storage nodes of several files and bundles warn when they are read."""
        self._remoteIO = slicer.vtkMRMLRemoteIOLogic()
        self._remoteIO.SetMRMLScene(self.scene)
        self._remoteIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._remoteIO.GetCacheManager().SetRemoteCacheDirectory(os.path.join(self.temporaryPath, "RemoteIO"))
        self._dataIO = slicer.vtkDataIOManagerLogic()
        self._dataIO.SetMRMLScene(self.scene)
        self._dataIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._dataIO.SetAndObserveDataIOManager(self._remoteIO.GetDataIOManager())
        self._remoteIO.AddDataIOToScene()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller: Any, event: str, node: Any) -> None:
        if node.GetHideFromEditors() or caller.IsImporting() or not any(node.IsA(name) for name in _HIERARCHY_CLASSES):
            return
        hierarchy = self.subjectHierarchy
        if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller: Any, event: str, node: Any) -> None:
        if caller.IsClosing() or caller.IsImporting() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = self.subjectHierarchy
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        if item:
            hierarchy.RemoveItem(item, False, False)
