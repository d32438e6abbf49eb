"""How many histories each group of emissions gets.

With n_g histories the variance of an organ dose D is the sum of y_g^2 V_g / n_g (y yield, V variance of one history). For a
given time it is least for n_g ~ y_g sqrt(V_g / t_g), t time of a history; over several organs the V_g / D^2 are added. The V_g
come from a pilot run, whose histories are not used again, so that the result stays unbiased.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .emission_groups import relative_cost
from .problem import Problem, follow, new_work, organ_energies

PILOT_STREAM = 1 << 20  # far from the numbers of the groups
_PARTS = 8
_LEAST_SHARE = 0.01  # no group is starved because its pilot happened to miss the organs


@dataclass(frozen=True, eq=False)
class Allotment:
    """Result of the pilot run.

    Attributes
    ----------
    share : ndarray of float64, (groups,)
        Of the histories, sums to 1.
    variance_per_history : ndarray of float64, (organs,)
        Relative variance of each organ dose times the total number of histories; nan where the pilot saw no dose.
    seconds_per_history : float
        CPU time of a history at these shares.
    cpu_s : float
        CPU time of the pilot itself.
    """

    share: NDArray[np.float64]
    variance_per_history: NDArray[np.float64]
    seconds_per_history: float
    cpu_s: float


def allot(problem: Problem, organs: NDArray[np.int64], histories: int, stop: threading.Event) -> Allotment:
    """Run `histories` pilot histories of each group and allot shares for the least variance in `organs` (label indices)."""
    count = len(problem.groups)
    part = max(10, histories // _PARTS)
    width = max(1, organs.size)
    means, variances, seconds = np.zeros((count, width)), np.zeros((count, width)), np.zeros(count)
    work = new_work(problem)
    length = int(problem.labels.max()) + 1
    for group in range(count):
        values = np.zeros((_PARTS, length))
        before = work.cpu_s
        for n in range(_PARTS):
            follow(problem, work, group, n * part, (n + 1) * part, 1.0, PILOT_STREAM + group, stop)
            organ_energies(work.tally, problem.labels, values[n])
        seconds[group] = (work.cpu_s - before) / (_PARTS * part)
        values = values[:, organs] if organs.size else values.sum(axis=1, keepdims=True)
        means[group] = values.mean(axis=0) / part
        variances[group] = values.var(axis=0, ddof=1) / part
    yields = np.array([group.yield_per_decay for group in problem.groups])
    doses = yields @ means
    seen = doses > 0
    relative = (yields**2)[:, None] * variances[:, seen] / doses[seen] ** 2
    costs = np.array([relative_cost(group) for group in problem.groups])
    share = np.sqrt(relative.sum(axis=1) / costs)
    share = share / share.sum() if share.any() else np.full(count, 1 / count)
    share = np.maximum(share, _LEAST_SHARE)
    share /= share.sum()
    variance = np.full(width, np.nan)
    variance[seen] = (relative / share[:, None]).sum(axis=0)
    return Allotment(share, variance, float(share @ seconds), work.cpu_s)
