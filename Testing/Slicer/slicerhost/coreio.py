"""What ``slicer.util.load...`` and ``save...`` ask of the application, done by the real storage nodes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import slicer
import vtk

_TYPE_OF_EXTENSION = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.vtm": "SegmentationFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".nii": "VolumeFile",
    ".nii.gz": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".dcm": "VolumeFile",
    ".tsv": "TableFile",
    ".csv": "TableFile",
    ".json": "TextFile",
    ".txt": "TextFile",
    ".xml": "TextFile",
    ".tfm": "TransformFile",
    ".h5": "TransformFile",
    ".mrk.json": "MarkupsFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".obj": "ModelFile",
}
_NODE_OF_TYPE = {
    "TableFile": "vtkMRMLTableNode",
    "TextFile": "vtkMRMLTextNode",
    "ModelFile": "vtkMRMLModelNode",
    "TransformFile": "vtkMRMLLinearTransformNode",
    "MarkupsFile": "vtkMRMLMarkupsFiducialNode",
}
_LABEL_MAP, _SINGLE_FILE = 1, 8


def _extension(fileName: str) -> str:
    """The longest known extension of a file name, or ""."""
    matches = [extension for extension in _TYPE_OF_EXTENSION if fileName.lower().endswith(extension)]
    return max(matches, key=len, default="")


class CoreIOManager:
    """Stands for ``slicer.app.coreIOManager()``; method names and arguments are Slicer's."""

    def __init__(self, core: Any) -> None:
        self.core = core

    def fileType(self, fileName: str) -> str:
        return _TYPE_OF_EXTENSION.get(_extension(str(fileName)), "NoFile")

    def fileWriterFileType(self, node: Any) -> str:
        return "NodeFile"

    def loadNodes(
        self, fileType: str, properties: Mapping[str, Any], loadedNodes: Any = None, userMessages: Any = None
    ) -> bool:
        path, scene = str(properties["fileName"]), self.core.scene
        if not os.path.exists(path):
            if userMessages is not None:
                userMessages.AddMessage(vtk.vtkCommand.ErrorEvent, f"file not found: {path}")
            return False
        base = os.path.basename(path)
        name = properties.get("name") or base[: len(base) - len(_extension(base))]
        if fileType == "SceneFile":
            return self._loadScene(path, bool(properties.get("clear", False)))
        if fileType == "SegmentationFile":
            node = self.core.logics["Segmentations"].LoadSegmentationFromFile(path, True, name, None)
        elif fileType == "VolumeFile":
            options = _LABEL_MAP * bool(properties.get("labelmap")) | _SINGLE_FILE * bool(properties.get("singleFile"))
            node = self.core.logics["Volumes"].AddArchetypeVolume(path, name, options)
        elif fileType in _NODE_OF_TYPE:
            node = self._loadByStorageNode(scene.AddNewNodeByClass(_NODE_OF_TYPE[fileType], name), path)
        else:
            node = None
        if node is not None and loadedNodes is not None:
            loadedNodes.AddItem(node)
        return node is not None

    def saveNodes(self, fileType: str, properties: Mapping[str, Any], userMessages: Any = None) -> bool:
        path, scene = str(properties["fileName"]), self.core.scene
        if fileType == "SceneFile":
            scene.SetURL(path)
            scene.SetRootDirectory(os.path.dirname(os.path.abspath(path)))
            return bool(scene.WriteToMRB(path) if path.endswith(".mrb") else scene.Commit(path))
        return self._write(scene.GetNodeByID(properties["nodeID"]), path, properties)

    def exportNodes(
        self,
        nodeIDs: Iterable[str],
        fileNames: Iterable[str],
        properties: Mapping[str, Any],
        hardenTransform: bool = False,
        userMessages: Any = None,
    ) -> bool:
        pairs = zip(nodeIDs, fileNames, strict=True)
        return all(self._write(self.core.scene.GetNodeByID(nodeID), name, properties) for nodeID, name in pairs)

    def extractKnownExtension(self, fileName: str, node: Any) -> str:
        return node.CreateDefaultStorageNode().GetSupportedFileExtension(fileName) or ""

    def fileWriterExtensions(self, node: Any) -> list[str]:
        types = node.CreateDefaultStorageNode().GetSupportedWriteFileTypes()
        return [types.GetValue(index) for index in range(types.GetNumberOfValues())]

    def _loadScene(self, path: str, clear: bool) -> bool:
        scene = self.core.scene
        if clear:
            scene.Clear(False)
        scene.SetURL(path)
        return bool(scene.ReadFromMRB(path, False) if path.endswith(".mrb") else scene.Import())

    def _loadByStorageNode(self, node: Any, path: str) -> Any:
        scene = self.core.scene
        storage = node.CreateDefaultStorageNode() or slicer.vtkMRMLTextStorageNode()
        storage.SetFileName(path)
        scene.AddNode(storage)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if storage.ReadData(node):
            return node
        scene.RemoveNode(node)
        return None

    def _write(self, node: Any, path: str, properties: Mapping[str, Any]) -> bool:
        storage = node.GetStorageNode() or node.CreateDefaultStorageNode()
        if storage is None and node.IsA("vtkMRMLTextNode"):  # short texts live in the scene file
            storage = slicer.vtkMRMLTextStorageNode()
        if storage is None:
            return False
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(properties["useCompression"])
        return bool(storage.WriteData(node))
