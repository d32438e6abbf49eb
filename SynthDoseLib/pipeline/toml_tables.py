"""Reading a TOML table into a frozen dataclass: unknown keys and wrong types are named, never ignored."""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

from ..core import SynthDoseError

Table = TypeVar("Table")

_WORDS = {
    str: "a text",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    datetime: "a date and time such as 2024-01-31T10:00:00",
    Path: "a path",
}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file in UTF-8, or in UTF-16 with its mark, as Windows PowerShell writes what a command prints.

    Parameters
    ----------
    path : Path
    what : str
        What the file is, for messages.

    Raises
    ------
    SynthDoseError
        If the file cannot be read or is not TOML.
    """
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return tomllib.loads(data.decode("utf-16" if utf16 else "utf-8-sig"))
    except OSError as error:
        raise SynthDoseError(f"Cannot read the {what} {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SynthDoseError(f"{path} is not a valid TOML file: {error}.") from error


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word most like `word`, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def read_table(kind: type[Table], values: Any, where: str) -> Table:
    """Build the dataclass `kind` from a TOML table.

    Parameters
    ----------
    kind : dataclass type
        Its fields are the valid keys; types: str, int, float, bool, datetime, Path, optional ones, tuples of them,
        mappings of str to them, and other such dataclasses.
    values : mapping
        As tomllib gives it.
    where : str
        Name of the table for messages, as in ``[dose]``, or what the whole file is, as in ``The plan``.

    Raises
    ------
    SynthDoseError
        Names the key, what was found and what is allowed; for an unknown key also the nearest valid one.
    """
    if not isinstance(values, Mapping):
        raise SynthDoseError(f"{where} has to be a table; found {values!r}.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise SynthDoseError(f"{where} has an unknown key '{key}'.{nearest(key, fields)} Valid keys: {', '.join(fields)}.")
    arguments = {key: _convert(hints[key], value, _name(where, key, hints[key])) for key, value in values.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            raise SynthDoseError(f"{where} lacks the key '{name}' ({_describe(hints[name])}).")
    return kind(**arguments)


def _name(where: str, key: str, hint: Any) -> str:
    """How a file names a key of the table `where`: ``[dose] histories``, ``[dose]`` or ``[[dosimetry.previous]]``."""
    inside = where.strip("[]") if where.startswith("[") else ""
    path = f"{inside}.{key}" if inside else key
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option):
            return f"[{path}]"
        if typing.get_origin(option) is tuple and dataclasses.is_dataclass(typing.get_args(option)[0]):
            return f"[[{path}]]"
    return f"{where} {key}"


def _describe(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list, each {_describe(arguments[0])}"
        return f"a list of {len(arguments)}, each {_describe(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in arguments if a is not type(None))
    return "a table"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            if option is type(None):
                continue
            try:
                return _convert(option, value, where)
            except SynthDoseError:
                if len([a for a in arguments if a is not type(None)]) == 1:
                    raise
        raise SynthDoseError(f"{where} has to be {_describe(hint)}; found {value!r}.")
    if dataclasses.is_dataclass(hint):
        return read_table(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _convert_list(hint, arguments, value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SynthDoseError(f"{where} has to be a table; found {value!r}.")
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_list(hint: Any, arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    any_length = arguments[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not any_length and len(value) != len(arguments)):
        raise SynthDoseError(f"{where} has to be {_describe(hint)}; found {value!r}.")
    items = []
    for n, item in enumerate(value):
        try:
            items.append(_convert(arguments[0] if any_length else arguments[n], item, where))
        except SynthDoseError as error:
            if where.startswith("[[") and len(value) > 1:
                raise SynthDoseError(f"{error} (Table {n + 1} of {len(value)}.)") from error
            raise
    return tuple(items)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is datetime and isinstance(value, datetime):
        return value
    if hint is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    if hint in (str, bool) and isinstance(value, hint) and not isinstance(value, date):
        return value
    raise SynthDoseError(f"{where} has to be {_describe(hint)}; found {value!r}.")
