"""Train the shipped torso bundle on synthetic patients, or measure it on unseen ones.

Run ``python -m SynthDoseLib.pipeline.train_demo_bundle --help``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core import ImageVolume, LabelMap, Organ, ProgressReport, SynthDoseError, resource_path, silent
from ..phantom import synthetic_patient, training_pair
from ..segmentation import segment_with_bundle
from ..segmentation.bundle_writer import ModelCard, write_bundle
from ..segmentation.training import TrainedNetwork, TrainingSettings, dice_scores, train_network

BUNDLE = "synthetic_torso_ct"
ORGANS = (
    "lung_right", "lung_left", "liver", "kidney_right", "kidney_left", "spleen", "heart", "stomach", "urinary_bladder",
    "skeleton", "pancreas", "colon", "small_bowel", "aorta",
)  # fmt: skip
ONE_PIECE = ORGANS[:9]
ROUNDS = ((0.25, 1 / 3), (0.41, 0.15), (0.34, 0.1))  # share of the steps, class balance: small organs count most at first
FIRST_TRAINING_SEED = 10_000
UNSEEN_SEEDS = (101, 102, 103, 104, 105)
MEASURED = (*ORGANS, "lungs", "kidneys")
REQUIRED_DICE = {"lungs": 0.85, "liver": 0.85, "kidneys": 0.85}  # both sides together, as the demonstration needs them

_DESCRIPTION = "Fourteen organs of the torso on CT, so that the demonstration of SynthDose segments with a network."
_LIMITS = (
    "Trained on computer-made, stylised people only; it has never seen a patient. On a real CT it may miss organs or put them "
    "in the wrong place: use a bundle trained on patients there, such as the Model Zoo's wholeBody_ct_segmentation. On one "
    "real CT (abdomen and pelvis, 3 mm; example_ct of TotalSegmentator, whose labels were taken as the truth) the Dice overlap "
    "was 0.8 for the liver, 0.7 for left kidney and spleen, 0.5 for right kidney and bladder, 0.1 for the pancreas. Adults, "
    "supine, head first or feet first, from the neck to the thighs; children, arms beside the body, implants, resections and "
    "contrast phases outside the simulated ones were not seen."
)


def training_pairs(number: int, first_seed: int = FIRST_TRAINING_SEED) -> Iterator[tuple[ImageVolume, LabelMap]]:
    """Make synthetic pairs of CT and labels at spacings from 3.5 to 6 mm.

    Parameters
    ----------
    number : int
        How many.
    first_seed : int
        Seed of the first; the others follow.

    Yields
    ------
    tuple of ImageVolume and LabelMap
    """
    for seed in range(first_seed, first_seed + number):
        spacing = float(np.random.default_rng([seed, 35]).uniform(3.5, 6.0))
        pair = training_pair(seed, (spacing, spacing, spacing))
        organs = tuple(Organ(index, name) for index, name in enumerate(pair.organs, start=1))
        yield ImageVolume(pair.grid, pair.hu, modality="CT", unit="HU"), LabelMap(pair.grid, pair.labels, organs)


def measure(bundle: str | Path, seeds: Sequence[int] = UNSEEN_SEEDS, **patient: Any) -> dict[str, list[float]]:
    """Segment synthetic patients and compare with the truth.

    Parameters
    ----------
    bundle : str or Path
    seeds : sequence of int
        Patients, none of which was trained on.
    **patient
        Further arguments of `synthetic_patient`.

    Returns
    -------
    dict of str to list of float
        Dice overlap per organ (and for both lungs, both kidneys) and seed, on the CT's own grid.
    """
    scores: dict[str, list[float]] = {organ: [] for organ in MEASURED}
    for seed in seeds:
        person = synthetic_patient(seed, **patient)
        found = segment_with_bundle(person.ct, bundle, progress=silent)
        for organ, score in dice_scores(found, person.organ_labels, MEASURED).items():
            scores[organ].append(score)
    return scores


def dice_table(scores: dict[str, list[float]], seeds: Sequence[int] = UNSEEN_SEEDS) -> str:
    """Return the Dice overlaps as a table for people."""
    lines = [f"{'Dice, unseen seed':<18}" + "".join(f"{seed:>8}" for seed in seeds) + "    mean     min  required"]
    for organ, values in scores.items():
        required = f"{REQUIRED_DICE[organ]:.2f}" if organ in REQUIRED_DICE else "-"
        numbers = "".join(f"{value:8.3f}" for value in values)
        lines.append(f"{organ:<18}{numbers}{np.nanmean(values):8.3f}{np.nanmin(values):8.3f}{required:>10}")
    return "\n".join(lines)


def _card(scores: dict[str, list[float]], patients: int) -> ModelCard:
    data = (
        f"{patients} synthetic CTs (`SynthDoseLib.phantom.training_pair`, seeds from {FIRST_TRAINING_SEED}): stylised adults "
        "of both sexes from published reference masses, with and without contrast medium. No patient's data were used."
    )
    measured = (
        f"Mean Dice overlap over {len(UNSEEN_SEEDS)} unseen synthetic patients (`synthetic_patient`, seeds "
        f"{', '.join(str(seed) for seed in UNSEEN_SEEDS)}), CT of 3 mm: "
        "`python -m SynthDoseLib.pipeline.train_demo_bundle --check`."
    )
    metrics = {f"Dice {organ}": float(np.nanmean(values)) for organ, values in scores.items()}
    return ModelCard(BUNDLE, "0.1.0", _DESCRIPTION, data, _LIMITS, measured, metrics)


def train(
    out: Path, patients: int, steps: int, *, seed: int = 1, threads: int = 1, checkpoint_every: int = 0
) -> dict[str, list[float]]:
    """Train in `ROUNDS`, write the bundle, and return its Dice overlaps on unseen patients (see `measure`).

    Parameters
    ----------
    out : Path
        Folder of the bundle.
    patients, steps : int
        Synthetic patients to train on, and optimiser steps of all rounds together.
    seed, threads : int
    checkpoint_every : int
        Write the bundle every so many steps of a round; 0 for never.

    Returns
    -------
    dict of str to list of float
    """
    losses, seconds, weights = [], 0.0, None
    for number, (share, balance) in enumerate(ROUNDS):
        settings = TrainingSettings(
            ORGANS, ONE_PIECE, steps=max(1, round(share * steps)), threads=threads, seed=seed + number, class_balance=balance
        )
        trained = train_network(
            training_pairs(patients),
            settings,
            initial=weights,
            checkpoint=partial(_keep, out, settings, patients) if checkpoint_every else None,
            checkpoint_every=max(1, checkpoint_every),
            progress=partial(_report, f"round {number + 1} of {len(ROUNDS)}", settings.steps),
        )
        weights, seconds = trained.weights, seconds + trained.seconds
        losses.append(trained.loss)
    whole = TrainedNetwork(trained.weights, replace(settings, steps=steps), np.concatenate(losses), seconds)
    write_bundle(out, whole, _card({}, patients))
    scores = measure(out)
    write_bundle(out, whole, _card(scores, patients))
    return scores


def _report(title: str, steps: int, message: ProgressReport) -> None:
    if message.fraction == 0 or round(message.fraction * steps) % 20 == 0:
        left = "" if message.seconds_left is None else f", {message.seconds_left / 60:.0f} min left"
        sys.stderr.write(f"{title}, {message.message}{left}\n")


def _keep(out: Path, settings: TrainingSettings, patients: int, step: int, weights: dict[str, Any]) -> None:
    write_bundle(out, TrainedNetwork(weights, settings, np.zeros(step), 0.0), _card({}, patients))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, 1 if a required Dice is missed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m SynthDoseLib.pipeline.train_demo_bundle",
        description="Train the torso bundle on synthetic patients, or with --check measure it on unseen ones.",
        epilog="example: python -m SynthDoseLib.pipeline.train_demo_bundle --check",
    )
    parser.add_argument("--check", action="store_true", help="only print the Dice overlap on unseen seeds")
    parser.add_argument("--bundle", default=BUNDLE, help="bundle to check (default: the shipped one)")
    parser.add_argument("--out", type=Path, help="folder to write the bundle to (default: replace the shipped one)")
    parser.add_argument("--patients", type=int, default=120, help="synthetic patients to train on (default 120)")
    parser.add_argument("--steps", type=int, default=3200, help="optimiser steps (default 3200, about 40 min)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint-every", type=int, default=0, help="write the bundle every so many steps")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            scores = measure(options.bundle)
        else:
            scores = train(
                options.out or resource_path("segmentation") / BUNDLE,
                options.patients,
                options.steps,
                seed=options.seed,
                threads=options.threads,
                checkpoint_every=options.checkpoint_every,
            )
    except SynthDoseError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(dice_table(scores) + "\n")
    missed = [organ for organ, limit in REQUIRED_DICE.items() if np.nanmean(scores[organ]) < limit]
    if missed:
        sys.stdout.write(f"Below the required mean Dice: {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
