"""Running a MONAI bundle on an image: sliding windows that fit the memory, labels back on the image's own grid."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import (
    ImageVolume,
    LabelMap,
    MissingPackageError,
    Progress,
    ProgressReport,
    SynthDoseError,
    VoxelGrid,
    resample,
    sha256_of,
    silent,
)
from . import memory
from .bundle_folder import Bundle, load_weights, read_bundle, require_component
from .components import INFERERS, NETWORKS, POSTPROCESSING, TRANSFORMS, build, short_name, transform_components
from .expressions import Component
from .tables import match_organs, organ_group, organ_groups
from .zoo import obtain_bundle

_LOADING = ("LoadImaged", "EnsureChannelFirstd", "AddChanneld")
_PER_KEY = ("mode", "padding_mode", "align_corners", "dtype", "diagonal")
_SLAB = 1 << 21  # voxels whose probabilities are interpolated at once


@dataclass(frozen=True)
class _Ending:
    """What the postprocessing asks for."""

    probabilities_first: bool  # probabilities go back to the image's grid, then the largest wins; otherwise labels go back
    one_piece: tuple[int, ...] = ()  # channels of which only the largest connected part is kept


def segment_with_bundle(
    image: ImageVolume,
    bundle: str | os.PathLike[str],
    *,
    organs: Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress = silent,
    max_memory_bytes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    download: bool = False,
) -> LabelMap:
    """Segment an image with a MONAI bundle.

    The configuration's preprocessing, network and inferer are built from MONAI's own classes; the image is loaded and the
    result written by SynthDose, so the bundle's file handling, handlers and evaluator are not used. Code in a bundle is
    never run (see `ConfigurationReader`) and its weights are never unpickled.

    Parameters
    ----------
    image : ImageVolume
        Any orientation and spacing; the bundle's preprocessing brings it to its own.
    bundle : str or path-like
        Folder of a bundle, name of a shipped one (`shipped_bundles`), or of a downloaded one (`fetch_bundle`).
    organs : sequence of str, optional
        Organs or groups to keep; all if not given.
    device : str
        "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:1".
    progress : Progress
        Called per window with an estimate of the time left; may raise `Cancelled`.
    max_memory_bytes : int, optional
        What the inference may take; if not given, most of what is free on the device.
    overrides : mapping of str to object, optional
        Values that replace the configuration's, for example ``{"displayable_configs#highres": False}``.
    download : bool
        Whether a name that is neither a folder nor at hand may be looked for in the MONAI Model Zoo (see `fetch_bundle`).

    Returns
    -------
    LabelMap
        On the grid of `image`, canonical names where the organ is known. Notes say which bundle, weights, window and device
        were used.

    Raises
    ------
    SynthDoseError
        If the bundle cannot be read, is not for this modality, asks for what is not allowed, does not fit its weights, or
        needs more memory than there is.
    MissingPackageError
        If PyTorch or MONAI is missing.
    Cancelled
        From `progress`.
    """
    progress(ProgressReport("segment", 0.0, None, "reading the bundle"))
    description = read_bundle(obtain_bundle(bundle, progress=progress) if download else bundle, overrides)
    _check_image(image, description)
    wanted = _wanted(description, organs)
    try:
        import monai
        import torch
    except ImportError as error:
        missing = (error.name or "monai").split(".")[0]
        raise MissingPackageError(missing, "Running a MONAI bundle", 'pip install "synthdose[segmentation]"') from None
    place = _device(device)
    network = _network(description, place)
    ending = _ending(description)
    progress(ProgressReport("segment", 0.0, None, "preparing the image"))
    prepared, grid = _preprocess(image, description)
    window = _window(description, network, prepared, max_memory_bytes or memory.free_bytes(place))
    chunks = memory.chunks(tuple(prepared.shape[2:]), window, max_memory_bytes or memory.free_bytes(torch.device("cpu")))
    with torch.inference_mode():
        labels = _infer(network, prepared, grid, image.grid, window, chunks, ending, place, progress)
    _keep_largest_parts(labels, ending.one_piece)
    keep = np.zeros(len(description.organs) + 1, np.uint16)
    keep[[organ.index for organ in wanted]] = [organ.index for organ in wanted]
    spacing = " x ".join(f"{s:.3g}" for s in grid.spacing_mm)
    notes = (
        *image.notes,
        f"Organs by the MONAI bundle {description.name} {description.version}".rstrip()
        + f" (weights sha256 {sha256_of(description.weights)[:12]}) at {spacing} mm with windows of "
        f"{' x '.join(str(n) for n in window.roi)} voxels on {place.type}, MONAI {monai.__version__}, "
        f"PyTorch {torch.__version__}.",
        *([] if image.modality else ["The image does not say its modality; the bundle took it as its own."]),
    )
    progress(ProgressReport("segment", 1.0, 0.0, "segmented"))
    return match_organs(LabelMap(image.grid, keep[labels], wanted, notes))


def _check_image(image: ImageVolume, bundle: Bundle) -> None:
    if bundle.modality and image.modality and bundle.modality != image.modality:
        raise SynthDoseError(
            f"The bundle {bundle.name} was trained on {bundle.modality} images; this image is {image.modality}. "
            "Choose a bundle for this modality."
        )
    if not np.isfinite(image.values).all():
        raise SynthDoseError("The image holds values that are not numbers (NaN or infinite); a network cannot use them.")


def _wanted(bundle: Bundle, organs: Sequence[str] | None) -> tuple[Any, ...]:
    if organs is None:
        return bundle.organs
    known = match_organs(
        LabelMap(VoxelGrid.from_spacing((1, 1, 1), (1.0, 1.0, 1.0)), np.zeros((1, 1, 1), np.uint16), bundle.organs)
    )
    indices: set[int] = set()
    for name in organs:
        members = set(organ_group(name))
        found = {organ.index for organ in known.organs if organ.name in members}
        if not found:
            raise SynthDoseError(
                f"The bundle {bundle.name} does not segment '{name}'. It segments: {', '.join(o.name for o in known.organs)}; "
                f"groups: {', '.join(organ_groups())}."
            )
        indices |= found
    return tuple(organ for organ in bundle.organs if organ.index in indices)


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise SynthDoseError(f"'{name}' is not a device for segmentation. Allowed: auto, cpu, cuda, cuda:0 …")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SynthDoseError("The device 'cuda' was asked for, but PyTorch finds no CUDA device. Use --device auto or cpu.")
    try:
        return torch.device(name)
    except RuntimeError:
        raise SynthDoseError(f"'{name}' is not a device for segmentation. Allowed: auto, cpu, cuda, cuda:0 …") from None


def _network(bundle: Bundle, place: Any) -> Any:
    """Build the network, check it against metadata and weights, load it."""
    identifier = next((name for name in ("network_def", "network", "net") if name in bundle.reader), None)
    if identifier is None:
        raise SynthDoseError(f"The configuration of the bundle {bundle.folder} defines no network (network_def).")
    component = require_component(bundle.reader.get(identifier), "network")
    inputs = component.arguments.get("in_channels", 1)
    if inputs != 1:
        raise SynthDoseError(f"The bundle {bundle.name} needs {inputs} input channels; SynthDose gives it one image.")
    dimensions = component.arguments.get("spatial_dims", 3)
    if dimensions != 3:
        raise SynthDoseError(f"The bundle {bundle.name} works in {dimensions} dimensions; SynthDose runs 3D bundles.")
    outputs = component.arguments.get("out_channels")
    named = len(bundle.organs) + 1
    if outputs is not None and outputs != named:
        raise SynthDoseError(
            f"The bundle {bundle.name} contradicts itself: its network has {outputs} output channels, "
            f"its metadata name {named}."
        )
    network = build(component, "networks", NETWORKS)
    weights = load_weights(bundle)
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
    network.load_state_dict(weights)
    return network.eval().to(place)


def _ending(bundle: Bundle) -> _Ending:
    if "postprocessing" not in bundle.reader:
        return _Ending(probabilities_first=False)
    steps = transform_components(bundle.reader.get("postprocessing"), "postprocessing")
    names = [short_name(step, POSTPROCESSING, "postprocessing") for step in steps]
    for name, step in zip(names, steps, strict=True):
        if name == "Activationsd" and step.arguments.get("sigmoid"):
            raise SynthDoseError(
                f"The bundle {bundle.name} gives overlapping organs (sigmoid); SynthDose runs bundles whose channels exclude "
                "each other (softmax, argmax)."
            )
    if "AsDiscreted" not in names or not steps[names.index("AsDiscreted")].arguments.get("argmax"):
        raise SynthDoseError(f"The postprocessing of the bundle {bundle.name} has no AsDiscreted with argmax.")
    inverse = names.index("Invertd") if "Invertd" in names else len(names)
    nearest = inverse < len(names) and steps[inverse].arguments.get("nearest_interp", True)
    one_piece = []
    for name, step in zip(names, steps, strict=True):
        if name == "KeepLargestConnectedComponentd":
            one_piece += _channels_in_one_piece(step, len(bundle.organs))
    return _Ending(inverse < names.index("AsDiscreted") and not nearest, tuple(one_piece))


def _channels_in_one_piece(step: Component, channels: int) -> list[int]:
    arguments = step.arguments
    applied = arguments.get("applied_labels") or list(range(1, channels + 1))
    applied = [applied] if isinstance(applied, int) else applied
    plain = arguments.get("independent", True) and arguments.get("num_components", 1) == 1
    if not plain or not all(isinstance(n, int) and 0 < n <= channels for n in applied):
        raise SynthDoseError(f"The bundle's {step.target} is used in a way that SynthDose does not run: {dict(arguments)}.")
    return list(applied)


def _keep_largest_parts(labels: NDArray[np.uint16], channels: Sequence[int]) -> None:
    """Turn all but the largest connected part of each channel into background, in place."""
    boxes = ndimage.find_objects(labels, max_label=max(channels, default=0))
    for channel in channels:
        box = boxes[channel - 1]
        if box is None:
            continue
        inner = labels[box]
        parts, number = ndimage.label(inner == channel, structure=np.ones((3, 3, 3)))
        if number > 1:
            largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
            inner[(parts > 0) & (parts != largest)] = 0


def _preprocess(image: ImageVolume, bundle: Bundle) -> tuple[Any, VoxelGrid]:
    """Run the preprocessing; return the network's input (1, 1, ni, nj, nk) and its grid."""
    import torch
    from monai.data import MetaTensor

    if "preprocessing" not in bundle.reader:
        raise SynthDoseError(f"The configuration of the bundle {bundle.folder} defines no preprocessing.")
    steps = transform_components(bundle.reader.get("preprocessing"), "preprocessing")
    values = torch.from_numpy(np.ascontiguousarray(image.values.transpose(2, 1, 0)))[None].clone()
    data: Any = MetaTensor(values, affine=torch.from_numpy(image.grid.ijk_to_ras.copy()), meta={"space": "RAS"})
    key = _image_key(steps)
    for step in steps:
        if step.target.rsplit(".", 1)[-1] in _LOADING:
            continue  # the image is here, channel first
        transform = build(_for_one_key(step, key), "transforms", TRANSFORMS)
        try:
            data = transform({key: data})[key]
        except Exception as error:  # MONAI raises many kinds for an image it cannot transform
            raise SynthDoseError(f"The bundle's {step.target} fails on this image: {error}") from error
    if data.ndim != 4 or data.shape[0] != 1:
        raise SynthDoseError(f"The bundle's preprocessing gives an array of shape {tuple(data.shape)}; one 3D channel was due.")
    shape = tuple(int(n) for n in reversed(data.shape[1:]))
    grid = VoxelGrid((shape[0], shape[1], shape[2]), np.asarray(data.affine, dtype=np.float64))
    plain = data.as_tensor() if isinstance(data, MetaTensor) else data
    return plain.float()[None], grid


