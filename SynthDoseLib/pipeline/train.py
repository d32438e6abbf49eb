"""Training a segmentation bundle: patients in, a complete bundle out."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import __version__
from ..core import Progress, SynthDoseError, atomic_path, bare_name, sha256_of, silent
from ..io.sole_use import NOTE, sole_use
from ..segmentation import read_bundle
from ..segmentation.bundle_writer import ModelCard, write_bundle, write_hashes
from ..segmentation.recipe import TrainingRecipe, read_recipe, training_template
from ..segmentation.training import History, TrainedNetwork, TrainingCase, train_network
from .cohort import cohort_words, read_cohort, split_cohort
from .run_folder import require_folder

if TYPE_CHECKING:
    import torch

STATE = "training_state.pt"
CURVES = "docs/learning_curves"

SYNTHETIC_LIMITS = (
    "Trained on computer-made, stylised people only; it has never seen a patient. Whatever lies outside their shapes - "
    "resections, large tumours, ascites, effusions, stomas, implants, transplants, horseshoe kidneys - may be missed or cut "
    "wrongly, and thin structures are blurred by its voxels. Rely on the organs that were measured well, on images like those "
    "of the measurement, and look at every result. For work on patients fine-tune it on yours (--from), or take a bundle that "
    "was trained on patients, such as the Model Zoo's wholeBody_ct_segmentation."
)
LIMITS = (
    "Trained on the patients above and measured on few others: try it on your own images before you rely on it. Another "
    "scanner, protocol, posture, age or disease than those of the training may defeat it."
)


@dataclass(frozen=True)
class TrainingJob:
    """What the command line asks for.

    Attributes
    ----------
    cohorts : tuple of str
        See `read_cohort`.
    out : Path
        Folder of the bundle.
    config : str
        Training configuration: a file or the name of a shipped one; "" for that of `start`, or "torso_ct".
    start : str
        Bundle to start from; "" for fresh weights.
    other_modality : bool
        Whether `start` may be for another modality.
    weights : tuple of float
        How often patients of each cohort are drawn; 1 if empty.
    table : str
        Label table of real labels.
    changes : dict
        Values that replace the configuration's.
    resume, overwrite : bool
    threads : int
    device : str
    version : str
        Of the bundle; that of SynthDose if empty.
    """

    cohorts: tuple[str, ...]
    out: Path
    config: str = ""
    start: str = ""
    other_modality: bool = False
    weights: tuple[float, ...] = ()
    table: str = ""
    changes: dict[str, Any] | None = None
    resume: bool = False
    overwrite: bool = False
    threads: int = 1
    device: str = "auto"
    version: str = ""

    def command(self) -> str:
        """The command line that says the same, for the model card: files by name, without what does not change the weights."""
        words = ["synthdose", "train-segmentation", *map(bare_name, self.cohorts)]
        options = {"--config": self.config, "--from": self.start, "--labels": self.table, "--bundle-version": self.version}
        for option, value in options.items():
            words += [option, bare_name(value)] if value else []
        words += ["--other-modality"] if self.other_modality else []
        words += ["--weights", *(f"{weight:g}" for weight in self.weights)] if self.weights else []
        for name, value in (self.changes or {}).items():
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
        return shlex.join([*words, "--out", self.out.name])


def train_segmentation(job: TrainingJob, progress: Progress = silent) -> str:
    """Train a network on cohorts and write it as a bundle.

    Parameters
    ----------
    job : TrainingJob
    progress : Progress

    Returns
    -------
    str
        Dice per organ on the held-out patients, for people.

    Raises
    ------
    SynthDoseError
        For a bad configuration, cohort, starting bundle, or folder, or one that another process works in.
    """
    recipe = _recipe(job)
    require_folder(job.out)
    with sole_use(job.out, progress) as use:
        _claim(job)
        return _train(job, recipe, use.watched(progress))


def _train(job: TrainingJob, recipe: TrainingRecipe, progress: Progress) -> str:
    cases = _cases(job, recipe, progress)
    learn, held_out = split_cohort(cases, recipe.held_out_share, recipe.seed)
    initial = _initial(job, recipe)
    trained = train_network(
        learn,
        held_out,
        recipe,
        initial=initial,
        state=job.out / STATE,
        resume=job.resume,
        device=job.device,
        threads=job.threads,
        progress=progress,
    )
    write_training(job.out, trained, _card(job, trained, cases, len(held_out)))
    return f"{summary(trained.history)}\nBundle: {job.out}"


def configuration_text(name: str) -> str:
    """A training configuration that ships, to edit."""
    return training_template(name).read_text(encoding="utf-8").rstrip()


def write_training(out: Path, trained: TrainedNetwork, card: ModelCard) -> None:
    """Write the bundle with its learning curves; the state of the training is needed no more."""
    write_bundle(out, trained, card)
    write_curves(out / CURVES, trained.history)
    (out / STATE).unlink(missing_ok=True)
    write_hashes(out)


def summary(history: History) -> str:
    """Dice per organ at the step that was kept, for people."""
    kept = [dice for step, dice in history.validation if step == history.best_step]
    if not kept:
        return f"{len(history.loss)} steps; nobody was held out, so the last weights were kept."
    rows = [f"  {organ:<24}{value:6.3f}" for organ, value in kept[0].items()]
    return "\n".join([f"Dice on windows of the held-out patients, step {history.best_step} of {len(history.loss)}:", *rows])


def _recipe(job: TrainingJob) -> TrainingRecipe:
    source: str | Path = job.config
    if not source and job.start:
        own = read_bundle(job.start).folder / "configs" / "training.json"
        if not own.is_file():
            raise SynthDoseError(
                f"The bundle {job.start} does not keep its training configuration. Give one with the same network (--config)."
            )
        source = own
    changes = dict(job.changes or {})
    if "organs" in changes and "one_piece" not in changes:
        pieces = read_recipe(source or "torso_ct").one_piece
        changes["one_piece"] = [organ for organ in pieces if organ in changes["organs"]]
    changes.setdefault("name", job.out.resolve().name)
    return read_recipe(source or "torso_ct", changes)


def _claim(job: TrainingJob) -> None:
    """Refuse a folder that holds something else, or a finished bundle that nobody wants replaced."""
    entries = {path.name for path in job.out.iterdir() if not path.name.startswith(NOTE)}
    bundle = (job.out / "configs" / "training.json").is_file()
    if entries - {STATE} and not bundle:
        raise SynthDoseError(f"{job.out} holds other files. Choose an empty or new folder, so that nothing of yours is lost.")
    if entries and not (job.resume or job.overwrite):
        raise SynthDoseError(f"{job.out} holds an earlier training. Choose another folder, --resume to go on, or --overwrite.")
    if job.resume and bundle and STATE not in entries:
        raise SynthDoseError(f"The training in {job.out} is finished. Use --overwrite to train anew.")
    if job.overwrite and not job.resume:
        for name in entries & {STATE, "configs", "models", "docs", "LICENSE", "SHA256SUMS"}:
            path = job.out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cases(job: TrainingJob, recipe: TrainingRecipe, progress: Progress) -> list[TrainingCase]:
    weights = job.weights or (1.0,) * len(job.cohorts)
    if not job.cohorts or len(weights) != len(job.cohorts) or min(weights) <= 0:
        raise SynthDoseError(
            f"{len(job.cohorts)} cohorts and {len(job.weights)} weights were given; a training needs a cohort, and one "
            "positive weight for each or none at all."
        )
    cases: list[TrainingCase] = []
    for source, weight in zip(job.cohorts, weights, strict=True):
        cases += read_cohort(source, modality=recipe.modality, table=job.table, weight=weight, progress=progress)
    return cases


def _initial(job: TrainingJob, recipe: TrainingRecipe) -> dict[str, torch.Tensor] | None:
    if not job.start:
        return None
    from ..segmentation.transfer import transferred_weights  # PyTorch loads only when it is used

    return transferred_weights(recipe, read_bundle(job.start), other_modality=job.other_modality)


def _card(job: TrainingJob, trained: TrainedNetwork, cases: Sequence[TrainingCase], held_out: int) -> ModelCard:
    recipe, history = trained.recipe, trained.history
    kept = next((dice for step, dice in history.validation if step == history.best_step), {})
    description = recipe.configuration.get("description") or f"Organs on {recipe.modality}: {', '.join(recipe.organs)}."
    data = cohort_words(job.cohorts, cases, held_out)
    if job.start:
        start = read_bundle(job.start)
        data += f" Started from the weights of the bundle {start.name} {start.version}".rstrip()
        data += f" (SHA-256 {sha256_of(start.weights)[:12]})."
    data += f" Command: `{job.command()}`."
    measured = (
        f"Dice on {recipe.held_out_windows} random windows of {held_out} held-out patients, changed at random as in training."
        if kept
        else "Nothing: nobody was held out."
    )
    limits = LIMITS if any(case.image is not None for case in cases) else SYNTHETIC_LIMITS
    return ModelCard(
        recipe.name,
        job.version or __version__,
        str(description),
        data,
        limits,
        measured,
        {f"Dice {name}": v for name, v in kept.items()},
    )


def write_curves(base: Path, history: History) -> None:
    """Write the learning curves beside `base`: ``.csv`` with a line per step, and ``.png``."""
    organs = list(history.validation[0][1]) if history.validation else []
    looks = dict(history.validation)
    with atomic_path(base.with_suffix(".csv")) as path, path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["step", "loss", *(f"dice_{organ}" for organ in organs)])
        for step, loss in enumerate(history.loss, start=1):
            dice = looks.get(step, {})
            writer.writerow([step, f"{loss:.4f}", *(f"{dice[organ]:.4f}" if dice else "" for organ in organs)])
    figure = Figure(figsize=(9.5, 3.8), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(history.loss) + 1)
    width = max(1, len(steps) // 60)
    left.plot(steps, history.loss, color="#c9d3df", lw=0.6, label="step")
    if len(steps) > width:
        smooth = np.convolve(history.loss, np.ones(width) / width, mode="valid")
        left.plot(steps[width - 1 :], smooth, color="#1f4e79", lw=1.5, label=f"mean of {width} steps")
    left.set(xlabel="step", ylabel="loss (Dice + cross entropy)")
    left.legend(frameon=False)
    for organ in organs:
        right.plot([step for step, _ in history.validation], [dice[organ] for _, dice in history.validation], lw=1, label=organ)
    right.set(xlabel="step", ylabel="Dice, held-out windows", ylim=(0, 1))
    if organs:
        right.axvline(history.best_step, color="#888888", lw=0.8, ls=":")
        right.legend(frameon=False, fontsize=6, ncols=2, loc="lower right")
    with atomic_path(base.with_suffix(".png")) as path:
        figure.savefig(path, dpi=110, metadata={"Software": None})
