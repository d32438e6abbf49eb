"""The ``qt`` module of Slicer on top of PySide6, with the habits of PythonQt that matter to module code.

* Every Qt property is a plain attribute (``button.text``, ``spin.value``) and hides the getter of the same name.
* ``object.connect('signal(type)', callable)`` takes C++ signatures and returns False, with a warning, for an unknown one.
* ``objectName`` is also ``name``.
* Assigning an unknown attribute to a plain Qt object is an error.
* Numbers are converted where C++ would convert them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import QMetaObject, QObject

_MODULES = [QtCore, QtGui, QtWidgets, QtUiTools]
with contextlib.suppress(ImportError):
    from PySide6 import QtSvg

    _MODULES.append(QtSvg)

# virtual functions that are properties too: as attributes they would be called back by C++
_VIRTUAL = {"sizeHint", "minimumSizeHint"}
_property = QObject.property
_setProperty = QObject.setProperty
_TYPED_SIGNALS = ("bool", "int", "double", "QString")


class PropertyAttribute:
    """One Qt property as an attribute of the instances; on the class the C++ member stays visible."""

    def __init__(self, name: str, original: Any) -> None:
        self.name, self.original = name, original

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self if self.original is None else self.original
        return _property(owner, self.name)

    def __set__(self, owner: Any, value: Any) -> None:
        meta = owner.metaObject()
        found = meta.property(meta.indexOfProperty(self.name))
        if not found.isWritable():
            raise AttributeError(f"property '{self.name}' of {meta.className()} is read-only")
        kind = found.typeName()
        if kind == "QString":
            value = "" if value is None else value
            if not isinstance(value, str):
                raise ValueError(f"property '{self.name}' of {meta.className()} does not accept {type(value).__name__}")
        elif kind == "bool":
            value = bool(value)
        elif kind == "int" and isinstance(value, float):
            value = int(value)
        elif kind == "double" and isinstance(value, int):
            value = float(value)
        _setProperty(owner, self.name, value)


class _Connection(NamedTuple):
    signature: str
    target: Callable[..., Any]
    signal: Any
    relay: Callable[..., Any]


_hiddenSignals: dict[tuple[type, str], Any] = {}
_connectionsOf: dict[int, list[_Connection]] = {}
"""By C++ address, because the Python wrappers of objects that C++ owns come and go."""


def _normalized(signature: str) -> str:
    text = QMetaObject.normalizedSignature(re.sub(r"^[012]", "", signature.strip()))
    return text.data().decode() if hasattr(text, "data") else str(text)


def _acceptedArguments(function: Callable[..., Any]) -> int | None:
    """Number of positional arguments a callable takes; None if unlimited or unknown."""
    if isinstance(function, functools.partial):
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _findSignal(sender: Any, wanted: str) -> Any:
    """Bound PySide signal for a normalised C++ signature, or None. Widgets of the harness publish ``cppSignals``."""
    for cls in type(sender).__mro__:
        for declared, attribute in cls.__dict__.get("cppSignals", {}).items():
            if _normalized(declared) == wanted:
                return getattr(sender, attribute)
    if sender.metaObject().indexOfSignal(wanted) < 0:
        return None
    name, _, arguments = wanted.partition("(")
    bound = getattr(sender, name, None)
    if bound is None or not hasattr(bound, "connect"):
        hidden = (_hiddenSignals.get((cls, name)) for cls in type(sender).__mro__)
        found = next((signal for signal in hidden if signal is not None), None)
        if found is None:
            return None
        bound = found.__get__(sender, type(sender))
    kind = arguments.rstrip(")")
    with contextlib.suppress(KeyError, IndexError):
        return bound[kind] if kind in _TYPED_SIGNALS else bound
    return bound


def _connections(sender: Any) -> list[_Connection]:
    address = shiboken6.getCppPointer(sender)[0]
    if address not in _connectionsOf:
        _connectionsOf[address] = []
        sender.destroyed.connect(lambda *_: _connectionsOf.pop(address, None))
    return _connectionsOf[address]


def _slotOf(arguments: tuple[Any, ...]) -> Any:
    """The callable of (callable) or of (receiver, 'slot(...)')."""
    if len(arguments) < 2 or not isinstance(arguments[1], str):
        return arguments[0]
    target = getattr(arguments[0], _normalized(arguments[1]).partition("(")[0])
    return target.emit if isinstance(target, QtCore.SignalInstance) else target


def _connect(self: Any, *args: Any) -> bool:
    """connect('signal(..)', callable), connect('signal(..)', receiver, 'slot(..)'), or either with the sender first."""
    if args and isinstance(args[0], QObject):
        self, *args = args  # type: ignore[assignment]
    signature, target = _normalized(args[0]), _slotOf(tuple(args[1:]))
    signal = _findSignal(self, signature)
    if signal is None:
        warnings.warn(f"QObject::connect: No such signal {self.metaObject().className()}::{args[0]}", RuntimeWarning, 3)
        return False
    declared = signature.partition("(")[2].rstrip(")")
    offered = len(declared.split(",")) if declared else 0
    accepted = _acceptedArguments(target)

    def relay(*values: Any) -> None:
        values = values[:offered]
        target(*(values if accepted is None else values[:accepted]))

    signal.connect(relay)
    _connections(self).append(_Connection(signature, target, signal, relay))
    return True


def _disconnect(self: Any, *args: Any) -> bool:
    if args and isinstance(args[0], QObject):
        self, *args = args  # type: ignore[assignment]
    wanted = _normalized(args[0]) if args else None
    target = _slotOf(tuple(args[1:])) if len(args) > 1 else None
    table = _connections(self)
    matching = [c for c in table if (wanted is None or c.signature == wanted) and (target is None or c.target == target)]
    for connection in matching:
        connection.signal.disconnect(connection.relay)
        table.remove(connection)
    return bool(matching)


def _strictSetattr(self: Any, name: str, value: Any) -> None:
    cls = type(self)
    for base in cls.__mro__:
        if name in base.__dict__:
            descriptor = base.__dict__[name]
            if isinstance(descriptor, QtCore.Property):  # PySide6 sets these in the method replaced here
                _setProperty(self, name, list(value) if isinstance(value, tuple) else value)
                return
            if hasattr(type(descriptor), "__set__"):
                type(descriptor).__set__(descriptor, self, value)
                return
            break
    else:
        if cls.__module__.startswith(("PySide6.", "Shiboken")):
            raise AttributeError(f"{cls.__name__} has no attribute or property named '{name}'")
    self.__dict__[name] = value


def _members(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """(name, value) of all that a PySide6 module offers; its classes are made when they are first asked for."""
    for name in sorted({*getattr(module, "__all__", ()), *dir(module)}):
        if not name.startswith("_"):
            with contextlib.suppress(AttributeError):
                yield name, getattr(module, name)


def _patchClass(cls: Any) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name in _VIRTUAL:
            continue
        original = getattr(cls, name, None)
        if isinstance(original, QtCore.Signal):
            _hiddenSignals[cls, name] = original
        setattr(cls, name, PropertyAttribute(name, original))
    if "__setattr__" in cls.__dict__:
        cls.__setattr__ = _strictSetattr
    if hasattr(cls, "exec") and not hasattr(cls, "exec_"):
        cls.exec_ = cls.exec


def _patchClasses() -> None:
    seen = set()
    for module in _MODULES:
        for _, cls in _members(module):
            if isinstance(cls, type) and issubclass(cls, QObject) and cls not in seen:
                seen.add(cls)
                _patchClass(cls)
    QObject.name = PropertyAttribute("objectName", None)
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = lambda self: self.deleteLater()
    QObject.__setattr__ = _strictSetattr
    original = QObject.__getattribute__

    def getattribute(self: Any, name: str) -> Any:
        # PySide6 answers these two inside its own getattr: step in front of it
        if name == "connect":
            return types.MethodType(_connect, self)
        if name == "disconnect":
            return types.MethodType(_disconnect, self)
        return original(self, name)

    QObject.__getattribute__ = getattribute


@functools.cache
def qtModule() -> Any:
    """The flat ``qt`` module; PySide6 is changed for the whole process on the first call."""
    _patchClasses()
    qt = types.ModuleType("qt", __doc__)
    for module in _MODULES:
        for name, value in _members(module):
            setattr(qt, name, value)
    from .uiloader import UiLoader

    qt.QUiLoader = UiLoader  # type: ignore[attr-defined]
    sys.modules["qt"] = qt
    return qt