def _image_key(steps: Sequence[Component]) -> str:
    for step in steps:
        keys = step.arguments.get("keys")
        if keys:
            return str(keys[0] if isinstance(keys, (list, tuple)) else keys)
    return "image"


def _for_one_key(step: Component, key: str) -> Component:
    """Reduce a transform of several keys (image and label) to the image's."""
    arguments = dict(step.arguments)
    keys = arguments.get("keys", key)
    if isinstance(keys, (list, tuple)):
        if key not in keys:
            raise SynthDoseError(f"The bundle's {step.target} works on {', '.join(map(str, keys))}, not on the image '{key}'.")
        place = list(keys).index(key)
        for name in _PER_KEY:
            value = arguments.get(name)
            if isinstance(value, (list, tuple)) and len(value) == len(keys):
                arguments[name] = value[place]
    arguments["keys"] = [key]
    return replace(step, arguments=arguments)


def _window(bundle: Bundle, network: Any, prepared: Any, limit: int) -> memory.Window:
    """Window, overlap and batch: the configuration's, made smaller until they fit the memory."""
    shape = tuple(int(n) for n in prepared.shape[2:])
    component = bundle.reader.get("inferer") if "inferer" in bundle.reader else Component("SlidingWindowInferer")
    component = require_component(component, "inferer")
    name = short_name(component, INFERERS, "inferer")
    arguments = component.arguments
    if name == "SimpleInferer":
        wanted: Sequence[int] = shape
    else:
        size = arguments.get("roi_size", (96, 96, 96))
        wanted = [size] * 3 if isinstance(size, int) else list(size)
        if len(wanted) != 3 or not all(isinstance(n, int) for n in wanted):
            raise SynthDoseError(f"The bundle's inferer has the window {wanted!r}; three whole numbers were due.")
        wanted = [n if n > 0 else full for n, full in zip(wanted, shape, strict=True)]
    overlap = arguments.get("overlap", 0.25)
    if not isinstance(overlap, (int, float)) or not 0 <= overlap < 1:
        raise SynthDoseError(f"The bundle's inferer has the overlap {overlap!r}; a number from 0 to below 1 was due.")
    settings = {key: arguments[key] for key in ("mode", "sigma_scale", "padding_mode", "cval") if key in arguments}
    batch = arguments.get("sw_batch_size", 1)
    return memory.fitting_window(
        network, tuple(wanted), batch if isinstance(batch, int) and batch > 0 else 1, float(overlap), settings, limit
    )


