"""Parameters and the widgets that show them, where Slicer's own connection falls short."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer


def plain(text: str) -> str:
    """Return a text for a tooltip, in which names of nodes and files are not taken for HTML."""
    return html.escape(text, quote=False) if "<" in text else text


def inWords(text: str, words: Mapping[str, str]) -> str:
    """Return a message about a plan or case file in the words of a panel; keys that the panel has no field for stay.

    Examples
    --------
    >>> inWords("[dose] voxel_mm has to be above 0; see [output] title.", {"[dose] voxel_mm": "Dose voxels"})
    "'Dose voxels' has to be above 0; see [output] title."
    """
    for key, label in words.items():
        text = re.sub(re.escape(key) + r"(?![A-Za-z_])", f"'{label}'", text)
    return text


def _textOf(widget: Any) -> str:
    return str(widget.toPlainText() if isinstance(widget, qt.QTextEdit) else widget.text)


class Fields:
    """Widgets of a form that show parameters, by the name of the parameter.

    Texts are kept here: Slicer's own connection writes a text back at every key, which moves the cursor (Slicer issue 8620).

    Parameters
    ----------
    ui : object
        Widgets as attributes; those with the property ``SlicerParameterName`` count.
    current : callable
        Returns the parameters of the scene, None while there are none.

    Attributes
    ----------
    texts, others : dict of str to QWidget
        Those with a text, and those for Slicer's own connection.
    """

    def __init__(self, ui: Any, current: Callable[[], Any]) -> None:
        self._current = current
        named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
        fields = {name: widget for name, widget in named.items() if name}
        self.texts = {name: w for name, w in fields.items() if isinstance(w, (qt.QLineEdit, qt.QTextEdit))}
        self.others = {name: w for name, w in fields.items() if name not in self.texts}
        for name, widget in self.texts.items():
            signal = "textChanged()" if isinstance(widget, qt.QTextEdit) else "textChanged(QString)"
            widget.connect(signal, self._storing(name, widget))

    def _storing(self, name: str, widget: Any) -> Callable[[], None]:
        def store() -> None:
            parameters = self._current()
            if parameters is not None:
                parameters.setValue(name, _textOf(widget))

        return store

    def showTexts(self, parameters: Any) -> None:
        """Write the texts of parameters into their widgets; a widget that has its text already is left alone."""
        for name, widget in self.texts.items():
            text = parameters.getValue(name)
            if text == _textOf(widget):
                continue
            if isinstance(widget, qt.QTextEdit):
                widget.setPlainText(text)
            else:
                widget.text = text


def forgetUnreadable(parametersClass: Any, node: Any) -> None:
    """Take values out of a parameter node that the wrapper refuses, as from a scene of another version: defaults stand in."""
    with slicer.util.NodeModify(node):  # whoever watches the node sees it when it is whole
        for name, parameter in parametersClass.allParameters.items():
            serializer = parameter.serializer
            if serializer.isIn(node, name):
                try:
                    serializer.validate(serializer.read(node, name))
                except (ValueError, TypeError, KeyError):
                    serializer.remove(node, name)


def catchUp(parameters: Any) -> None:
    """Let a wrapper read its node again if that has other values: an import of a scene changes the node without an event."""
    node = parameters.parameterNode
    for name, parameter in parameters.allParameters.items():
        if parameter.serializer.isIn(node, name) and parameters.getValue(name) != parameter.serializer.read(node, name):
            node.Modified()
            return


class Used:
    """Parameters as they were when a calculation began, whatever the user changes meanwhile; nodes deleted since are None."""

    def __init__(self, parameters: Any) -> None:
        values = {name: parameters.getValue(name) for name in parameters.allParameters}
        self._nodes = {name: value.GetID() for name, value in values.items() if hasattr(value, "GetID")}
        self._values = {name: value for name, value in values.items() if name not in self._nodes}

    def __getattr__(self, name: str) -> Any:
        if name in self._nodes:
            return slicer.mrmlScene.GetNodeByID(self._nodes[name])
        if name in self._values:
            return self._values[name]
        raise AttributeError(name)
