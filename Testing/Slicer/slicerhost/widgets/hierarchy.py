"""The tree of the Data module, and tables."""

from __future__ import annotations

from typing import Any, ClassVar

import shiboken6
import slicer
import vtk
from PySide6 import QtWidgets as QW
from PySide6.QtCore import Qt, Signal

from .common import SceneAware, stored, withSetters

_TREE_EVENTS = (
    "SubjectHierarchyItemAddedEvent",
    "SubjectHierarchyItemRemovedEvent",
    "SubjectHierarchyItemReparentedEvent",
    "SubjectHierarchyItemModifiedEvent",
)


@withSetters
class qMRMLSubjectHierarchyTreeView(SceneAware, QW.QTreeWidget):
    currentItemChangedVtk = Signal(object)
    cppSignals: ClassVar = {"currentItemChanged(vtkIdType)": "currentItemChangedVtk"}
    nodeTypes = stored("QStringList", [], "refresh")
    levelFilter = stored("QStringList", [], "refresh")
    multiSelection = stored(bool, False)
    editMenuActionVisible = stored(bool, True)
    contextMenuEnabled = stored(bool, True)
    visibilityColumnVisible = stored(bool, True)
    idColumnVisible = stored(bool, True)
    colorColumnVisible = stored(bool, True)
    transformColumnVisible = stored(bool, True)
    descriptionColumnVisible = stored(bool, False)

    def __init__(self, parent: Any = None) -> None:
        QW.QTreeWidget.__init__(self, parent)
        self._items: dict[int, QW.QTreeWidgetItem] = {}
        self._root = 0
        self.setHeaderLabels(["Node"])
        self.itemSelectionChanged.connect(lambda: self.currentItemChangedVtk.emit(self.currentItem()))

    def subjectHierarchyNode(self) -> Any:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene) if self.mrmlScene() else None

    def onSceneSet(self) -> None:
        node = self.subjectHierarchyNode()
        if node:
            for name in _TREE_EVENTS:
                node.AddObserver(getattr(node, name), self._onTreeEvent)
        self.refresh()

    def _onTreeEvent(self, caller: Any, event: str) -> None:
        if shiboken6.isValid(self):
            self.refresh()

    def refresh(self) -> None:
        node = self.subjectHierarchyNode()
        if node is None:
            return
        kept = self.currentItem()
        blocked = self.blockSignals(True)
        self.clear()
        self._items = {}
        self._addChildren(node, self._root or node.GetSceneItemID(), self)
        self.blockSignals(blocked)
        if kept in self._items:
            self.setCurrentItem(kept)

    def _addChildren(self, node: Any, itemID: int, parent: Any) -> None:
        ids = vtk.vtkIdList()
        node.GetItemChildren(itemID, ids, False)
        for index in range(ids.GetNumberOfIds()):
            child = ids.GetId(index)
            data = node.GetItemDataNode(child)
            if data is not None and data.GetHideFromEditors():
                continue
            if data is not None and self.nodeTypes and not any(data.IsA(kind) for kind in self.nodeTypes):
                continue
            row = QW.QTreeWidgetItem(parent, [node.GetItemName(child)])
            self._items[child] = row
            self._addChildren(node, child, row)
            row.setExpanded(True)

    def setRootItem(self, itemID: int) -> None:
        self._root = itemID
        self.refresh()

    def currentItem(self) -> int:
        row = QW.QTreeWidget.currentItem(self)
        return next((item for item, shown in self._items.items() if shown is row), 0)

    def setCurrentItem(self, itemID: int) -> None:
        QW.QTreeWidget.setCurrentItem(self, self._items.get(itemID))

    def currentNode(self) -> Any:
        return self.subjectHierarchyNode().GetItemDataNode(self.currentItem()) if self.currentItem() else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node))

    def displayedItemCount(self) -> int:
        return len(self._items)


class qMRMLTableView(QW.QTableWidget):
    """Shows a real table node. As in Slicer, a view with a scene also needs a view node, and one without needs neither."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._scene: Any = None
        self._viewNode: Any = None
        self._tag = 0
        self._filling = False
        self.itemChanged.connect(self._onEdited)

    def _onEdited(self, item: Any) -> None:
        """As the real view's model does: what is typed goes into the node."""
        if self._node is not None and not self._filling:
            self._node.SetCellText(item.row(), item.column(), item.text())

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def setMRMLTableViewNode(self, viewNode: Any) -> None:
        self._viewNode = viewNode

    def mrmlTableNode(self) -> Any:
        return self._node

    def setMRMLTableNode(self, node: Any) -> None:
        if self._scene is not None and self._viewNode is None:
            raise RuntimeError("a qMRMLTableView with a scene needs a table view node before it can show a table")
        if self._node is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        if node is not None:
            self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)
        self._fill()

    def _onModified(self, caller: Any, event: str) -> None:
        if shiboken6.isValid(self):
            self._fill()

    def _fill(self) -> None:
        self._filling = True
        try:
            self._show(self._node)
        finally:
            self._filling = False

    def _show(self, node: Any) -> None:
        columns = range(node.GetNumberOfColumns() if node else 0)
        self.setColumnCount(len(columns))
        self.setRowCount(node.GetNumberOfRows() if node else 0)
        if node is None:
            return
        self.setHorizontalHeaderLabels([node.GetColumnName(column) for column in columns])
        for row in range(node.GetNumberOfRows()):
            for column in columns:
                item = QW.QTableWidgetItem(node.GetCellText(row, column))
                if node.GetLocked():
                    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                self.setItem(row, column, item)
