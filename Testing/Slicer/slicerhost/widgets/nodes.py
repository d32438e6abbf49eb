"""Panels' roots, and selectors of nodes and segments."""

from __future__ import annotations

from typing import Any, ClassVar

import shiboken6
import vtk
from PySide6 import QtWidgets as QW
from PySide6.QtCore import Property, Signal

from .common import SceneAware, stored, withSetters

_ADD, _RENAME, _REMOVE = "__add__", "__rename__", "__remove__"


class qMRMLWidget(SceneAware, QW.QWidget):
    mrmlSceneChanged = Signal(object)
    cppSignals: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    sceneEvents: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parent: Any = None) -> None:
        QW.QWidget.__init__(self, parent)

    def onSceneSet(self) -> None:
        self.mrmlSceneChanged.emit(self._scene)


@withSetters
class qMRMLNodeComboBox(SceneAware, QW.QWidget):
    """Lists the nodes of the scene that pass its filters.

    A list without a "None" row and without action rows selects the first node by itself; any other starts empty.
    """

    currentNodeChanged = Signal(object)
    validNodeChanged = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeActivated = Signal(object)
    cppSignals: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "validNodeChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }
    nodeTypes = stored("QStringList", [], "refresh")
    hideChildNodeTypes = stored("QStringList", [], "refresh")
    showHidden = stored(bool, False, "refresh")
    showChildNodeTypes = stored(bool, True, "refresh")
    noneEnabled = stored(bool, False, "refresh")
    noneDisplay = stored(str, "None", "refresh")
    addEnabled = stored(bool, True, "refresh")
    removeEnabled = stored(bool, True, "refresh")
    editEnabled = stored(bool, False, "refresh")
    renameEnabled = stored(bool, False, "refresh")
    selectNodeUponCreation = stored(bool, True)
    interactionNodeSingletonTag = stored(str, "")

    def __init__(self, parent: Any = None) -> None:
        QW.QWidget.__init__(self, parent)
        self._scene, self._current = None, None
        self._ids: list[str] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._baseNames: dict[str, str] = {}
        self._watched: dict[str, tuple[Any, int]] = {}
        self._filling = False
        layout = QW.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QW.QComboBox(self)
        self._combo.setSizeAdjustPolicy(QW.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._onActivated)
        self.refresh()

    def _accepts(self, node: Any) -> bool:
        types, name = self.nodeTypes, node.GetClassName()
        if types and not any(node.IsA(t) if self.showChildNodeTypes else name == t for t in types):
            return False
        if name in self.hideChildNodeTypes and name not in types:
            return False
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        for nodeType, attribute, value in self._attributes:
            if node.IsA(nodeType):
                actual = node.GetAttribute(attribute)
                if actual is None or (value is not None and actual != str(value)):
                    return False
        return True

    def refresh(self) -> None:
        if self.__dict__.get("_filling", True):
            return
        scene = self._scene
        everything = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene is not None else []
        nodes = [node for node in everything if self._accepts(node)]
        known = set(self._ids)
        self._ids = [node.GetID() for node in nodes]
        self._watch(nodes)
        actions = self._actions()
        self._fill(nodes, actions)
        if self._current not in self._ids:
            first = self._ids and not self.noneEnabled and not actions and not known
            self._select(self._ids[0] if first else None)
        else:
            self._showCurrent()
        for node in nodes:
            if node.GetID() not in known:
                self.nodeAdded.emit(node)

    def _watch(self, nodes: list[Any]) -> None:
        for nodeID in [known for known in self._watched if known not in self._ids]:
            node, tag = self._watched.pop(nodeID)
            node.RemoveObserver(tag)
        for node in nodes:
            if node.GetID() not in self._watched:
                self._watched[node.GetID()] = (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onNodeModified))

    def _actions(self) -> list[tuple[str, str]]:
        actions = []
        if self.addEnabled:
            actions += [(f"Create new {self._label(kind)}", _ADD + kind) for kind in self.nodeTypes]
        if self.renameEnabled and self._current:
            actions.append((f"Rename current {self._label()}", _RENAME))
        if self.removeEnabled and self._current:
            actions.append((f"Delete current {self._label()}", _REMOVE))
        return actions

    def _fill(self, nodes: list[Any], actions: list[tuple[str, str]]) -> None:
        self._filling = True
        try:
            self._combo.clear()
            if self.noneEnabled or self._scene is None:
                self._combo.addItem(self.noneDisplay if self.noneEnabled else "", "")
            for node in nodes:
                self._combo.addItem(node.GetName() or node.GetID(), node.GetID())
            if actions:
                self._combo.insertSeparator(self._combo.property("count"))
                for text, data in actions:
                    self._combo.addItem(text, data)
        finally:
            self._filling = False

    def _label(self, nodeType: str = "") -> str:
        nodeType = nodeType or (self.nodeTypes[0] if self.nodeTypes else "Node")
        node = self._scene.CreateNodeByClass(nodeType) if self._scene else None
        if node is None:
            return nodeType
        node.UnRegister(None)
        return node.GetNodeTagName()

    def _onNodeModified(self, node: Any, event: str) -> None:
        if not shiboken6.isValid(self):
            return
        row = self._combo.findData(node.GetID())
        if row >= 0:
            self._combo.setItemText(row, node.GetName() or "")
        elif self._accepts(node):
            self.refresh()

    def _showCurrent(self) -> None:
        empty = 0 if self.noneEnabled else -1
        self._combo.setCurrentIndex(self._combo.findData(self._current) if self._current else empty)

    def _select(self, nodeID: str | None) -> None:
        changed = nodeID != self._current
        self._current = nodeID
        self._showCurrent()
        if changed:
            node = self.currentNode()
            self.currentNodeChanged.emit(node)
            self.validNodeChanged.emit(node is not None)
            self.currentNodeIDChanged.emit(nodeID or "")

    def _onActivated(self, row: int) -> None:
        data = self._combo.itemData(row) or ""
        if data.startswith(_ADD):
            self._create(data[len(_ADD) :])
        elif data == _REMOVE:
            self.removeCurrentNode()
        elif data == _RENAME:
            self._showCurrent()
        else:
            self._select(data or None)
            self.nodeActivated.emit(self.currentNode())

    def _create(self, nodeType: str) -> Any:
        base = self._baseNames.get(nodeType) or self._baseNames.get("") or self._label(nodeType)
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(base))
        for attributeType, name, value in self._attributes:
            if node.IsA(attributeType):
                node.SetAttribute(name, "" if value is None else str(value))
        node = self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def addNode(self, nodeType: str = "") -> Any:
        return self._create(nodeType or self.nodeTypes[0])

    def removeCurrentNode(self) -> None:
        if self.currentNode():
            self._scene.RemoveNode(self.currentNode())

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        self._attributes.append((nodeType, name, value))
        self.refresh()

    def setBaseName(self, name: str, nodeType: str = "") -> None:
        self._baseNames[nodeType] = name

    def setNodeTypeLabel(self, label: str, nodeType: str) -> None:
        """Labels of action rows are not shown to tests."""

    baseName = Property(str, lambda self: self._baseNames.get("", ""), lambda self, value: self.setBaseName(value))

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) or node is None else node.GetID())

    def setCurrentNodeID(self, nodeID: str | None) -> None:
        self._select(nodeID if nodeID in self._ids else None)

    currentNodeID = Property(str, lambda self: self._current or "", setCurrentNodeID)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._ids[index])

    def nodeCount(self) -> int:
        return len(self._ids)

    def nodeFromIndex(self, index: int) -> Any:
        return self._scene.GetNodeByID(self._ids[index]) if 0 <= index < len(self._ids) else None


