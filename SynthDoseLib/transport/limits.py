"""How long a simulation is, and of what batches it is made.

Nothing here looks at a clock except for a limit of time, so that the same seed gives the same dose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core import SynthDoseError
from .allotment import Allotment, allot
from .batches import Batches, Statistics
from .crew import Crew
from .geometry import POSITRON
from .particle_lists import plan_uses
from .problem import Problem
from .sources import LIST
from .tables import REST_ENERGY
from .values import RunSettings

HOPELESS_HISTORIES = 2_000_000
BATCHES, MOST_BATCHES = 64, 1 << 40
PILOT_HISTORIES, MOST_PILOT_HISTORIES = 4000, 100_000  # of each group of emissions
_OPEN_BATCHES = 48  # for a run whose length is not known: the pilot's estimate may be off by as much as 30 %
_FEWEST_BATCHES = 10
MOST_MEV_IN_BATCH = 1e8
"""The tally of one voxel holds a third more."""


def run_pilot(crew: Crew, organs: NDArray[np.int64], settings: RunSettings, watch: Callable[[int], None]) -> Allotment:
    """Run the pilot with about 5 % of the histories; twice, when only the first shows that many will be needed."""
    groups = len(crew.problem.groups)
    if groups == 1 and settings.relative_sigma is None and settings.max_seconds is None:
        return Allotment(np.ones(1), np.full(1, np.nan), np.nan, 0.0)
    per_group = 20 * groups
    first = PILOT_HISTORIES if settings.histories is None else min(PILOT_HISTORIES, settings.histories // per_group)
    if crew.gpu and settings.histories is None and settings.relative_sigma is None:
        first = MOST_PILOT_HISTORIES  # how fast a GPU is shows only when all of it is busy
    pilot = allot(crew, organs, first, watch)
    second = min(MOST_PILOT_HISTORIES, needed_histories(pilot, settings) // per_group)
    if second <= 2 * PILOT_HISTORIES:
        return pilot
    better = allot(crew, organs, second, watch)
    return replace(better, cpu_s=better.cpu_s + pilot.cpu_s)


def needed_histories(pilot: Allotment, settings: RunSettings) -> int:
    """Expected length of the run, as far as that does not depend on the speed of the computer; 0 if it does."""
    totals = [] if settings.histories is None else [settings.histories]
    if settings.relative_sigma is not None:
        known = pilot.variance_per_history[np.isfinite(pilot.variance_per_history)]
        worst = float(known.max()) if known.size else 1e4  # no dose seen yet: a few thousand histories will tell
        totals.append(int(max(5000, worst / settings.relative_sigma**2)))
    return min(totals, default=0)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run is made of.

    Attributes
    ----------
    batches : Batches
    planned : int
        How many of them to begin with; see `extension`.
    scale : float
        What a weight of 1 stands for, per decay and batch.
    uses : int
        How often each entry of a list of particles is followed; 0 for any other source, and for a list used in a circle.
    most : int
        Batches that there may be: a list of particles ends.
    """

    batches: Batches
    planned: int
    scale: float
    uses: int = 0
    most: int = MOST_BATCHES


