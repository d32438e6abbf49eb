"""An image as a bundle's network wants to see it: checked, oriented, resampled and normalised by the bundle's own steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import ImageVolume, SynthDoseError, VoxelGrid
from .bundle_folder import Bundle
from .components import TRANSFORMS, build, transform_components
from .expressions import Component

_LOADING = ("LoadImaged", "EnsureChannelFirstd", "AddChanneld")
_NO_CHANGE = ("EnsureTyped", "EnsureTypeD", "EnsureTypeDict", "ToTensord")
_GEOMETRIC = ("Orientationd", "Spacingd")
_PER_KEY = ("mode", "padding_mode", "align_corners", "dtype", "diagonal")
_COPIES = 5  # of the prepared image that MONAI's transforms hold at once
NOT_AIR_HU = -60.0  # a CT has air or fat somewhere, which are below
COARSER = 3.0  # than the bundle's voxels: thin organs are lost


@dataclass(frozen=True, eq=False)
class Motion:
    """How an image is changed before a network sees it: the patient a little turned, moved and scaled, its values a little off.

    Attributes
    ----------
    matrix : ndarray, (4, 4)
        Takes RAS mm of the unchanged voxels to where they are looked for.
    gain, offset, noise : float
        Values are multiplied by `gain`; `offset` and the standard deviation `noise` are in shares of the image's range (1 to
        99 %).
    seed : int
        Of the noise.
    """

    matrix: NDArray[np.float64]
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    seed: int = 0


def check_image(image: ImageVolume, bundle: Bundle) -> tuple[str, ...]:
    """Refuse an image that the bundle cannot mean; return what is doubtful about it.

    Raises
    ------
    SynthDoseError
        For another modality, one slice, a single value, values that are not numbers, or a CT that is not in HU.
    """
    modalities = bundle.modality.split("/") if bundle.modality else []
    if modalities and image.modality and image.modality not in modalities:
        raise SynthDoseError(
            f"The bundle {bundle.name} was trained on {bundle.modality} images; this image is {image.modality}. "
            "Choose a bundle for this modality."
        )
    if min(image.grid.shape) < 2:
        sizes = " x ".join(str(n) for n in image.grid.shape[::-1])
        raise SynthDoseError(
            f"The image has {sizes} voxels: a single slice. The network works in three dimensions; give the whole series."
        )
    if not np.isfinite(image.values).all():
        raise SynthDoseError("The image holds values that are not numbers (NaN or infinite); a network cannot use them.")
    low, high = float(image.values.min()), float(image.values.max())
    if low == high:
        raise SynthDoseError(f"The image is empty: all of its voxels are {low:g}. Check the file, or choose another series.")
    in_HU = modalities == ["CT"] or ("CT" in modalities and image.modality == "CT")
    if in_HU and not (low < NOT_AIR_HU and high > -100):
        raise SynthDoseError(
            f"The bundle {bundle.name} was trained on CT in HU, where air is -1000 and water 0; the values of this image run "
            f"from {low:g} to {high:g}. If they are HU plus a constant, state it (hu_offset; --hu-offset -1000 or -1024). If "
            "it is an MR, choose a bundle for MR."
        )
    return () if image.modality else ("The image does not say its modality; the bundle took it as its own.",)


def prepare(image: ImageVolume, bundle: Bundle, limit: int, motion: Motion | None = None) -> tuple[Any, VoxelGrid]:
    """Run the bundle's preprocessing.

    Orientation and spacing are taken from MONAI's transforms and carried out in one interpolation, so that a large image is
    never copied at its own resolution; all other steps are MONAI's.

    Parameters
    ----------
    image : ImageVolume
    bundle : Bundle
    limit : int
        Memory that may be taken, bytes.
    motion : Motion, optional
        Of the patient, for test-time augmentation.

    Returns
    -------
    input : Tensor of float32, (1, 1, ni, nj, nk)
    grid : VoxelGrid
        Where its voxels are in the image's space, the motion included.

    Raises
    ------
    SynthDoseError
        If a step is not allowed or fails, or its result would not fit into `limit`.
    """
    from monai.data import MetaTensor

    if "preprocessing" not in bundle.reader:
        raise SynthDoseError(f"The configuration of the bundle {bundle.folder} defines no preprocessing.")
    steps = transform_components(bundle.reader.get("preprocessing"), "preprocessing")
    key = _image_key(steps)
    data: Any = None
    shape: tuple[int, ...] = image.grid.shape[::-1]
    affine = image.grid.ijk_to_ras
    for step in steps:
        name = step.target.rsplit(".", 1)[-1]
        if name in _LOADING or (data is None and name in _NO_CHANGE):
            continue  # the image is here, channel first
        transform = build(_for_one_key(step, key), "transforms", TRANSFORMS)
        if data is None:
            if name in _GEOMETRIC and _linear(step):
                shape, affine = _placed(transform, key, shape, affine, step)
                continue
            data = _resampled(image, shape, affine, motion, limit)
        data = _applied(transform, key, data, step, limit)
    data = _resampled(image, shape, affine, motion, limit) if data is None else data
    if data.ndim != 4 or data.shape[0] != 1:
        raise SynthDoseError(f"The bundle's preprocessing gives an array of shape {tuple(data.shape)}; one 3D channel was due.")
    plain = (data.as_tensor() if isinstance(data, MetaTensor) else data).float()
    if not bool(plain.isfinite().all()):
        raise SynthDoseError("The bundle's preprocessing turns this image into values that are not numbers; check its range.")
    size = tuple(int(n) for n in reversed(plain.shape[1:]))
    return plain[None], VoxelGrid((size[0], size[1], size[2]), np.asarray(data.affine, dtype=np.float64))


def spacing_notes(image: ImageVolume, bundle: Bundle, grid: VoxelGrid) -> tuple[str, ...]:
    """What is doubtful about an image's voxels beside those the network was trained on."""
    own = np.abs(grid.directions.T @ image.grid.directions) @ np.asarray(image.grid.spacing_mm)
    ratio = float((own / np.asarray(grid.spacing_mm)).max())
    if ratio <= COARSER:
        return ()
    found, wanted = (" x ".join(f"{s:.3g}" for s in spacing) for spacing in (image.grid.spacing_mm, grid.spacing_mm))
    return (
        f"The image's voxels ({found} mm) are up to {ratio:.1f} times as large as those the bundle {bundle.name} was trained "
        f"on ({wanted} mm): expect poor organs.",
    )


