"""Results of stages as JSON and arrays, and back: plain values and data classes of this library, nothing that could run."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS = frozenset(np.dtype(code).name for code in "?bBhHiIqQfd")
LIBRARY = __name__.split(".", 1)[0]


def plain_from_value(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Turn a value into what JSON holds; its arrays are put into `arrays`.

    Raises
    ------
    TypeError
        For anything but None, bool, numbers, str, datetime, tuple, list, mapping, array and data classes of this library.

    Examples
    --------
    >>> arrays = {}
    >>> plain_from_value(("liver", np.zeros(2)), arrays), list(arrays)
    ({'tuple': ['liver', {'array': 'a0'}]}, ['a0'])
    """
    if isinstance(value, np.generic) and not isinstance(value, str):
        return {value.dtype.name: value.item()}  # a number of numpy comes back as one: the same calculation to the last digit
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [plain_from_value(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[plain_from_value(part, arrays) for part in item] for item in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _is_ours(type(value).__module__):
        fields = {f.name: plain_from_value(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"class": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}
    raise TypeError(f"A {type(value).__name__} cannot be kept.")


def value_from_plain(plain: Any, array: Callable[[str], NDArray[Any]]) -> Any:
    """The value of `plain_from_value`; `array` gives an array by its name.

    Raises
    ------
    TypeError, ValueError, KeyError, AttributeError, ImportError
        If `plain` was not made by it, or a class has changed since.

    Examples
    --------
    >>> value_from_plain({'tuple': ['liver', {'array': 'a0'}]}, {'a0': np.zeros(2)}.__getitem__)
    ('liver', array([0., 0.]))
    """
    if not isinstance(plain, dict):
        return plain
    kind, content = next(iter(plain.items()))
    if kind == "datetime":
        return datetime.fromisoformat(content)
    if kind == "array":
        return array(content)
    if kind in ("tuple", "list"):
        items = [value_from_plain(item, array) for item in content]
        return tuple(items) if kind == "tuple" else items
    if kind in _NUMBERS:
        return np.dtype(kind).type(content)
    if kind == "dict":
        return {value_from_plain(key, array): value_from_plain(item, array) for key, item in content}
    if kind == "class":
        values = {name: value_from_plain(item, array) for name, item in plain["fields"].items()}
        return _data_class(content)(**values)
    raise ValueError(f"'{kind}' is no kind of value.")


def _is_ours(module: str) -> bool:
    return module.split(".", 1)[0] == LIBRARY


def _data_class(name: str) -> Any:
    module, _, qualified = name.partition(":")
    found = getattr(importlib.import_module(module), qualified) if _is_ours(module) else None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{name} is not a data class of {LIBRARY}.")
    return found