@withSetters
class qMRMLSegmentSelectorWidget(SceneAware, QW.QWidget):
    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal(list)
    cppSignals: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentSegmentChanged(QString)": "currentSegmentChanged",
        "segmentSelectionChanged(QStringList)": "segmentSelectionChanged",
    }
    noneEnabled = stored(bool, False)
    editEnabled = stored(bool, False)
    multiSelection = stored(bool, False)
    segmentationNodeSelectorVisible = stored(bool, True)

    def __init__(self, parent: Any = None) -> None:
        QW.QWidget.__init__(self, parent)
        layout = QW.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._nodes, self._segments = qMRMLNodeComboBox(self), QW.QComboBox(self)
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = self._nodes.removeEnabled = False
        self._nodes.noneEnabled = True
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)
        self._nodes.currentNodeChanged.connect(self._onNode)
        self._segments.currentIndexChanged.connect(lambda _: self.currentSegmentChanged.emit(self.currentSegmentID()))

    def onSceneSet(self) -> None:
        self._nodes.setMRMLScene(self._scene)

    def _onNode(self, node: Any) -> None:
        self._segments.clear()
        for segmentID in self.segmentIDs():
            self._segments.addItem(node.GetSegmentation().GetSegment(segmentID).GetName(), segmentID)
        self.currentNodeChanged.emit(node)

    def currentNode(self) -> Any:
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def setCurrentNode(self, node: Any) -> None:
        self._nodes.setCurrentNode(node)

    def currentSegmentID(self) -> str:
        return self._segments.itemData(self._segments.property("currentIndex")) or ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        self._segments.setCurrentIndex(self._segments.findData(segmentID))

    def segmentIDs(self) -> list[str]:
        node = self.currentNode()
        return list(node.GetSegmentation().GetSegmentIDs()) if node else []
