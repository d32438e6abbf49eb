"""Which widget can show which type of parameter: the pairs of Slicer 5.8 to 5.12, no more.

A pair that the real program refuses is refused here as well, so that a panel that works in tests also works there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import slicer
from PySide6 import QtWidgets

from .validators import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange
from .widgets import CTK, QMRML

Changed = Callable[[], None] | None


class GuiConnector:
    """Reads and writes one property of a widget."""

    takesNone = False

    def __init__(self, widget: Any, signal: str, propertyName: str = "") -> None:
        self.widget, self.signal, self.propertyName = widget, signal, propertyName
        self._callback: Changed = None

    def onChanged(self, callback: Changed) -> None:
        """Call `callback` after every change by the user; None ends that."""
        if self._callback is not None:
            self.widget.disconnect(self.signal, self._callback)
        self._callback = callback
        if callback is not None and not self.widget.connect(self.signal, callback):
            raise RuntimeError(f"{self.widget.className()} has no signal {self.signal}")

    def read(self) -> Any:
        return getattr(self.widget, self.propertyName)

    def write(self, value: Any) -> None:
        setattr(self.widget, self.propertyName, value)


class _TextEdit(GuiConnector):
    """Writes the same text again too, as the real one: the cursor goes back to the start."""

    def read(self) -> str:
        return self.widget.toPlainText()

    def write(self, value: str) -> None:
        self.widget.setPlainText(value)


class _Path(GuiConnector):
    def read(self) -> pathlib.Path:
        return pathlib.Path(super().read())

    def write(self, value: pathlib.Path) -> None:
        super().write(str(value))


class _Combo(GuiConnector):
    """A combo box is filled from the choices, whatever the .ui file says."""

    def __init__(self, widget: Any, labels: list[str], values: list[Any]) -> None:
        super().__init__(widget, "currentIndexChanged(int)", "currentIndex")
        self.values = values
        widget.clear()
        for label in labels:
            widget.addItem(label)

    def read(self) -> Any:
        return self.values[super().read()]

    def write(self, value: Any) -> None:
        super().write(self.values.index(value))


class _Node(GuiConnector):
    takesNone = True

    def __init__(self, widget: Any, nodeClass: type) -> None:
        super().__init__(widget, "currentNodeChanged(vtkMRMLNode*)")
        widget.nodeTypes = [nodeClass.__name__]

    def read(self) -> Any:
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        self.widget.setCurrentNode(value)


def _limit(widget: Any, hints: list[Any], bounded: bool, lowest: float, highest: float) -> None:
    low = next((h.minimum for h in hints if isinstance(h, (WithinRange, Minimum))), None)
    high = next((h.maximum for h in hints if isinstance(h, (WithinRange, Maximum))), None)
    if bounded and (low is None or high is None):
        raise RuntimeError(f"a {widget.className()} needs a parameter with both limits")
    for hint in hints:
        if isinstance(hint, Decimals):
            widget.decimals = hint.value
        if isinstance(hint, SingleStep):
            widget.singleStep = hint.value
    widget.setMinimum(lowest if low is None else low)
    widget.setMaximum(highest if high is None else high)


def createGuiConnector(widget: Any, parameter: Any) -> GuiConnector:
    """Return the connector of a widget and a parameter; RuntimeError if the real program has none."""
    kind, base, hints = type(widget), parameter.base, parameter.hints
    if kind is QtWidgets.QCheckBox and base is bool:
        return GuiConnector(widget, "toggled(bool)", "checked")
    if kind is QtWidgets.QPushButton and base is bool:
        widget.checkable = True
        return GuiConnector(widget, "toggled(bool)", "checked")
    if kind in (QtWidgets.QSlider, QtWidgets.QSpinBox) and base is int:
        _limit(widget, hints, kind is QtWidgets.QSlider, -(2**31), 2**31 - 1)
        return GuiConnector(widget, "valueChanged(int)", "value")
    if kind in (QtWidgets.QDoubleSpinBox, CTK["ctkSliderWidget"]) and base is float:
        _limit(widget, hints, kind is not QtWidgets.QDoubleSpinBox, float("-inf"), float("inf"))
        return GuiConnector(widget, "valueChanged(double)", "value")
    if kind is QtWidgets.QComboBox and parameter.isEnum:
        label = getattr(base, "label", lambda item: item.name)
        return _Combo(widget, [label(item) for item in base], list(base))
    if kind is QtWidgets.QComboBox and base in (int, float, str, bool):
        choice = next((hint for hint in hints if isinstance(hint, Choice)), None)
        if choice is None:
            raise RuntimeError("a QComboBox needs a parameter with a Choice annotation")
        return _Combo(widget, [str(item) for item in choice.choices], list(choice.choices))
    if kind is QtWidgets.QLineEdit and base is str:
        return GuiConnector(widget, "textChanged(QString)", "text")
    if kind is QtWidgets.QTextEdit and base is str:
        return _TextEdit(widget, "textChanged()")
    if kind is CTK["ctkPathLineEdit"] and base is pathlib.Path:
        return _Path(widget, "currentPathChanged(QString)", "currentPath")
    if kind is CTK["ctkDirectoryButton"] and base is pathlib.Path:
        return _Path(widget, "directoryChanged(QString)", "directory")
    if kind is QMRML["qMRMLNodeComboBox"] and isinstance(base, type) and issubclass(base, slicer.vtkMRMLNode):
        return _Node(widget, base)
    raise RuntimeError(f"Slicer cannot show a parameter of type {base} in a {kind.__name__}")
