"""Training a small segmentation network on pairs of CT and labels, and writing it as a MONAI bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, LabelMap, Progress, ProgressReport, SynthDoseError, VoxelGrid, resample, silent
from .augmentation import Augmentation, augment
from .tables import organ_group

if TYPE_CHECKING:
    import torch

AIR_HU = -1000.0


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, and how long.

    Attributes
    ----------
    organs : tuple of str
        Organs or groups in the order of the network's channels, from channel 1; channel 0 is everything else.
    one_piece : tuple of str
        Those of `organs` that are one connected part; smaller parts are dropped in use.
    spacing_mm : float
        Isotropic spacing the network sees.
    window_HU : tuple of 2 float
        CT numbers that become 0 and 1; clipped outside.
    channels : tuple of 5 int
        Width of the network (MONAI ``UNet``) at each resolution.
    strides : tuple of 4 int
        Halvings (2) before each of the first four.
    window : tuple of 3 int
        Voxels the network sees at once, in training and in use, multiples of 16. The normalisation inside the network
        depends on how much air a window holds: windows of another size would be another task.
    steps : int
        Optimiser steps of one window each.
    learning_rate : float
        Largest of the one-cycle schedule (AdamW).
    class_balance : float
        Weight of a class in the cross entropy: how often it occurs, to minus this power. 0 treats voxels alike; 1/3 makes
        small organs count early, at the price of growing into their surroundings.
    average : float
        Decay per step of the running mean of the weights; the mean is what is kept.
    augmentation : Augmentation
    threads : int
        CPU threads.
    reduced_precision : bool
        Compute in bfloat16 where PyTorch thinks it safe: several times faster on processors that have it.
    seed : int
    """

    organs: tuple[str, ...]
    one_piece: tuple[str, ...] = ()
    spacing_mm: float = 6.0
    window_HU: tuple[float, float] = (-800.0, 500.0)
    channels: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128)
    strides: tuple[int, int, int, int] = (2, 2, 2, 2)
    window: tuple[int, int, int] = (80, 64, 64)
    steps: int = 600
    learning_rate: float = 2e-3
    class_balance: float = 1 / 3
    average: float = 0.98
    augmentation: Augmentation = field(default_factory=Augmentation)
    threads: int = 1
    reduced_precision: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network's weights and how they came about.

    Attributes
    ----------
    weights : mapping of str to Tensor
        State of the network that `network_definition` describes.
    settings : TrainingSettings
    loss : ndarray of float64, (steps,)
        Dice loss plus cross entropy.
    seconds : float
        Wall time of the training.
    """

    weights: dict[str, torch.Tensor]
    settings: TrainingSettings
    loss: NDArray[np.float64]
    seconds: float


def network_definition(settings: TrainingSettings) -> dict[str, Any]:
    """Return the network as a bundle's configuration describes it."""
    return {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": len(settings.organs) + 1,
        "channels": list(settings.channels),
        "strides": list(settings.strides),
        "num_res_units": 1,
    }


