"""``slicer.parameterNodeWrapper``: typed attributes kept in a real vtkMRMLScriptedModuleNode (own, reduced version).

Lists and dicts are stored as JSON, which is not the format of the real one.
"""

from __future__ import annotations

import enum
import itertools
import json
import pathlib
import types
import typing
import weakref
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

import slicer
import vtk

from .connectors import createGuiConnector
from .validators import Choice, Decimals, Default, Maximum, Minimum, SingleStep, Validator, WithinRange

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "Validator",
    "WithinRange",
    "parameterNodeWrapper",
    "parameterPack",
]

_EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, pathlib.Path: pathlib.Path()}
_MISSING = object()
_tags = itertools.count(1)


def _isNode(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _withoutNone(kind: Any) -> Any:
    if get_origin(kind) in (typing.Union, types.UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return kind


class Parameter:
    """Name, type, annotations and default of one attribute."""

    def __init__(self, name: str, annotation: Any, default: Any) -> None:
        hints: list[Any] = []
        if get_origin(annotation) is Annotated:
            annotation, *hints = get_args(annotation)
        self.name, self.type, self.hints = name, _withoutNone(annotation), hints
        self.optional = self.type is not annotation or _isNode(self.type)
        self.validators = [hint for hint in hints if isinstance(hint, Validator)]
        for hint in hints:
            if isinstance(hint, Default):
                default = hint.value
        self.default = self._defaultOfType() if default is _MISSING else default

    @property
    def base(self) -> Any:
        """The type without its arguments."""
        return get_origin(self.type) or self.type

    @property
    def serializer(self) -> _Serializer:
        return _Serializer(self)

    @property
    def isEnum(self) -> bool:
        return isinstance(self.base, type) and issubclass(self.base, enum.Enum)

    def _defaultOfType(self) -> Any:
        if self.optional:
            return None
        if self.isEnum:
            return next(iter(self.type))
        for validator in self.validators:
            if isinstance(validator, Choice):
                return validator.choices[0]
            if isinstance(validator, (WithinRange, Minimum)):
                return self.type(validator.minimum)
        return _EMPTY.get(self.base, self.base() if self.base in (list, dict, tuple) else None)

    def named(self, name: str) -> Parameter:
        """The same parameter under another name."""
        copy = object.__new__(Parameter)
        copy.__dict__.update(self.__dict__, name=name)
        return copy

    def encode(self, value: Any) -> str:
        if isinstance(value, enum.Enum):
            return value.name
        return json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)

    def decode(self, text: str) -> Any:
        if self.base is bool:
            return text == "True"
        if self.isEnum:
            return self.base[text]
        return self.base(json.loads(text)) if self.base in (list, tuple, dict) else self.base(text)

    def check(self, value: Any) -> None:
        """Raise for a wrong type or value, as the real serializers do; they convert nothing."""
        if value is None and self.optional:
            return
        if value is None:
            raise ValueError(f"{self.name}: value must not be None")
        allowed = (int, float) if self.base is float else self.base
        if self.base is not Any and not isinstance(value, allowed):
            raise TypeError(f"{self.name}: expected {self.base.__name__}, got {type(value).__name__}")
        for validator in self.validators:
            validator.validate(value)

    def isIn(self, node: Any) -> bool:
        return bool(node.HasParameter(self.name))

    def write(self, node: Any, value: Any) -> None:
        self.check(value)
        if _isNode(self.type):
            node.SetParameter(self.name, "")  # None is a value too: this says that there is one
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())
        elif value is None:
            node.UnsetParameter(self.name)
        else:
            node.SetParameter(self.name, self.encode(value))

    def read(self, node: Any) -> Any:
        """Value in the node, which gets the default if it has none; not checked, whatever a scene file says."""
        if not self.isIn(node):
            self.write(node, self.default)
        if _isNode(self.type):
            return node.GetNodeReference(self.name)
        return self.decode(node.GetParameter(self.name)) if self.isIn(node) else None


class _Serializer:
    """``allParameters[...].serializer`` of the real wrapper, which gets the name every time."""

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter

    def isIn(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def read(self, node: Any, name: str) -> Any:
        return self._parameter.named(name).read(node)

    def validate(self, value: Any) -> None:
        self._parameter.check(value)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        if _isNode(self._parameter.type):
            node.RemoveNodeReferenceIDs(name)


class _Cached:
    """A parameter of a node, read again only when the node says that it was modified; as the real one, see its wrapper.py."""

    def __init__(self, parameter: Parameter, node: Any) -> None:
        self.parameter, self.node, self._writing = parameter, node, False
        self._value = parameter.read(node)
        this = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: this()._onModified())

    def __del__(self) -> None:
        self.node.RemoveObserver(self._tag)

    def _onModified(self) -> None:
        if not self._writing:
            self._value = self.parameter.read(self.node)

    def read(self) -> Any:
        return self._value

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self.node):
                self.parameter.write(self.node, value)
                self._value = self.parameter.read(self.node)
        finally:
            self._writing = False