def _infer(
    network: Any,
    prepared: Any,
    grid: VoxelGrid,
    target: VoxelGrid,
    window: memory.Window,
    chunks: Sequence[memory.Chunk],
    ending: _Ending,
    place: Any,
    progress: Progress,
) -> NDArray[np.uint16]:
    """Channel with the largest probability per voxel of `target`."""
    import torch

    shape = tuple(int(n) for n in prepared.shape[2:])
    counter = _Counter(sum(memory.window_count(chunk.padded_shape(shape), window) for chunk in chunks), progress)
    labels = np.zeros(shape, np.uint16)
    for chunk in chunks:
        logits = _slide(network, prepared[(slice(None), slice(None), *chunk.outer)], window, place, counter)
        if len(chunks) == 1 and ending.probabilities_first:
            return _interpolated_argmax(torch.softmax(logits.float(), dim=1), grid, target)
        # channel by channel maximum over what the chunk is for; its margin belongs to the neighbours
        labels[chunk.inner] = torch.argmax(logits[0], dim=0).cpu().numpy().astype(np.uint16)[chunk.inner_of_outer]
    back = resample(np.ascontiguousarray(labels.transpose(2, 1, 0)), grid, target, linear=False)
    return np.asarray(back, dtype=np.uint16)


def _slide(network: Any, volume: Any, window: memory.Window, place: Any, counter: _Counter) -> Any:
    import torch
    from monai.inferers import sliding_window_inference

    def predict(patch: Any) -> Any:
        with torch.autocast("cuda", enabled=place.type == "cuda"):
            result = network(patch.to(place))
        if isinstance(result, (list, tuple)):  # deep supervision gives the full resolution first
            result = result[0]
        counter.add(int(patch.shape[0]))
        return result.float()

    return sliding_window_inference(
        volume,
        roi_size=window.roi,
        sw_batch_size=window.batch,
        predictor=predict,
        overlap=window.overlap,
        sw_device=place,
        device="cpu",
        **window.settings,
    )


