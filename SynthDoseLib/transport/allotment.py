"""How many histories each group of emissions gets.

With n_g histories the variance of an organ dose D is the sum of y_g^2 V_g / n_g (y yield, V variance of one history). For a
given time it is least for n_g ~ y_g sqrt(V_g / t_g), t time of a history; over several organs the V_g / D^2 are added. The V_g
come from a pilot run, whose histories are not used again, so that the result stays unbiased. Its seed is always the same: runs
with other seeds then have the same shares, and no run is less sure than it knows because its own pilot happened to see little.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .crew import Crew
from .emission_groups import relative_cost
from .problem import Work, follow
from .tallies import organ_energies, range_of_labels

PILOT_SEED, PILOT_STREAM = 1, 1 << 20  # a stream far from the numbers of the groups
_PARTS = 8
_LEAST_SHARE, _LEAST_OF_ENERGY = 0.01, 0.1
"""No group is starved because its pilot happened to miss the organs: it gets a hundredth of the histories, and a tenth of its
share of the energy. Few alphas of a source reach the next organ; a run that saw none of them would not know what it lacks."""


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


def allot(crew: Crew, organs: NDArray[np.int64], histories: int, watch: Callable[[int], None]) -> Allotment:
    """Run a pilot and allot shares for the least variance.

    Parameters
    ----------
    crew : Crew
    organs : ndarray of int64, (organs,)
        Label indices of the organs that matter; all the energy that is deposited if there are none.
    histories : int
        Of each group.
    watch : callable
        Called several times a second with the number of histories so far; may raise.
    """
    problem = replace(crew.problem, seed=PILOT_SEED)
    groups = problem.groups
    part = max(10, histories // _PARTS)
    length = problem.label_count
    values = np.zeros((len(groups), _PARTS, length))
    seconds = np.zeros((len(groups), _PARTS))
    tasks = [(group, n) for n in range(_PARTS) for group in range(len(groups))]
    # the rest of a large phantom need not be looked at after each of many short parts
    wanted = np.zeros(length, bool)
    wanted[organs if organs.size else slice(None)] = True
    first, last = range_of_labels(problem.labels, wanted)
    taken = threading.Lock()
    followed = [0]

    def worker(work: Work) -> None:
        while True:
            with taken:
                if not tasks:
                    work.tallies[:] = 0
                    return
                group, n = tasks.pop(0)
            follow(problem, work, group, n * part, (n + 1) * part, 1.0, PILOT_STREAM + group, n, crew.stop)
            work.fetch()
            sums = np.zeros((crew.components, length))
            organ_energies(first, last, work.tallies, problem.labels, sums)
            values[group, n] = sums[0]
            seconds[group, n] = work.cpu_s
            followed[0] += int(work.counts.sum())
            work.clear_sums()

    crew.run(worker, lambda: watch(followed[0] + crew.followed))
    chosen = values[:, :, organs] if organs.size else values.sum(axis=2, keepdims=True)
    yields = np.array([group.yield_per_decay for group in groups])
    costs = np.array([relative_cost(group) for group in groups])
    energies = yields * np.array([group.mean_energy_MeV for group in groups])
    least = np.maximum(_LEAST_SHARE, _LEAST_OF_ENERGY * energies / energies.sum())
    share, variance = best_share(yields, chosen.mean(axis=1) / part, chosen.var(axis=1, ddof=1) / part, costs, least)
    return Allotment(share, variance, float(share @ seconds.sum(axis=1)) / (_PARTS * part), float(seconds.sum()))


def best_share(
    yields: NDArray[np.float64],
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    costs: NDArray[np.float64],
    least: NDArray[np.float64] | float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the histories with the least variance in a given time.

    Parameters
    ----------
    yields, costs : ndarray of float64, (groups,)
        Particles per decay; time of a history in any unit.
    means, variances : ndarray of float64, (groups, organs)
        Of what one history scores.
    least : ndarray of float64, (groups,)
        Share that a group gets in any case, before all are scaled to 1.

    Returns
    -------
    ndarray of float64, (groups,)
        Sums to 1; the formula at the top of this module.
    ndarray of float64, (organs,)
        Relative variance of each organ dose times the number of histories at these shares; nan where there is no dose.
    """
    doses = yields @ means
    seen = doses > 0
    relative = (yields**2)[:, None] * variances[:, seen] / doses[seen] ** 2
    share = np.sqrt(relative.sum(axis=1) / costs)
    share = share / share.sum() if share.any() else np.full(yields.size, 1 / yields.size)
    share = np.maximum(share, least)
    share /= share.sum()
    variance = np.full(doses.size, np.nan)
    variance[seen] = (relative / share[:, None]).sum(axis=0)
    return share, variance
