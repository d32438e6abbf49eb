"""Collapsible buttons, path and colour pickers, and ctk names for plain Qt widgets."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from PySide6 import QtCore, QtGui
from PySide6 import QtWidgets as QW
from PySide6.QtCore import Property, Qt, Signal

from .common import stored, withSetters

_UNLIMITED = 16777215


@withSetters
class ctkCollapsibleButton(QW.QAbstractButton):
    contentsCollapsed = Signal(bool)
    collapsedHeight = stored(int, 10)
    contentsFrameShape = stored(int, 0)
    contentsFrameShadow = stored(int, 0)

    def __init__(self, *args: Any) -> None:
        super().__init__(args[-1] if args and isinstance(args[-1], QW.QWidget) else None)
        self._hidden: list[QW.QWidget] = []
        self.setText(args[0] if args and isinstance(args[0], str) else "")
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QW.QSizePolicy.Policy.MinimumExpanding, QW.QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, self._header(), 0, 0)
        self.toggled.connect(self._onToggled)

    def _header(self) -> int:
        return self.fontMetrics().height() + 10

    def _onToggled(self, opened: bool) -> None:
        if opened:
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
        else:
            self._hidden = [c for c in self.children() if isinstance(c, QW.QWidget) and not c.isHidden()]
            for child in self._hidden:
                child.setVisible(False)
        self.setMaximumHeight(_UNLIMITED if opened else self._header())
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._header()

    def _inner(self, size: str) -> QtCore.QSize:
        return getattr(self.layout(), size)() if self.layout() and self.isChecked() else QtCore.QSize(0, 0)

    def minimumSizeHint(self) -> QtCore.QSize:
        inner = self._inner("totalMinimumSize")
        return QtCore.QSize(max(inner.width(), 120), max(inner.height(), self._header()))

    def sizeHint(self) -> QtCore.QSize:
        inner = self._inner("totalSizeHint")
        return QtCore.QSize(max(inner.width(), 200), max(inner.height(), self._header()))

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QW.QStylePainter(self)
        try:
            option = QW.QStyleOptionButton()
            option.initFrom(self)
            option.rect = QtCore.QRect(0, 0, option.rect.width(), self._header())
            painter.drawControl(QW.QStyle.ControlElement.CE_PushButtonBevel, option)
            arrow = QW.QStyleOption()
            arrow.initFrom(self)
            arrow.rect = QtCore.QRect(6, 0, 14, self._header())
            element = QW.QStyle.PrimitiveElement
            shape = element.PE_IndicatorArrowDown if self.isChecked() else element.PE_IndicatorArrowRight
            painter.drawPrimitive(shape, arrow)
            painter.drawText(option.rect.adjusted(26, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, self.property("text"))
        finally:
            painter.end()  # a painter still active when the event returns crashes Qt


class ctkCollapsibleGroupBox(QW.QGroupBox):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.setCheckable(True)
        self.toggled.connect(self._onToggled)

    def _onToggled(self, opened: bool) -> None:
        for child in self.children():
            if isinstance(child, QW.QWidget):
                child.setVisible(opened)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


@withSetters
class ctkPathLineEdit(QW.QWidget):
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    cppSignals: ClassVar = {"currentPathChanged(QString)": "currentPathChanged", "validInputChanged(bool)": "validInputChanged"}
    Dirs, Files, Readable, Writable, Executable = 1, 2, 16, 32, 64
    settingKey = stored(str, "")
    label = stored(str, "")
    nameFilters = stored("QStringList", [])
    filters = stored(int, 3)
    showHistoryButton = stored(bool, True)
    showBrowseButton = stored(bool, True)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QW.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit, browse = QW.QLineEdit(self), QW.QToolButton(self)
        browse.setText("...")
        layout.addWidget(self._edit, 1)
        layout.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged)

    def setFlagsFromText(self, name: str, text: str) -> None:
        """Resolve ``ctkPathLineEdit::Dirs|...`` of a .ui file."""
        setattr(self, name, sum(getattr(type(self), part.rpartition("::")[2]) for part in text.split("|")))

    def addCurrentPathToHistory(self) -> None:
        """There is no history."""

    currentPath = Property(
        str,
        lambda self: self._edit.property("text"),
        lambda self, value: self._edit.setText(value or ""),
    )


@withSetters
class ctkDirectoryButton(QW.QPushButton):
    directoryChanged = Signal(str)
    cppSignals: ClassVar = {"directoryChanged(QString)": "directoryChanged"}

    def _set(self, path: str) -> None:
        path = os.path.abspath(path)
        if path != self.directory:
            self._directory = path
            self.setText(path)
            self.directoryChanged.emit(path)

    directory = Property(str, lambda self: self.__dict__.get("_directory", os.getcwd()), _set)


@withSetters
class ctkColorPickerButton(QW.QPushButton):
    colorChanged = Signal(QtGui.QColor)
    cppSignals: ClassVar = {"colorChanged(QColor)": "colorChanged"}
    displayColorName = stored(bool, True)

    def _set(self, color: QtGui.QColor) -> None:
        if color != self.color:
            self._color = QtGui.QColor(color)
            self.setText(self._color.name(QtGui.QColor.NameFormat.HexRgb))
            self.colorChanged.emit(self._color)

    color = Property(QtGui.QColor, lambda self: self.__dict__.get("_color", QtGui.QColor(0, 0, 0)), _set)


class ctkCheckablePushButton(QW.QPushButton):
    pass


class ctkComboBox(QW.QComboBox):
    pass


class ctkCheckBox(QW.QCheckBox):
    pass


class ctkPushButton(QW.QPushButton):
    pass


class ctkMenuButton(QW.QPushButton):
    pass


class ctkFittedTextBrowser(QW.QTextBrowser):
    pass
