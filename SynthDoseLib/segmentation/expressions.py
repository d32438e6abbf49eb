"""Reading the ``$`` expressions of a MONAI bundle without running code.

A bundle's configuration may hold Python expressions, which MONAI evaluates: a bundle from a stranger could do anything.
Here they are parsed, and only literals, references, arithmetic, comparison, conditionals, containers and a handful of
harmless functions are understood; everything else is refused.
"""

from __future__ import annotations

import ast
import operator
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core import SynthDoseError

MAX_LENGTH = 4000  # characters of an expression, items of a result
MAX_DEPTH = 40
MAX_ITEMS = 20_000  # of a value, everything in it counted each time it is referred to
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")


@dataclass(frozen=True)
class DevicePlace:
    """Stands where a configuration asks for a torch device; the runner decides which."""


@dataclass(frozen=True)
class DTypeName:
    """A numeric type by its name in torch and numpy, for example "float32"."""

    name: str


@dataclass(frozen=True)
class Component:
    """A part with ``_target_``: what to build, and from which resolved arguments."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
_NAMES: dict[str, Any] = {f"{m}.{t}": DTypeName(t) for m in ("torch", "numpy", "np") for t in _DTYPES}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch.device": lambda *_: DevicePlace(),
    "torch.cuda.is_available": lambda: False,  # only ever chooses a device, which the runner does
    "os.path.join": posixpath.join,
    **{function.__name__: function for function in (int, float, str, bool, len, list, tuple, min, max, abs, round, sorted)},
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


class ConfigurationReader:
    """Resolves the parts of a bundle's configuration on demand.

    Parameters
    ----------
    configuration : mapping
        As read from ``inference.json``.
    replaced : mapping of str to object, optional
        Values that take the place of what the configuration says, by identifier ("device", "a#b").
    """

    def __init__(self, configuration: Mapping[str, Any], replaced: Mapping[str, Any] | None = None) -> None:
        self._configuration = configuration
        self._replaced = {_normal(key): value for key, value in (replaced or {}).items()}
        self._resolved: dict[str, Any] = {}
        self._open: list[str] = []

    def __contains__(self, identifier: str) -> bool:
        try:
            self._raw(_normal(identifier))
        except KeyError:
            return False
        return True

    def get(self, identifier: str) -> Any:
        """Return the value at an identifier: plain data, a `Component`, a `DevicePlace` or a `DTypeName`.

        Raises
        ------
        SynthDoseError
            If it does not exist, refers to itself, or holds what is not understood.
        """
        key = _normal(identifier)
        if key in self._resolved:
            return self._resolved[key]
        if key in self._open or len(self._open) > MAX_DEPTH:
            raise SynthDoseError(f"The bundle's configuration refers to itself: {' -> '.join([*self._open, key])}.")
        try:
            raw = self._raw(key)
        except KeyError:
            message = f"The bundle's configuration refers to '{identifier}', which it does not define."
            raise SynthDoseError(message) from None
        self._open.append(key)
        try:
            value = self._value(raw, key, 0)
        finally:
            self._open.pop()
        if _count(value, MAX_ITEMS) > MAX_ITEMS:
            raise SynthDoseError(f"'{key}' in the bundle's configuration holds more than {MAX_ITEMS} values, which is refused.")
        self._resolved[key] = value
        return value

    def _raw(self, key: str) -> Any:
        if key in self._replaced:
            return self._replaced[key]
        node: Any = self._configuration
        parts = key.split("#")
        for place, part in enumerate(parts, start=1):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                raise KeyError(key)
            partial = "#".join(parts[:place])
            if partial in self._replaced:
                node = self._replaced[partial]
        return node

    def _value(self, raw: Any, key: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise SynthDoseError(f"The bundle's configuration is nested too deeply at '{key}'.")
        if isinstance(raw, str):
            return self._text(raw, key)
        if isinstance(raw, list):
            return [self._child(item, f"{key}#{place}", depth) for place, item in enumerate(raw)]
        if isinstance(raw, Mapping):
            inner = {name: item for name, item in raw.items() if not name.startswith("_")}
            target = raw.get("_target_")
            if target is None:
                return {name: self._child(item, f"{key}#{name}", depth) for name, item in inner.items()}
            if "_mode_" in raw and raw["_mode_"] != "default":
                raise SynthDoseError(
                    f"'{key}' in the bundle's configuration has _mode_ = {raw['_mode_']!r}; only default is run."
                )
            if raw.get("_disabled_") in (True, "true", "True"):
                return None
            return Component(str(target), {name: self._child(item, f"{key}#{name}", depth) for name, item in inner.items()})
        return raw

    def _child(self, raw: Any, key: str, depth: int) -> Any:
        return self._value(self._replaced.get(key, raw), key, depth + 1)

    def _text(self, text: str, key: str) -> Any:
        if text.startswith("$"):
            return self._expression(text[1:], key)
        if text.startswith("%"):
            raise SynthDoseError(
                f"'{key}' in the bundle's configuration includes another file ({text}), which is not followed."
            )
        if text.startswith("@"):
            match = _REFERENCE.fullmatch(text)
            if match is None:
                raise SynthDoseError(f"'{key}' in the bundle's configuration has a reference that is not understood: {text}")
            return self.get(match.group(1))
        return text

    def _expression(self, text: str, key: str) -> Any:
        if len(text) > MAX_LENGTH:
            raise SynthDoseError(f"'{key}' in the bundle's configuration holds an expression of {len(text)} characters.")
        references: dict[str, str] = {}

        def keep(match: re.Match[str]) -> str:
            name = f"__reference_{len(references)}"
            references[name] = match.group(1)
            return name

        replaced = _REFERENCE.sub(keep, text)
        try:
            tree = ast.parse(replaced.strip(), mode="eval")
            return _Evaluator(lambda name: self.get(references[name]), references).value(tree.body, 0)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _refused(key, text, f"it cannot be parsed ({type(error).__name__})") from error
        except _Refusal as refusal:
            raise _refused(key, text, str(refusal)) from None
        except (TypeError, ArithmeticError, LookupError) as error:
            raise _refused(key, text, f"it has no value ({error})") from error


class _Refusal(Exception):
    """What in an expression is not allowed."""


class _Evaluator:
    def __init__(self, reference: Callable[[str], Any], names: Mapping[str, str]) -> None:
        self._reference = reference
        self._names = names

    def value(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _Refusal("it is nested too deeply")
        result = self._dispatch(node, depth + 1)
        if _count(result, MAX_ITEMS) > MAX_ITEMS:
            raise _Refusal("its result holds too many values")
        if isinstance(result, (str, list, tuple, dict)) and len(result) > MAX_LENGTH:
            raise _Refusal("its result is too long")
        if isinstance(result, int) and abs(result) > 10**18:
            raise _Refusal("its result is too large")
        return result

    def _dispatch(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.Constant(value=value) if isinstance(value, (str, int, float, bool, type(None))):
                return value
            case ast.Name(id=name) if name in self._names:
                return self._reference(name)
            case ast.List(elts=items):
                return [self.value(item, depth) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item, depth) for item in items)
            case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
                return {self.value(k, depth): self.value(v, depth) for k, v in zip(keys, values, strict=True) if k is not None}
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test, depth) else orelse, depth)
            case ast.BoolOp(op=ast.And(), values=values):
                return self._first(values, depth, stop=False)
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._first(values, depth, stop=True)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.value(operand, depth)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -_number(self.value(operand, depth))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return +_number(self.value(operand, depth))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _arithmetic(op, self.value(left, depth), self.value(right, depth))
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
                values = [self.value(item, depth) for item in (left, *others)]
                return all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, values, values[1:], strict=False))
            case ast.Subscript(value=value, slice=index) if not isinstance(index, ast.Slice):
                container = self.value(value, depth)
                if not isinstance(container, (list, tuple, dict, str)):
                    raise _Refusal("only lists, tuples, dictionaries and strings can be indexed")
                return container[self.value(index, depth)]
            case ast.Attribute() if _dotted(node) in _NAMES:
                return _NAMES[_dotted(node)]
            case ast.Call(func=function, args=arguments, keywords=[]):
                return self._call(function, arguments, depth)
        raise _Refusal(f"'{ast.unparse(node)[:80]}' is not allowed")

    def _first(self, values: list[ast.expr], depth: int, *, stop: bool) -> Any:
        result: Any = None
        for item in values:
            result = self.value(item, depth)
            if bool(result) is stop:
                break
        return result

    def _call(self, function: ast.expr, arguments: list[ast.expr], depth: int) -> Any:
        # network.to(device): the runner places the network itself
        if isinstance(function, ast.Attribute) and function.attr == "to":
            owner = self.value(function.value, depth)
            if isinstance(owner, Component):
                return owner
        name = _dotted(function)
        if name not in _FUNCTIONS or any(isinstance(item, ast.Starred) for item in arguments):
            raise _Refusal(f"the call of '{ast.unparse(function)[:80]}' is not allowed")
        values = [self.value(item, depth) for item in arguments]
        if any(isinstance(value, (Component, DTypeName)) for value in values):
            raise _Refusal(f"the call of '{name}' on a component is not allowed")
        return _FUNCTIONS[name](*values)


def _count(value: Any, most: int) -> int:
    """Values in a value, counted until there are more than `most`: references share lists, whoever reads them does not."""
    if isinstance(value, Component):
        value = value.arguments
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    total = 1
    for item in inner:
        total += _count(item, most - total)
        if total > most:
            break
    return total


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    joined = isinstance(op, ast.Add) and any(isinstance(left, t) and isinstance(right, t) for t in (str, list, tuple))
    if not joined:
        left, right = _number(left), _number(right)
    return _BINARY[type(op)](left, right)


def _number(value: Any) -> int | float:
    if not isinstance(value, (int, float)):
        raise _Refusal("arithmetic works on numbers only (and + on two strings or two lists)")
    return value


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{_dotted(value)}.{attribute}"
    return "?"


def _normal(identifier: str) -> str:
    return identifier.replace("::", "#")


def _refused(key: str, text: str, reason: str) -> SynthDoseError:
    return SynthDoseError(
        f"'{key}' in the bundle's configuration is an expression that SynthDose does not run: ${text[:120]} - {reason}. "
        "Expressions may use literals, @references, arithmetic, comparison and conditionals; code from a bundle is never "
        "executed."
    )
