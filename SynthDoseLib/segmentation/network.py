"""A bundle's network: built from MONAI's classes or read as TorchScript, checked against metadata and weights."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

from ..core import SynthDoseError
from .bundle_folder import Bundle, load_script, load_weights, require_component
from .components import NETWORKS, build
from .expressions import Component

MOST_OF_ONE_ARGUMENT = 16384  # channels, voxels of a patch, hidden units: no network of the field comes near
MOST_LAYERS = 512  # sum of a list such as blocks_down, depths, num_layers
_COUNTS = ("block", "depth", "layer", "num_res_units", "num_heads")


def load_network(bundle: Bundle, place: Any, limit: int, *, trusted: bool = False) -> Any:
    """Build the network of a bundle, check it and load its weights.

    Parameters
    ----------
    bundle : Bundle
    place : torch.device
    limit : int
        Bytes that its weights may take.
    trusted : bool
        Whether pickled checkpoints and TorchScript may be loaded: both can run code.

    Returns
    -------
    torch.nn.Module
        For inference, on `place`.

    Raises
    ------
    SynthDoseError
        If it is not of three dimensions and one input, contradicts metadata or weights, or does not fit into `limit`.
    """
    if bundle.weights.suffix == ".ts":
        return load_script(bundle, trusted=trusted).eval().to(place)
    identifier = next((name for name in ("network_def", "network", "net") if name in bundle.reader), None)
    if identifier is None:
        raise SynthDoseError(f"The configuration of the bundle {bundle.folder} defines no network (network_def).")
    component = require_component(bundle.reader.get(identifier), "network")
    _check_definition(component, bundle)
    _require_modest(component.arguments)
    _check_size(bundle, limit)
    weights = load_weights(bundle, trusted=trusted)
    _check_weights(_outline(component), weights, component, bundle, limit)
    network = build(component, "networks", NETWORKS)
    _check_weights(network, weights, component, bundle, limit)
    network.load_state_dict(weights)
    return network.eval().to(place)


def _check_definition(component: Component, bundle: Bundle) -> None:
    inputs = component.arguments.get("in_channels", 1)
    if inputs != 1:
        raise SynthDoseError(f"The bundle {bundle.name} needs {inputs} input channels; SynthDose gives it one image.")
    dimensions = component.arguments.get("spatial_dims", 3)
    if dimensions != 3:
        raise SynthDoseError(f"The bundle {bundle.name} works in {dimensions} dimensions; SynthDose runs 3D bundles.")
    check_classes(bundle, component.arguments.get("out_channels"))


def check_classes(bundle: Bundle, outputs: object) -> None:
    """Raise `SynthDoseError` unless a network's output channels are as many as the metadata name; None is not known."""
    named = bundle.outputs
    if outputs is not None and outputs != named:
        raise SynthDoseError(
            f"The bundle {bundle.name} contradicts itself: its network has {outputs} output channels, "
            f"its metadata name {named}."
        )


def _require_modest(value: Any, key: str = "", total: int = MOST_OF_ONE_ARGUMENT) -> None:
    """Refuse sizes that would fill the memory before anything can be compared."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _require_modest(
                item, str(name), MOST_LAYERS if any(word in str(name) for word in _COUNTS) else MOST_OF_ONE_ARGUMENT
            )
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_modest(item, key, total // max(1, len(value)) if total == MOST_LAYERS else total)
        if len(value) > MOST_LAYERS:
            raise SynthDoseError(f"The bundle's network has {len(value)} values for '{key}'; at most {MOST_LAYERS} are taken.")
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > total:
        raise SynthDoseError(f"The bundle's network has {key} = {value}; at most {total} is taken.")


def _check_size(bundle: Bundle, limit: int) -> None:
    """Compare what a checkpoint unpacks to with `limit`; a PyTorch file is a zip archive, which may be a bomb."""
    size = bundle.weights.stat().st_size
    if zipfile.is_zipfile(bundle.weights):
        with zipfile.ZipFile(bundle.weights) as content:
            size = max(size, sum(member.file_size for member in content.infolist()))
    if size > limit:
        raise SynthDoseError(
            f"The weights {bundle.weights.name} take {size / 1e9:.2g} GB, but only {limit / 1e9:.2g} GB of memory may be used. "
            "Close other programs, or take a smaller bundle."
        )


def _outline(component: Component) -> Any:
    """Return the network without numbers, to compare its shapes before memory is taken; None where a class needs numbers."""
    import torch

    try:
        with torch.device("meta"):
            return build(component, "networks", NETWORKS)
    except SynthDoseError:
        return None  # some classes compute while they are built: the real one is compared instead


def _check_weights(network: Any, weights: Mapping[str, Any], component: Component, bundle: Bundle, limit: int) -> None:
    if network is None:
        return
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    surplus = [key for key in weights if key not in own]
    different = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or surplus or different:
        key = (different or missing or surplus)[0]
        there, here = weights.get(key), own.get(key)
        shapes = [tuple(value.shape) if value is not None else "absent" for value in (there, here)]
        raise SynthDoseError(
            f"The weights {bundle.weights} do not fit the network {component.target}: {len(missing)} tensors are missing, "
            f"{len(surplus)} are too many, {len(different)} have another shape (for example {key}: {shapes[0]} in the file, "
            f"{shapes[1]} in the network)."
        )
    needed = sum(value.numel() * value.element_size() for value in own.values())
    if needed > limit:
        raise SynthDoseError(
            f"The network {component.target} takes {needed / 1e9:.2g} GB, but only {limit / 1e9:.2g} GB of memory may be used."
        )
