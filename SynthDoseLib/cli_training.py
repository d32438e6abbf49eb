"""The verb ``synthdose train-segmentation``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .core import Progress, SynthDoseError


def add_train_segmentation(
    make_verb: Callable[..., argparse.ArgumentParser], verbs: argparse._SubParsersAction[argparse.ArgumentParser]
) -> None:
    """Add the verb to the command line's."""
    train = make_verb(
        verbs,
        "train-segmentation",
        "A segmentation network from patients with labels, synthetic people, or both; written as a MONAI bundle.",
        "synthdose train-segmentation cohort/ synthetic:64 --weights 3 1 --out bundles/mine",
        _train_segmentation,
    )
    train.add_argument(
        "cohort",
        nargs="*",
        help="folder with a folder per patient (image, labels), a CSV or JSON table, or synthetic:NUMBER[:SEED]",
    )
    train.add_argument("--out", type=Path, help="folder of the bundle to write")
    train.add_argument("--config", default="", help="training configuration: a JSON file, torso_ct (default) or torso_mr")
    train.add_argument("--template", metavar="NAME", help="print a shipped configuration to edit (torso_ct, torso_mr) and stop")
    train.add_argument("--from", dest="start", default="", metavar="BUNDLE", help="go on from the weights of this bundle")
    train.add_argument("--other-modality", action="store_true", help="--from may be a bundle for another modality")
    train.add_argument(
        "--labels", default="", help="label table of the patients: totalsegmentator, monai-wholebody, or a CSV file"
    )
    train.add_argument("--weights", type=float, nargs="+", default=(), help="how often each cohort is drawn (default 1 each)")
    train.add_argument("--organs", nargs="+", help="organs or groups to learn, in place of the configuration's")
    train.add_argument("--steps", type=int, help="optimiser steps, in place of the configuration's")
    train.add_argument("--learning-rate", type=float, help="in place of the configuration's, lower for fine-tuning")
    train.add_argument("--seed", type=int, help="in place of the configuration's")
    train.add_argument("--bundle-version", default="", help="version of the bundle (default: that of SynthDose)")
    train.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted training, to the same weights")
    train.add_argument("--overwrite", action="store_true", help="replace an earlier training in this folder")


def _train_segmentation(arguments: argparse.Namespace, progress: Progress) -> int:
    if arguments.template:
        from .pipeline.train import configuration_text

        _write(configuration_text(arguments.template))
        return 0
    if not arguments.cohort or arguments.out is None:
        raise SynthDoseError(
            "'synthdose train-segmentation' needs a cohort and --out DIR; --template torso_ct prints a configuration to edit."
        )
    from .pipeline.train import TrainingJob, train_segmentation

    names = ("organs", "steps", "learning_rate", "seed")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    job = TrainingJob(
        tuple(arguments.cohort),
        arguments.out,
        config=arguments.config,
        start=arguments.start,
        other_modality=arguments.other_modality,
        weights=tuple(arguments.weights),
        table=arguments.labels,
        changes=changes,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        threads=arguments.threads,
        device=arguments.device,
        version=arguments.bundle_version,
    )
    _write(train_segmentation(job, progress))
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
