"""Loads Qt Designer files written for Slicer: custom ctk and qMRML widgets, and the connections of the scene."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtUiTools
from PySide6.QtCore import QObject

from .widgets import CLASSES

_FOREIGN = ("ctk", "qMRML", "qSlicer")


class UiLoader(QtUiTools.QUiLoader):
    """Stands for ``qt.QUiLoader``. An unknown ctk or qMRML class is an error, as is a connection that cannot be made."""

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        made = CLASSES.get(className)
        if made is None:
            if className.startswith(_FOREIGN):
                raise NotImplementedError(f"the harness has no stand-in for {className} (object '{name}')")
            return super().createWidget(className, parent, name)
        widget = made(parent)
        widget.setObjectName(name)
        return widget

    def load(self, source: Any, parent: Any = None) -> Any:
        data = bytes(source.readAll()) if isinstance(source, QtCore.QFile) else Path(source).read_bytes()
        root = ElementTree.fromstring(data)
        flags, connections = _takeFlags(root), _takeConnections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer, parent)
        if top is None:
            raise RuntimeError(self.errorString())

        def find(name: str) -> Any:
            return top if top.objectName == name else top.findChild(QObject, name)

        for objectName, propertyName, text in flags:
            find(objectName).setFlagsFromText(propertyName, text)
        for sender, signal, receiver, slot in connections:
            if not find(sender).connect(signal, find(receiver), slot):
                raise RuntimeError(f"bad connection in .ui file: {sender}.{signal}")
        return top


def _takeFlags(root: ElementTree.Element) -> list[tuple[str, str, str]]:
    """Remove and return the flags of custom widgets, which Qt cannot resolve: (object, property, text)."""
    found = []
    for element in root.iter("widget"):
        if element.get("class") not in CLASSES:
            continue
        for item in element.findall("property"):
            value = item[0]
            if value.tag in ("set", "enum") and not (value.text or "").startswith("Q"):
                element.remove(item)
                found.append((element.get("name", ""), item.get("name", ""), value.text or ""))
    return found


def _takeConnections(root: ElementTree.Element) -> list[tuple[str, str, str, str]]:
    """Remove and return the connections, which are made the PythonQt way: (sender, signal, receiver, slot)."""
    found = []
    for holder in root.findall("connections"):
        for item in holder:
            sender, signal, receiver, slot = (item.findtext(key, "") for key in ("sender", "signal", "receiver", "slot"))
            found.append((sender, signal, receiver, slot))
        root.remove(holder)
    return found
