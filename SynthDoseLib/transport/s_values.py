"""S values: every organ in turn is the source, all organs are targets."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core import Emission, Progress, ProgressReport, SynthDoseError, VoxelPhantom, silent
from .background import in_background
from .checkpoint import Checkpoint, problem_key
from .crop import box_of_matter, crop_phantom
from .engine import prepare, run
from .limits import missed_sigma
from .reporter import STAGE, Reporter
from .results import organ_doses
from .sources import OrganSource
from .values import RunSettings, SValues

_SEED_STEP = 1_000_003


def simulate_s_values(
    phantom: VoxelPhantom,
    emissions: Sequence[Emission],
    settings: RunSettings,
    sources: Sequence[str] = (),
    progress: Progress = silent,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[SValues, ...]:
    """The matrix of S values of a phantom; no dose map is kept, so that large phantoms need little memory.

    Parameters
    ----------
    phantom : VoxelPhantom
    emissions : sequence of Emission
        Per decay.
    settings : RunSettings
        `histories` are for each source. `relative_sigma` holds for its `organs` as targets of every source, or, if it names
        none, for the dose of each source to itself; targets that a source cannot reach stay 0. `max_seconds` is for all
        sources together. Each source has a seed of its own, which does not depend on what others there are.
    sources : sequence of str
        Source organs; all that are not empty if none is named.
    progress : callable
        As for `simulate`, over the whole matrix.
    checkpoint : path-like, optional
        Folder to keep the state of each source in; see `simulate`.

    Returns
    -------
    tuple of SValues
        In the order of `sources`.

    Raises
    ------
    SynthDoseError, CheckpointError, Cancelled
        As `simulate`.
    """
    counts = phantom.labels.voxel_counts()
    names = tuple(sources) or tuple(name for name, count in counts.items() if count)
    if not names:
        raise SynthDoseError("S values need organs: the phantom's label map has none.")
    whole = _Whole(progress, names)
    idle = Reporter(whole, phantom, organs=()).idle
    box = in_background(lambda: box_of_matter(phantom.density_g_cm3), idle)
    body = in_background(lambda: crop_phantom(phantom, box), idle)
    key = ""
    if checkpoint is not None:
        key = in_background(lambda: problem_key(body, OrganSource({}), emissions, settings, "s_values"), idle)
    until = None if settings.max_seconds is None else time.monotonic() + settings.max_seconds
    rows = []
    for number, name in enumerate(names):
        whole.number = number
        own = _settings_of(settings, name, phantom.labels.organ(name).index)
        if until is not None:
            own = replace(own, max_seconds=max(0.1, (until - time.monotonic()) / (len(names) - number)))
        job = prepare(body, OrganSource({name: 1.0}), emissions, own, whole, with_map=False)
        kept = None
        if checkpoint is not None:
            own_key = hashlib.sha256(f"{key} {name}".encode()).hexdigest()
            kept = Checkpoint(Path(checkpoint) / f"{phantom.labels.organ(name).index}.npz", own_key)
        state, _ = run(job, own, kept, with_map=False)
        statistics = state.statistics
        targets = organ_doses(phantom, statistics, state.plan.scale)
        missed = missed_sigma(statistics, job.organs, own, state.plan)
        rows.append(SValues(name, targets, int(statistics.counts.sum()), statistics.done, missed))
    return tuple(rows)


def _settings_of(settings: RunSettings, source: str, index: int) -> RunSettings:
    organs = settings.organs
    if settings.relative_sigma is not None and not organs:
        organs = (source,)
    return replace(settings, organs=organs, seed=(settings.seed + index * _SEED_STEP) % 2**63, components=False)


class _Whole:
    """Progress over all sources, from that of each."""

    def __init__(self, progress: Progress, names: Sequence[str]) -> None:
        self._progress, self._names = progress, names
        self._begun = time.monotonic()
        self.number = 0

    def __call__(self, report: ProgressReport) -> None:
        count = len(self._names)
        fraction = (self.number + report.fraction) / count
        left = (time.monotonic() - self._begun) * (1 - fraction) / fraction if fraction > 0.02 else None
        where = f"source {self._names[self.number]} ({self.number + 1} of {count}): "
        self._progress(ProgressReport(STAGE, fraction, left, where + report.message))