class _Counter:
    """Counts windows and reports how far the inference is."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._done, self._progress, self._start = max(1, total), 0, progress, time.monotonic()

    def add(self, windows: int) -> None:
        self._done += windows
        fraction = min(1.0, self._done / self._total)
        left = (time.monotonic() - self._start) * (1 - fraction) / fraction
        done = min(self._done, self._total)
        self._progress(ProgressReport("segment", 0.98 * fraction, left, f"window {done} of {self._total}"))


def _interpolated_argmax(probabilities: Any, grid: VoxelGrid, target: VoxelGrid) -> NDArray[np.uint16]:
    """Interpolate probabilities (1, channels, ni, nj, nk) of `grid` at the voxels of `target`; take the largest."""
    import torch
    import torch.nn.functional as functional

    nk, nj, ni = target.shape
    labels = np.zeros(target.shape, np.uint16)
    size = torch.tensor(grid.shape[::-1], dtype=torch.float64)
    matrix = torch.from_numpy(np.linalg.inv(grid.ijk_to_ras) @ target.ijk_to_ras)
    rows, columns = torch.meshgrid(torch.arange(nj), torch.arange(ni), indexing="ij")
    thickness = max(1, _SLAB // (nj * ni * max(1, math.ceil(probabilities.shape[1] / 16))))
    for first in range(0, nk, thickness):
        slices = torch.arange(first, min(nk, first + thickness))
        parts = [columns.expand(len(slices), nj, ni), rows.expand(len(slices), nj, ni)]
        parts.append(slices[:, None, None].expand(len(slices), nj, ni))
        place = torch.stack(parts, dim=-1).double() @ matrix[:3, :3].T + matrix[:3, 3]
        inside = ((place >= -0.5) & (place <= size - 0.5)).all(dim=-1)
        # torch wants -1 to 1 between the outer faces, last axis first
        normal = ((place + 0.5) * 2 / size - 1).flip(-1).float()[None]
        sampled = functional.grid_sample(probabilities, normal, mode="bilinear", padding_mode="border", align_corners=False)
        found = torch.argmax(sampled[0], dim=0) * inside
        labels[first : first + len(slices)] = found.numpy().astype(np.uint16)
    return labels