def _placed(
    transform: Any, key: str, shape: Sequence[int], affine: NDArray[np.float64], step: Component
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine after a geometric transform, without a voxel being touched."""
    import torch
    from monai.data import MetaTensor

    hollow = torch.zeros(1).expand(1, *shape)
    data = MetaTensor(hollow, affine=torch.from_numpy(np.array(affine)), meta={"space": "RAS"})
    try:
        data = transform({key: data}, lazy=True)[key]
        return tuple(int(n) for n in data.peek_pending_shape()), np.asarray(data.peek_pending_affine(), dtype=np.float64)
    except Exception as error:  # MONAI raises many kinds for an image it cannot transform
        raise SynthDoseError(f"The bundle's {step.target} fails on this image: {error}") from error


def _resampled(image: ImageVolume, shape: Sequence[int], affine: NDArray[np.float64], motion: Motion | None, limit: int) -> Any:
    """Sample the image on a new grid, trilinearly, its border values going on."""
    import torch
    from monai.data import MetaTensor

    _require_room(shape, limit)
    affine = affine if motion is None else motion.matrix @ affine
    matrix = np.linalg.inv(image.grid.ijk_to_ras) @ affine
    source = image.values.transpose(2, 1, 0)
    along = np.abs(matrix[:3, :3]).argmax(axis=0)
    step = matrix[along, range(3)]
    rest = matrix[:3, :3].copy()
    rest[along, range(3)] = 0.0
    result = np.empty(tuple(shape), np.float32)
    if sorted(along) == [0, 1, 2] and np.abs(rest).max() * max(shape) < 1e-4:
        source = source.transpose(along)
        ndimage.affine_transform(source, step, matrix[along, 3], output=result, output_shape=shape, order=1, mode="nearest")
    else:
        ndimage.affine_transform(
            source, matrix[:3, :3], matrix[:3, 3], output=result, output_shape=shape, order=1, mode="nearest"
        )
    if motion is not None:
        low, high = np.percentile(result[::2, ::2, ::2], (1.0, 99.0))
        rng = np.random.default_rng(motion.seed)
        result *= motion.gain
        result += rng.standard_normal(result.shape, dtype=np.float32) * np.float32(motion.noise * (high - low))
        result += np.float32(motion.offset * (high - low))
    return MetaTensor(torch.from_numpy(result)[None], affine=torch.from_numpy(affine), meta={"space": "RAS"})


def _applied(transform: Any, key: str, data: Any, step: Component, limit: int) -> Any:
    """Run one transform of MONAI, if what it makes will fit."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms.traits import LazyTrait

    try:
        if isinstance(transform, LazyTrait) and step.target.rsplit(".", 1)[-1] != "CropForegroundd":
            hollow = MetaTensor(torch.zeros(1).expand(*data.shape), affine=data.affine, meta={"space": "RAS"})
            _require_room(transform({key: hollow}, lazy=True)[key].peek_pending_shape(), limit)
        return transform({key: data})[key]
    except SynthDoseError:
        raise
    except Exception as error:  # MONAI raises many kinds for an image it cannot transform
        raise SynthDoseError(f"The bundle's {step.target} fails on this image: {error}") from error


def _require_room(shape: Sequence[int], limit: int) -> None:
    needed = 4 * _COPIES * float(np.prod([float(n) for n in shape]))
    if needed > limit:
        sizes = " x ".join(str(int(n)) for n in shape)
        raise SynthDoseError(
            f"At the bundle's spacing the image would have {sizes} voxels, which take {needed / 1e9:.2g} GB to prepare; "
            f"{limit / 1e9:.2g} GB may be used. Crop the image, close other programs, or take a coarser bundle."
        )


def _image_key(steps: Sequence[Component]) -> str:
    for step in steps:
        keys = step.arguments.get("keys")
        if keys:
            return str(keys[0] if isinstance(keys, (list, tuple)) else keys)
    return "image"


def _linear(step: Component) -> bool:
    """Whether a Spacingd interpolates linearly in the plain way, as this module does; Orientationd never interpolates."""
    arguments = step.arguments
    mode = arguments.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, (list, tuple)) and mode else mode
    plain = not arguments.get("scale_extent") and not arguments.get("align_corners") and not arguments.get("recompute_affine")
    padding = arguments.get("padding_mode", "border")
    padding = padding[0] if isinstance(padding, (list, tuple)) and padding else padding
    return step.target.endswith("Orientationd") or (mode in ("bilinear", "trilinear") and padding == "border" and plain)


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
