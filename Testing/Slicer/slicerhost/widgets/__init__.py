"""Stand-ins for the ctk and qMRML widgets that panels use, on the real scene: documented properties, slots and signals only.

An unknown widget in a .ui file is an error: add it here deliberately, by its public header.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtWidgets import QWidget

from . import basic, hierarchy, nodes, ranges

_ALL = {
    name: value
    for module in (basic, ranges, nodes, hierarchy)
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module.__name__
}
CTK: dict[str, Any] = {name: value for name, value in _ALL.items() if name.startswith("ctk")}
QMRML: dict[str, Any] = {name: value for name, value in _ALL.items() if name.startswith("qMRML")}
CLASSES: dict[str, Any] = {**CTK, **QMRML}

__all__ = ["CLASSES", "CTK", "QMRML", "placeholder"]


def placeholder(name: str) -> type:
    """A class for a widget without stand-in: it may be named (annotations, isinstance), not made."""
    if not name.startswith(("ctk", "qMRML", "qSlicer")):
        raise AttributeError(name)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"the harness has no stand-in for {name}")

    return type(name, (QWidget,), {"__init__": __init__})