def _attribute(name: str) -> property:
    return property(lambda self: self._values[name].read(), lambda self, value: self._values[name].write(value))


def _declared(cls: type) -> list[Parameter]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return [Parameter(name, annotation, cls.__dict__.get(name, _MISSING)) for name, annotation in hints.items()]


def parameterPack(cls: Any) -> Any:
    """Class decorator: parameters that go together."""
    cls._packParameters = _declared(cls)
    return cls


def _addPack(cls: Any, name: str, pack: Any, parameters: dict[str, Parameter]) -> None:
    members = {p.name: p.named(f"{name}.{p.name}") for p in pack._packParameters}
    parameters.update({p.name: p for p in members.values()})
    view = type(pack.__name__, (), {short: _attribute(p.name) for short, p in members.items()})

    def getter(self: Any) -> Any:
        proxy = view()
        proxy._values = self._values
        return proxy

    setattr(cls, name, property(getter))


class _Methods:
    """What a wrapped class can do besides its parameters."""

    allParameters: Mapping[str, Parameter]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guiTags: dict[int, tuple[int, list[_Binding]]] = {}
        self._updatingGui = False
        self._values = {name: _Cached(parameter, parameterNode) for name, parameter in self.allParameters.items()}

    def _owner(self, name: str) -> tuple[Any, str]:
        *path, last = name.split(".")
        target: Any = self
        for part in path:
            target = getattr(target, part)
        return target, last

    def getValue(self, name: str) -> Any:
        return getattr(*self._owner(name))

    def setValue(self, name: str, value: Any) -> None:
        target, last = self._owner(name)
        setattr(target, last, value)

    def default(self, name: str) -> Any:
        return types.SimpleNamespace(value=self.allParameters[name].default)

    def connectGui(self, ui: Any) -> None:
        """Bind the widgets of `ui` (see slicer.util.childWidgetVariables) by their SlicerParameterName property.

        Returns no tag, as in Slicer up to 5.10 at least (issue 7547): what is connected by this cannot be disconnected.
        """
        bound = []
        for attribute, widget in vars(ui).items():
            name = widget.property("SlicerParameterName") if hasattr(widget, "property") else None
            if name and name not in self.allParameters:
                raise ValueError(f"widget '{attribute}' names an unknown parameter '{name}'")
            if name:
                bound.append((name, widget))
        self._bind(bound)

    def connectParametersToGui(self, mapping: Mapping[str, Any]) -> int:
        return self._bind(list(mapping.items()))

    def _bind(self, pairs: list[tuple[str, Any]]) -> int:
        tag = next(_tags)
        connectors = [(name, createGuiConnector(widget, self.allParameters[name])) for name, widget in pairs]
        bindings = [_Binding(self, name, connector) for name, connector in connectors]
        observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._updateGui())
        self._guiTags[tag] = (observer, bindings)
        self._updateGui()
        return tag

    def _updateGui(self) -> None:
        """Write every parameter to its widget, also to the one that has just been changed."""
        if not self._updatingGui:
            self._updatingGui = True
            try:
                for _, bindings in self._guiTags.values():
                    for binding in bindings:
                        binding.pull()
            finally:
                self._updatingGui = False

    def disconnectGui(self, tag: int | None) -> None:
        if tag in self._guiTags:
            observer, bindings = self._guiTags.pop(tag)
            self.parameterNode.RemoveObserver(observer)  # VTK calls it even when Python has collected it
            for binding in bindings:
                binding.close()

    def AddObserver(self, *args: Any) -> int:
        return self.parameterNode.AddObserver(*args)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> None:
        self.parameterNode.EndModify(wasModifying)


def parameterNodeWrapper(cls: Any) -> Any:
    """Class decorator: annotated attributes become parameters of the node given to the constructor."""
    parameters: dict[str, Parameter] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for name, annotation in hints.items():
        if hasattr(annotation, "_packParameters"):
            _addPack(cls, name, annotation, parameters)
        else:
            parameters[name] = Parameter(name, annotation, cls.__dict__.get(name, _MISSING))
            setattr(cls, name, _attribute(name))
    cls.allParameters = parameters
    for name, member in vars(_Methods).items():
        if isinstance(member, types.FunctionType):
            setattr(cls, name, member)
    return cls


class _Binding:
    """Keeps one widget and one parameter equal."""

    def __init__(self, wrapper: Any, name: str, connector: Any) -> None:
        self.wrapper, self.name, self.connector = wrapper, name, connector
        connector.onChanged(self.push)

    def push(self) -> None:
        """From the widget to the node."""
        with slicer.util.NodeModify(self.wrapper):
            if not self.wrapper._updatingGui:
                self.wrapper.setValue(self.name, self.connector.read())

    def pull(self) -> None:
        """From the node to the widget."""
        value = self.wrapper.getValue(self.name)
        if value is not None or self.connector.takesNone:
            self.connector.write(value)

    def close(self) -> None:
        self.connector.onChanged(None)