def prepare_pair(
    ct: ImageVolume, labels: LabelMap, organs: Sequence[str], spacing_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Bring a pair to the network's grid: axes along R, A, S, isotropic.

    Parameters
    ----------
    ct : ImageVolume
        CT numbers, HU.
    labels : LabelMap
        True organs; names that belong to an entry of `organs` (see `organ_group`) get its channel number.
    organs : sequence of str
        As in `TrainingSettings`.
    spacing_mm : float

    Returns
    -------
    tuple of ndarray, (ni, nj, nk)
        CT numbers, HU, float32 and channel numbers, uint8.

    Raises
    ------
    SynthDoseError
        If none of the labels belongs to any of `organs`.
    """
    channel = np.zeros(max((o.index for o in labels.organs), default=0) + 1, np.uint8)
    for number, organ in enumerate(organs, start=1):
        members = set(organ_group(organ))
        for entry in labels.organs:
            if entry.name in members:
                channel[entry.index] = number
    if not channel.any():
        raise SynthDoseError(
            f"None of the labels ({', '.join(o.name for o in labels.organs)}) belongs to the organs to train: "
            f"{', '.join(organs)}."
        )
    grid = _ras_grid(ct.grid, spacing_mm)
    values = resample(ct.values, ct.grid, grid, fill=AIR_HU)
    classes = resample(channel[labels.labels], labels.grid, grid, linear=False)
    return np.ascontiguousarray(values.transpose(2, 1, 0)), np.ascontiguousarray(classes.transpose(2, 1, 0))


def _ras_grid(grid: VoxelGrid, spacing_mm: float) -> VoxelGrid:
    """Return the isotropic grid along R, A, S that covers the corners of `grid`."""
    upper = np.asarray(grid.shape[::-1]) - 0.5
    corners = grid.to_ras([(i, j, k) for i in (-0.5, upper[0]) for j in (-0.5, upper[1]) for k in (-0.5, upper[2])])
    low, high = corners.min(axis=0), corners.max(axis=0)
    count = np.maximum(1, np.ceil((high - low) / spacing_mm - 1e-4)).astype(int)
    origin = (low + high) / 2 - spacing_mm * (count - 1) / 2
    return VoxelGrid.from_spacing((int(count[2]), int(count[1]), int(count[0])), (spacing_mm,) * 3, origin_ras_mm=origin)


def train_network(
    pairs: Iterable[tuple[ImageVolume, LabelMap]],
    settings: TrainingSettings,
    *,
    initial: dict[str, torch.Tensor] | None = None,
    checkpoint: Callable[[int, dict[str, torch.Tensor]], None] | None = None,
    checkpoint_every: int = 200,
    progress: Progress = silent,
) -> TrainedNetwork:
    """Train a segmentation network.

    Parameters
    ----------
    pairs : iterable of (ImageVolume, LabelMap)
        CT and true labels; read once and kept in memory at the network's spacing.
    settings : TrainingSettings
    initial : mapping, optional
        Weights to start from, of the same network.
    checkpoint : callable, optional
        Called every `checkpoint_every` steps with the step and the averaged weights.
    progress : Progress

    Returns
    -------
    TrainedNetwork

    Raises
    ------
    SynthDoseError
        If there are no pairs, or none has any of the organs.
    """
    import torch
    from monai.losses import DiceLoss
    from monai.networks.nets import UNet
    from torch.nn.functional import cross_entropy
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    data = []
    for ct, labels in pairs:
        values, classes = prepare_pair(ct, labels, settings.organs, settings.spacing_mm)
        data.append(_around_body(torch.from_numpy(values), torch.from_numpy(classes)))
        progress(ProgressReport("train", 0.0, None, f"patient {len(data)} read"))
    if not data:
        raise SynthDoseError("There are no pairs of CT and labels to train on.")
    definition = {key: value for key, value in network_definition(settings).items() if key != "_target_"}
    network = UNet(**definition)
    if initial is not None:
        network.load_state_dict(initial)
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.average))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.15
    )
    overlap = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-3, smooth_dr=1e-3)
    weights = _class_weights([classes for _, classes in data], len(settings.organs) + 1, settings.class_balance)
    losses = np.zeros(settings.steps)
    start = time.monotonic()
    for step in range(settings.steps):
        ct_HU, truth = data[int(random.integers(len(data)))]
        piece, marks = augment(ct_HU, truth, settings.window, settings.augmentation, random, AIR_HU)
        low, high = settings.window_HU
        image = ((piece - low) / (high - low)).clamp(0.0, 1.0)[None, None]
        classes = marks[None, None].long()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.reduced_precision):
            logits = network(image)
        loss = overlap(logits.float(), classes) + cross_entropy(logits.float(), classes[:, 0], weight=weights)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        mean.update_parameters(network)
        losses[step] = float(loss.detach())
        elapsed = time.monotonic() - start
        left = elapsed / (step + 1) * (settings.steps - step - 1)
        recent = losses[max(0, step - 19) : step + 1].mean()
        progress(ProgressReport("train", (step + 1) / settings.steps, left, f"step {step + 1}: loss {recent:.3f}"))
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            checkpoint(step + 1, _weights(mean.module))
    return TrainedNetwork(_weights(mean.module), settings, losses, time.monotonic() - start)


def _around_body(ct_HU: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut away most of the air around the patient, which costs time and teaches little."""
    import torch

    place = torch.nonzero(ct_HU > -300)
    if not len(place):
        return ct_HU, classes
    low, high = (place.min(dim=0).values - 2).clamp(min=0), place.max(dim=0).values + 3
    box = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return ct_HU[box], classes[box]


def _class_weights(maps: Sequence[torch.Tensor], number: int, balance: float) -> torch.Tensor:
    """How often each class occurs to the power of minus `balance`, mean 1."""
    import torch

    counts = torch.zeros(number, dtype=torch.float64)
    for classes in maps:
        counts += torch.bincount(classes.flatten().long(), minlength=number)
    inverse = counts.clamp(min=1) ** -balance
    return (inverse / inverse.mean()).float()


def _weights(network: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def dice_scores(found: LabelMap, truth: LabelMap, organs: Sequence[str]) -> dict[str, float]:
    """Dice overlap per organ or group of organs; NaN where neither map has it.

    Parameters
    ----------
    found, truth : LabelMap
        On the same grid.
    organs : sequence of str
        Names or groups (see `organ_group`).

    Returns
    -------
    dict of str to float
        2 |A and B| / (|A| + |B|).

    Raises
    ------
    SynthDoseError
        If the grids differ.

    References
    ----------
    Dice, Ecology 26 (1945) 297-302.
    """
    if not found.grid.matches(truth.grid):
        raise SynthDoseError("Dice overlap needs two label maps on the same grid; resample one of them first.")
    scores = {}
    for organ in organs:
        members = set(organ_group(organ))
        first, second = (np.isin(m.labels, [o.index for o in m.organs if o.name in members]) for m in (found, truth))
        total = int(first.sum()) + int(second.sum())
        scores[organ] = 2 * int((first & second).sum()) / total if total else float("nan")
    return scores
