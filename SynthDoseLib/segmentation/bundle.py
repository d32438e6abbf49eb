"""Running a MONAI bundle on an image: windows that fit the memory, labels back on the image's own grid."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import (
    ImageVolume,
    LabelMap,
    MissingPackageError,
    Progress,
    ProgressReport,
    SynthDoseError,
    VoxelGrid,
    label_counts,
    resample,
    sha256_of,
    silent,
)
from . import memory
from .bundle_folder import Bundle, read_bundle, require_component
from .cleaning import clean_labels
from .components import INFERERS, short_name
from .ensemble import channel_order
from .expressions import Component
from .network import check_classes, load_network
from .postprocessing import Ending, keep_largest_parts, read_ending
from .preparation import Motion, check_image, prepare, spacing_notes
from .probabilities import BLOCK_BYTES, ProbabilityMap, sampled
from .tables import match_organs, organ_group, organ_groups
from .uncertainty import OrganVolume, motions, organ_volumes
from .windows import Counter, Scratch, Slab, buffer_shape, scratch, slide, window_count
from .zoo import obtain_bundle

INTERPOLATED_BLOCKS = 3  # that exist at once: coordinates, probabilities, and what was interpolated


@dataclass(frozen=True)
class BundleOptions:
    """How a bundle is run.

    Attributes
    ----------
    organs : tuple of str
        Organs or groups to keep; all if empty.
    device : str
        "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:1".
    max_memory_bytes : int or None
        What the inference may take on top of the image; most of what is free if None. What does not fit is kept in temporary
        files.
    overrides : mapping of str to object
        Values that replace the configuration's, for example ``{"displayable_configs#highres": False}``.
    download : bool
        Whether a name that is not at hand may be looked for in the MONAI Model Zoo.
    trusted : bool
        Whether pickled checkpoints and TorchScript, which can run code, may be loaded.
    mixed_precision : bool or None
        Compute in half precision where PyTorch thinks it safe; on CUDA only if None.
    clean : bool
        Whether islands, holes and left/right mix-ups are mended (see `clean_labels`).
    samples : int
        Inferences of a changed image, for the uncertainty; 0: none.
    seed : int
        Of the changes.
    ensemble : tuple of str
        Further bundles of the same organs, found like the first; the mean of all probabilities decides.
    """

    organs: tuple[str, ...] = ()
    device: str = "auto"
    max_memory_bytes: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    download: bool = False
    trusted: bool = False
    mixed_precision: bool | None = None
    clean: bool = True
    samples: int = 0
    seed: int = 1
    ensemble: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples and not 2 <= self.samples <= 100:
            raise SynthDoseError(f"The uncertainty needs 2 to 100 inferences of a changed image; found {self.samples}.")
        if self.max_memory_bytes is not None and self.max_memory_bytes <= 0:
            raise SynthDoseError(f"The memory that may be used has to be positive; found {self.max_memory_bytes} bytes.")


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """Organs, and how sure the network is of them.

    Attributes
    ----------
    labels : LabelMap
    entropy : ndarray of float32, (nk, nj, ni), or None
        Of the mean class probabilities of all inferences, nats: 0 where they agree and are certain.
    volumes : tuple of OrganVolume
        Empty without an uncertainty.
    """

    labels: LabelMap
    entropy: NDArray[np.float32] | None = None
    volumes: tuple[OrganVolume, ...] = ()


@dataclass(frozen=True, eq=False)
class _Runner:
    """A loaded network and what it needs to run."""

    bundle: Bundle
    network: Any
    place: Any
    limit: int
    mixed_precision: bool

    def predict(self, patches: Any) -> Any:
        import torch

        kind = torch.float16 if self.place.type == "cuda" else torch.bfloat16
        try:
            with torch.autocast(self.place.type, kind, enabled=self.mixed_precision):
                result = self.network(patches)
        except torch.cuda.OutOfMemoryError as error:
            raise SynthDoseError("The graphics card has too little memory for this bundle. Use the device cpu.") from error
        return result[0] if isinstance(result, (list, tuple)) else result  # deep supervision: the full resolution is first


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
    trusted: bool = False,
    clean: bool = True,
) -> LabelMap:
    """Segment an image with a MONAI bundle; see `segment_image` and `BundleOptions`."""
    options = BundleOptions(
        organs=tuple(organs or ()), device=device, max_memory_bytes=max_memory_bytes, overrides=overrides or {},
        download=download, trusted=trusted, clean=clean,
    )  # fmt: skip
    return segment_image(image, bundle, options, progress=progress).labels


def segment_image(
    image: ImageVolume, bundle: str | os.PathLike[str], options: BundleOptions | None = None, *, progress: Progress = silent
) -> SegmentedImage:
    """Segment an image with one MONAI bundle or several, with an uncertainty if `BundleOptions` asks for several inferences.

    The configuration's preprocessing, network and inferer are built from MONAI's own classes; the image is loaded and the
    result written by SynthDose, so the bundle's file handling, handlers and evaluator are not used. Code in a bundle is
    never run (see `ConfigurationReader`) and its weights are never unpickled, unless it is trusted.

    Parameters
    ----------
    image : ImageVolume
        Any orientation and spacing; the bundle's preprocessing brings it to its own.
    bundle : str or path-like
        Folder or archive (zip, tar) of a bundle, name of a shipped one (`shipped_bundles`), or of a downloaded one
        (`fetch_bundle`).
    options : BundleOptions, optional
    progress : Progress
        Called per window with an estimate of the time left; may raise `Cancelled`.

    Returns
    -------
    SegmentedImage
        On the grid of `image`, canonical names where the organ is known. Notes say which bundle, weights, window, device and
        memory were used, and what is doubtful. Entropy and volume intervals are those of all inferences: of changed images,
        of several bundles, or both. Of a bundle whose organs may overlap, a voxel in several gets the smallest of them.

    Raises
    ------
    SynthDoseError
        If the bundle cannot be read, is not for this image, asks for what is not allowed, does not fit its weights, or
        needs more memory than there is.
    MissingPackageError
        If PyTorch or MONAI is missing.
    Cancelled
        From `progress`.
    """
    options = options or BundleOptions()
    progress(ProgressReport("segment", 0.0, None, "reading the bundle"))
    members = _members((bundle, *options.ensemble), options, progress)
    description = members[0]
    doubts = tuple(dict.fromkeys(doubt for member in members for doubt in check_image(image, member)))
    wanted = _wanted(description, options.organs)
    try:
        import monai
        import torch
    except ImportError as error:
        missing = (error.name or "monai").split(".")[0]
        raise MissingPackageError(missing, "Running a MONAI bundle", 'pip install "synthdose[segmentation]"') from None
    ending = read_ending(description)
    progress(ProgressReport("segment", 0.0, None, "preparing the image"))
    with ExitStack() as files, torch.inference_mode():
        result, volumes, runs = _inferences(members, image, ending, options, files, progress)
        progress(ProgressReport("segment", 0.98, None, "back to the image's grid"))
        labels = _on_image(result, image.grid, ending)
        entropy = sampled(result.entropy(), result.grid, image.grid) if len(volumes) > 1 else None
    keep_largest_parts(labels, ending.one_piece)
    keep = np.zeros(len(description.organs) + 1, np.uint16)
    keep[[organ.index for organ in wanted]] = [organ.index for organ in wanted]
    notes = (
        *image.notes,
        *(f"{run}, MONAI {monai.__version__}, PyTorch {torch.__version__}." for run in runs),
        *(_overlap_note(description, result) if ending.threshold is not None else ()),
        *doubts,
        *spacing_notes(image, description, result.grid),
        *(["The bundle was taken as trusted: its files may run code."] if options.trusted else []),
    )
    segmented = match_organs(LabelMap(image.grid, keep[labels], wanted, notes))
    if options.clean:
        segmented = clean_labels(segmented, image)
    progress(ProgressReport("segment", 1.0, 0.0, "segmented"))
    return SegmentedImage(segmented, entropy, organ_volumes(segmented, volumes) if len(volumes) > 1 else ())


def _members(bundles: Sequence[str | os.PathLike[str]], options: BundleOptions, progress: Progress) -> tuple[Bundle, ...]:
    """Read all bundles of an ensemble; overrides are for the first."""
    found = [obtain_bundle(bundle, progress=progress) if options.download else bundle for bundle in bundles]
    members = [read_bundle(bundle, options.overrides if number == 0 else None) for number, bundle in enumerate(found)]
    for member in members[1:]:
        channel_order(members[0], member)
    return tuple(members)


def _inferences(
    members: Sequence[Bundle],
    image: ImageVolume,
    ending: Ending,
    options: BundleOptions,
    files: ExitStack,
    progress: Progress,
) -> tuple[ProbabilityMap, NDArray[np.float64], list[str]]:
    """Mean probabilities of all inferences, volume in ml per inference and channel, and what was done, per bundle."""
    import torch

    changes: list[Motion | None] = [None, *motions(image, options.samples, options.seed)]
    number = len(members) * len(changes)
    keep = ending.probabilities_first or number > 1 or ending.threshold is not None
    place = _device(options.device)
    limit = options.max_memory_bytes or memory.free_bytes(torch.device("cpu"))
    half = options.mixed_precision if options.mixed_precision is not None else place.type == "cuda"
    mean: ProbabilityMap | None = None
    counter: Counter | None = None
    space: Scratch | None = None
    volumes: list[NDArray[Any]] = []
    runs = []
    for member in members:
        runner = _Runner(member, load_network(member, place, limit, trusted=options.trusted), place, limit, half)
        order = channel_order(members[0], member)
        prepared, grid = prepare(image, member, limit)
        voxels = math.prod(prepared.shape)
        # beside the sums: the prepared image, labels on both grids, and what is interpolated at once
        rest = limit - 6 * voxels - 8 * image.grid.size - INTERPOLATED_BLOCKS * BLOCK_BYTES
        window = _window(runner, prepared, max(limit // 4, rest // 2))
        room = max(0, rest - (0 if place.type == "cuda" else window.memory_bytes))
        space = space or files.enter_context(scratch(room))
        counter = counter or Counter(window_count(prepared.shape[2:], window) * number, progress)
        empty = partial(ProbabilityMap, channels=len(member.organs) + 1, keep=keep, threshold=ending.threshold)
        for change in changes:
            if change is not None:
                prepared, grid = prepare(image, member, limit, change)
            first = mean is None
            mean = mean or empty(grid, space=space)
            with scratch(max(0, room - space.in_memory)) as own:
                here = mean if first else empty(grid, space=own)
                for slab in slide(_counted(runner, counter), prepared, window, own, place):
                    here.put(slab if order is None else Slab(slab.place, slab.logits[order]))
                here.settle()
                volumes.append(label_counts(here.labels)[: here.channels] * grid.voxel_volume_ml)
                if not first:
                    mean.average(here, len(volumes))
                used, filed = space.in_memory + own.in_memory, space.on_disk + own.on_disk
        runs.append(_run_words(runner, window, grid, buffer_shape(prepared.shape[2:], window), used, filed))
    assert mean is not None
    return mean, np.array(volumes), runs


def _run_words(runner: _Runner, window: memory.Window, grid: VoxelGrid, sums: Sequence[int], used: int, filed: int) -> str:
    """What was run and what it took, for the notes."""
    bundle = runner.bundle
    spacing, roi, shape = (" x ".join(f"{n:.3g}" for n in numbers) for numbers in (grid.spacing_mm, window.roi, sums))
    files = f", {filed / 2**20:.0f} MiB of them in temporary files" if filed else ""
    return (
        f"Organs by the MONAI bundle {bundle.name} {bundle.version}".rstrip()
        + f" (weights sha256 {sha256_of(bundle.weights)[:12]}) at {spacing} mm with windows of {roi} voxels on "
        f"{runner.place.type}{' in half precision' if runner.mixed_precision else ''}; {used / 2**20:.0f} MiB for sums of "
        f"{shape} voxels and probabilities{files}"
    )


def _overlap_note(bundle: Bundle, result: ProbabilityMap) -> list[str]:
    names = ", ".join(bundle.organs[organ - 1].name for organ in result.order)
    return [f"Organs of this bundle may overlap; a voxel in several was given to the smallest of them (by size: {names})."]


def _counted(runner: _Runner, counter: Counter) -> Any:
    def predict(patches: Any) -> Any:
        result = runner.predict(patches)
        counter.add(int(patches.shape[0]))
        return result

    return predict


def _on_image(result: ProbabilityMap, target: VoxelGrid, ending: Ending) -> NDArray[np.uint16]:
    if ending.probabilities_first:
        return result.labels_on(target)
    back = resample(np.ascontiguousarray(result.labels.transpose(2, 1, 0)), result.grid, target, linear=False)
    return np.asarray(back, dtype=np.uint16)


def _wanted(bundle: Bundle, organs: Sequence[str]) -> tuple[Any, ...]:
    if not organs:
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


def _window(runner: _Runner, prepared: Any, room: int) -> memory.Window:
    """Window, overlap and batch: the configuration's, made smaller until they fit the memory."""
    bundle = runner.bundle
    shape = tuple(int(n) for n in prepared.shape[2:])
    inferer = Component("SlidingWindowInferer")
    component = require_component(bundle.reader.get("inferer"), "inferer") if "inferer" in bundle.reader else inferer
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
    _check_settings(settings)
    batch = arguments.get("sw_batch_size", 1)
    limit = memory.free_bytes(runner.place) if runner.place.type == "cuda" else room
    window = memory.fitting_window(
        runner.network, tuple(wanted), batch if isinstance(batch, int) and batch > 0 else 1, float(overlap), settings, limit
    )
    check_classes(bundle, window.channels)
    return window


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `SynthDoseError` unless the inferer's further arguments are some that MONAI knows."""
    words = {"mode": ("constant", "gaussian"), "padding_mode": ("constant", "reflect", "replicate", "circular")}
    for key, value in settings.items():
        if key in words:
            known = value in words[key]
        else:
            numbers = value if key == "sigma_scale" and isinstance(value, (list, tuple)) else [value]
            plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
            known = plain and (key == "cval" or (len(numbers) in (1, 3) and min(numbers) > 0))
        if not known:
            allowed = ", ".join(words.get(key, ("a number",)))
            raise SynthDoseError(f"The bundle's inferer has the {key} {value!r}. Allowed: {allowed}.")