def plan_run(problem: Problem, pilot: Allotment, settings: RunSettings, threads: int, seconds: float) -> Plan:
    """Decide how many batches there are and of how many histories, for `seconds` at most (inf for no limit).

    Raises
    ------
    SynthDoseError
        If there are too few histories for the emissions.
    """
    limits, groups = [], problem.groups
    needed = needed_histories(pilot, settings)
    if needed:
        limits.append((needed, BATCHES if needed == settings.histories else _OPEN_BATCHES))
    if np.isfinite(seconds):
        affordable = seconds * threads / pilot.seconds_per_history
        # only a limit that is likely to end the run may shape the batches: it is not reproducible
        if not limits or affordable < 2 * min(total for total, _ in limits):
            limits.append((int(max(1000, affordable)), _OPEN_BATCHES))
    total, count = min(limits)
    highest = max(group.max_energy_MeV + (2 * REST_ENERGY if group.kind == POSITRON else 0.0) for group in groups)
    count = min(max(count, int(total * highest / MOST_MEV_IN_BATCH)), total // len(groups))
    if count < _FEWEST_BATCHES:
        raise SynthDoseError(
            f"{total} histories are too few: the source has {len(groups)} groups of emissions, and each needs "
            f"{_FEWEST_BATCHES} at least. Use histories = {100 * len(groups)} or more."
        )
    uses, most = 0, MOST_BATCHES
    listed = problem.tables.source
    if listed.kind == LIST and listed.shape[1]:
        fixed = settings.histories == total
        uses, whole, count, most = plan_uses(int(listed.shape[0]), total, count, fixed=fixed)
        total = whole * count
    rates, largest = batch_rates(pilot.share, total, count)
    yields = np.array([group.yield_per_decay for group in groups])
    scale = float((yields / np.maximum(np.floor(rates), 1.0)).max())
    return Plan(Batches(rates, -1 if listed.kind == LIST else largest, yields / scale), count, scale, uses, most)


def batch_rates(share: NDArray[np.float64], total: int, batches: int) -> tuple[NDArray[np.float64], int]:
    """Histories per batch of each group, and the group that takes what is left over.

    All others have a whole number, the same in every batch: one that had one history in some batches and two in others would
    make them differ without any chance in it, and widen the sigma of what varies little from history to history.
    """
    rates = np.maximum(np.round(share * total / batches), 1.0)
    largest = int(rates.argmax())
    rest = total / batches - (rates.sum() - rates[largest])
    while rest < 1.0:
        second = int(np.where(np.arange(rates.size) == largest, 0.0, rates).argmax())
        rates[second] -= 1.0
        rest += 1.0
    rates[largest] = rest
    return rates, largest


def extension(
    statistics: Statistics, organs: NDArray[np.int64], settings: RunSettings, planned: int, *, dark: bool = False
) -> int:
    """Batches to have in total: more than were planned if sigma, or the time that is left, asks for it.

    Organs that got no dose after HOPELESS_HISTORIES are refused or, if they may be `dark`, left as they are.
    """
    limit = None
    if settings.relative_sigma is not None:
        errors = statistics.relative_errors(organs)
        if not np.isfinite(errors).any():
            if statistics.counts.sum() > HOPELESS_HISTORIES:
                if dark:
                    return planned
                raise SynthDoseError(
                    f"After {statistics.counts.sum()} histories {', '.join(settings.organs)} got no dose at all: their sigma "
                    "is out of reach. Choose organs that the radiation reaches, or limit histories or max_seconds."
                )
            limit = 4 * planned
        else:
            worst = float(np.nanmax(errors))
            if worst <= settings.relative_sigma:
                return planned
            factor = min(4.0, (worst / settings.relative_sigma) ** 2 * 1.05)
            limit = int(np.ceil(planned * factor))
    elif settings.histories is None:
        limit = 2 * planned
    if limit is None:
        return planned
    if settings.histories is not None:
        limit = min(limit, int(settings.histories * planned // max(1, statistics.counts.sum())))
    return max(limit, planned)


def missed_sigma(statistics: Statistics, organs: NDArray[np.int64], settings: RunSettings, plan: Plan) -> tuple[str, ...]:
    """Note on organs whose relative sigma is above the one asked for at the end of a run, and on what ended it."""
    if settings.relative_sigma is None:
        return ()
    errors = statistics.relative_errors(organs)
    missed = [
        f"{name} {_percent(error)}"
        for name, error in zip(settings.organs, errors, strict=True)
        if error > settings.relative_sigma
    ]
    if not missed:
        return ()
    histories = int(statistics.counts.sum())
    if statistics.done >= plan.most:
        why = "The list of particles is used up, and what is left is its own noise: a longer list is needed."
    elif settings.histories is not None and histories + plan.batches.size > settings.histories:
        why = f"The run ended with its {settings.histories} histories: allow more."
    else:
        why = f"The run ended after its {settings.max_seconds:g} s (max_seconds): allow more."
    return (f"The relative sigma asked for, {_percent(settings.relative_sigma)}, was not reached: {', '.join(missed)}. {why}",)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
