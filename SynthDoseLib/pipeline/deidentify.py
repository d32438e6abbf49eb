"""What of a plan and its results may be told of the patient: nothing, by the explicit choice ``[output] deidentify``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ..core import LabelMap
from ..io.identity import Identity, identity_of, without_identity
from .plan import RunPlan

Value = TypeVar("Value")

_KEPT = ("data:",)  # addresses of pictures


def identity_in(plan: RunPlan) -> Identity | None:
    """Who the patient of a plan is, as its inputs say it; None if that may be told."""
    if not plan.output.deidentify:
        return None
    moments = [plan.therapy.administered_at, *(entry.acquired_at for entry in plan.activity)]
    return identity_of(_paths(plan), [moment.date() for moment in moments if moment is not None])


def without_names(plan: RunPlan, labels: LabelMap, identity: Identity | None) -> tuple[RunPlan, LabelMap]:
    """Plan and labels in which no organ is called after the patient; the plan still reads the same files."""
    if identity is None:
        return plan, labels
    cleaned = without_identity(labels, identity)
    names = {old.name: new.name for old, new in zip(labels.organs, cleaned.organs, strict=True) if old.name != new.name}
    if not names:
        return plan, labels
    renamed = _mapped(plan, lambda text: names.get(text, text))
    return dataclasses.replace(renamed, image=plan.image, segmentation=plan.segmentation), cleaned


def public(value: Value, identity: Identity | None) -> Value:
    """The same value with every text in it cleaned: in tables, sequences and dataclasses; arrays and times stay."""
    return value if identity is None else _mapped(value, identity.clean)


def public_plan(plan: RunPlan, identity: Identity | None) -> RunPlan:
    """A plan as it may be written: inputs called ``input-1`` …, dates moved to a calendar of their own, no name of anybody.

    Run again, it gives the same result where the inputs have these names.
    """
    if identity is None:
        return plan
    aliases = identity.paths or {}

    def told(value: Any) -> Any:
        if isinstance(value, Path):
            return Path(aliases.get(value.absolute().as_posix(), "input"))
        if isinstance(value, datetime):
            return identity.moved(value)
        if isinstance(value, str):
            return aliases.get(value, value)
        return None

    told_plan: RunPlan = _mapped(plan, told, (Path, datetime, str))
    organs = tuple(identity.clean(name, name=True) for name in plan.segmentation.organs)
    return dataclasses.replace(
        told_plan,
        segmentation=dataclasses.replace(told_plan.segmentation, organs=organs),
        output=dataclasses.replace(told_plan.output, title=identity.clean(plan.output.title, name=True)),
    )


def _paths(plan: RunPlan) -> Iterator[Path]:
    """Every file and folder that a plan names."""

    def walk(value: Any) -> Iterator[Path]:
        if isinstance(value, Path):
            yield value
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from walk(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                yield from walk(item)

    yield from walk(plan)
    segmentation = plan.segmentation
    for text in (segmentation.labels, segmentation.bundle, *segmentation.ensemble, plan.phantom.calibration):
        if text and Path(text).exists():
            yield Path(text)


def _mapped(value: Any, change: Any, kinds: tuple[type, ...] = (str,)) -> Any:
    """Apply `change` to all values of `kinds` in nested tables; what does not change stays the same object."""
    if isinstance(value, str) and value.startswith(_KEPT):
        return value
    if isinstance(value, kinds):
        return change(value)
    if isinstance(value, Mapping):
        new: Any = {_mapped(k, change, kinds): _mapped(v, change, kinds) for k, v in value.items()}
        return new
    if isinstance(value, tuple | list):
        items = [_mapped(item, change, kinds) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(items) if type(value) in (tuple, list) else type(value)(*items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in dataclasses.fields(value):
            old = getattr(value, field.name)
            new = _mapped(old, change, kinds)
            if new is not old and not (isinstance(old, Mapping | str) and new == old):
                changes[field.name] = new
        return dataclasses.replace(value, **changes) if changes else value
    return value
