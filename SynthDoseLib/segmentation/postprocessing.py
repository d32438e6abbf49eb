"""What a bundle's postprocessing asks for: which class a voxel gets, and which organs are one connected part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import SynthDoseError
from .components import POSTPROCESSING, short_name, transform_components
from .expressions import Component, ConfigurationReader

if TYPE_CHECKING:
    from .bundle_folder import Bundle

HALF = 0.5  # AsDiscrete's own threshold


@dataclass(frozen=True)
class Ending:
    """How probabilities become labels.

    Attributes
    ----------
    probabilities_first : bool
        Probabilities go back to the image's grid, then each voxel gets its class; otherwise the labels go back.
    one_piece : tuple of int
        Labels of which only the largest connected part is kept.
    threshold : float or None
        Probability from which on a voxel belongs to an organ, for a bundle whose organs may overlap; None: the channels
        exclude each other, and the most probable wins.
    """

    probabilities_first: bool
    one_piece: tuple[int, ...] = ()
    threshold: float | None = None


def read_ending(bundle: Bundle) -> Ending:
    """Read the postprocessing of a bundle.

    Raises
    ------
    SynthDoseError
        If it asks for what SynthDose does not run.
    """
    if "postprocessing" not in bundle.reader:
        return Ending(probabilities_first=False)
    steps = _steps(bundle.reader)
    names = [name for name, _ in steps]
    threshold = _threshold(steps)
    if threshold is None and not _argmax(steps):
        raise SynthDoseError(
            f"The postprocessing of the bundle {bundle.name} has neither AsDiscreted with argmax nor a sigmoid."
        )
    inverse = names.index("Invertd") if "Invertd" in names else len(names)
    nearest = inverse < len(names) and steps[inverse][1].arguments.get("nearest_interp", True)
    discrete = names.index("AsDiscreted") if "AsDiscreted" in names else len(names)
    one_piece = []
    for name, step in steps:
        if name == "KeepLargestConnectedComponentd":
            one_piece += _labels_in_one_piece(step, len(bundle.organs))
    return Ending(inverse < discrete and not nearest, tuple(one_piece), threshold)


def gives_regions(reader: ConfigurationReader) -> bool:
    """Whether a configuration's channels are organs that may overlap: sigmoid without argmax."""
    if "postprocessing" not in reader:
        return False
    try:
        return _threshold(_steps(reader)) is not None
    except SynthDoseError:
        return False  # `read_ending` says what is wrong with it, when the bundle is run


def _steps(reader: ConfigurationReader) -> list[tuple[str, Component]]:
    steps = transform_components(reader.get("postprocessing"), "postprocessing")
    return [(short_name(step, POSTPROCESSING, "postprocessing"), step) for step in steps]


def _argmax(steps: Sequence[tuple[str, Component]]) -> bool:
    return any(name == "AsDiscreted" and _first(step.arguments.get("argmax")) for name, step in steps)


def _threshold(steps: Sequence[tuple[str, Component]]) -> float | None:
    sigmoid = any(name == "Activationsd" and _first(step.arguments.get("sigmoid")) for name, step in steps)
    if not sigmoid or _argmax(steps):
        return None  # the order of the channels is that of their sigmoids
    found = next((_first(step.arguments.get("threshold")) for name, step in steps if name == "AsDiscreted"), None)
    value = HALF if found is None else found
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise SynthDoseError(f"The bundle's AsDiscreted has the threshold {value!r}; a number between 0 and 1 was due.")
    return float(value)


def _first(value: Any) -> Any:
    """MONAI takes one value, or a list of one per key."""
    return value[0] if isinstance(value, (list, tuple)) and value else value


def _labels_in_one_piece(step: Component, organs: int) -> list[int]:
    arguments = step.arguments
    applied = arguments.get("applied_labels") or list(range(1, organs + 1))
    applied = [applied] if isinstance(applied, int) else applied
    plain = arguments.get("independent", True) and arguments.get("num_components", 1) == 1
    if not plain or not all(isinstance(n, int) and 0 < n <= organs for n in applied):
        raise SynthDoseError(f"The bundle's {step.target} is used in a way that SynthDose does not run: {dict(arguments)}.")
    return list(applied)


def keep_largest_parts(labels: NDArray[np.uint16], organs: Sequence[int]) -> None:
    """Turn all but the largest connected part of each organ into background, in place."""
    boxes = ndimage.find_objects(labels, max_label=max(organs, default=0))
    for organ in organs:
        box = boxes[organ - 1]
        if box is None:
            continue
        inner = labels[box]
        parts, number = ndimage.label(inner == organ, structure=np.ones((3, 3, 3)))
        if number > 1:
            largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
            inner[(parts > 0) & (parts != largest)] = 0
