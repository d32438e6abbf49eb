"""Training a segmentation network as a recipe says, so that stopping and going on gives the same weights."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, LabelMap, MissingPackageError, Progress, ProgressReport, SynthDoseError, atomic_path, silent
from .overlap import overlap_and_entropy
from .recipe import REST, TrainingRecipe, channels_of, normalised_air
from .tables import canonical_organs
from .tissue import segment_tissue

if TYPE_CHECKING:
    import torch

WARM_UP_SHARE = 0.02
LOWEST_RATE = 0.004
MOST_NORM = 1.0  # of the gradient


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A patient to learn from: an image with labels, or a map of tissues that `RandomScand` turns into ever new images.

    Attributes
    ----------
    name : str
    labels : LabelMap
        Organs, canonical names.
    image : ImageVolume or None
    tissues : ndarray of uint8, (nk, nj, ni), or None
        Place in `tissue_names` on the grid of `labels`; 0 is the air around the patient.
    tissue_names : tuple of str
    weight : float
        How often it is drawn, relative to the others.
    """

    name: str
    labels: LabelMap
    image: ImageVolume | None = None
    tissues: NDArray[np.uint8] | None = None
    tissue_names: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass
class History:
    """How a training went.

    Attributes
    ----------
    loss : list of float
        Per step: Dice loss plus cross entropy.
    validation : list of (int, dict of str to float)
        Step, and Dice per organ on windows of the held-out patients.
    best_step : int
        Step whose weights were kept.
    seconds : float
        Wall time.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0

    def mean_dice(self, place: int) -> float:
        """Mean over the organs of a look at the held-out patients."""
        return float(np.nanmean(list(self.validation[place][1].values())))


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network's weights and how they came about.

    Attributes
    ----------
    weights : mapping of str to Tensor
        On the CPU.
    recipe : TrainingRecipe
    history : History
    """

    weights: dict[str, torch.Tensor]
    recipe: TrainingRecipe
    history: History


def prepare_case(case: TrainingCase, recipe: TrainingRecipe) -> dict[str, Any]:
    """Bring a case to what the random part of the recipe starts from.

    Parameters
    ----------
    case : TrainingCase
    recipe : TrainingRecipe

    Returns
    -------
    dict
        "label" (classes, uint8), "image" or "tissue" and "tissue_names"; arrays (1, ni, nj, nk) of MONAI with their affine.

    Raises
    ------
    SynthDoseError
        If the labels have none of the recipe's organs, image and labels do not share a grid, or the image is of another
        modality.
    """
    import torch
    from monai.data import MetaTensor

    labels = case.labels
    channel = channels_of((organ.name for organ in labels.organs), recipe.organs)
    rest = recipe.organs.index(REST) + 1 if REST in recipe.organs else 0
    table = np.zeros(max((organ.index for organ in labels.organs), default=0) + 1, np.uint8)
    for organ in labels.organs:
        # an organ that is not to be learned is rest of the body; a label that is no organ may be anything
        table[organ.index] = channel.get(organ.name, rest if organ.name in canonical_organs() else 0)
    classes = table[labels.labels]
    if not np.isin(classes, list(channel.values())).any():
        raise SynthDoseError(
            f"The labels of {case.name} ({', '.join(o.name for o in labels.organs) or 'none'}) hold no voxel of the organs to "
            f"train: {', '.join(recipe.organs)}. Give a label table (--labels), or take the case out of the cohort."
        )
    if REST in recipe.organs and REST not in channel:
        classes[(classes == 0) & _body(case)] = rest
    data: dict[str, Any] = {"label": classes}
    if case.image is not None:
        if case.image.modality not in ("", recipe.modality):
            raise SynthDoseError(
                f"{case.name} is a {case.image.modality} image; the training configuration is for {recipe.modality}."
            )
        if not case.image.grid.matches(labels.grid):
            raise SynthDoseError(f"Image and labels of {case.name} are not on the same grid; resample the labels first.")
        data["image"] = case.image.values.astype(np.float32)
    elif case.tissues is not None:
        data["tissue"] = case.tissues
    else:
        raise SynthDoseError(f"The case {case.name} has neither an image nor a map of tissues.")
    affine = torch.from_numpy(labels.grid.ijk_to_ras.copy())
    for key, values in data.items():
        array = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0)))[None]
        data[key] = MetaTensor(array, affine=affine, meta={"space": "RAS"})
    for transform in recipe.chain("preparation"):
        data = _run(transform, data, case.name)
    for key in ("label", "tissue"):
        if key in data:
            data[key] = data[key].to(torch.uint8)
    if "tissue" in data:
        data["tissue_names"] = case.tissue_names
    return data


def _body(case: TrainingCase) -> NDArray[np.bool_]:
    """Where the patient is, if the labels do not say."""
    if case.tissues is not None:
        return np.asarray(case.tissues > 0)
    assert case.image is not None
    if case.image.modality == "MR":
        raise SynthDoseError(
            f"The labels of {case.name} have no {REST}, and an MR image does not tell body from air reliably. Add the label, "
            f"or take {REST} out of the organs."
        )
    return np.asarray(segment_tissue(case.image).labels > 0)


def _run(transform: Any, data: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        return dict(transform(data))
    except SynthDoseError:
        raise
    except Exception as error:  # MONAI raises many kinds for data it cannot transform
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SynthDoseError(f"{type(transform).__name__} of the training configuration fails on {name}: {first}") from error


class WindowSource:
    """Random windows of cases; the window of a step depends on the seed and the step alone.

    Parameters
    ----------
    cases : sequence of TrainingCase
    recipe : TrainingRecipe
    progress : Progress
    """

    def __init__(self, cases: Sequence[TrainingCase], recipe: TrainingRecipe, progress: Progress = silent) -> None:
        self._recipe = recipe
        self._chain = [*recipe.chain("randomisation"), *recipe.chain("normalisation")]
        self._air = normalised_air(recipe)
        self._names = [case.name for case in cases]
        self._data = []
        for number, case in enumerate(cases, start=1):
            self._data.append(prepare_case(case, recipe))
            progress(ProgressReport("train", 0.0, None, f"patient {number} of {len(cases)} prepared"))
        weights = np.array([case.weight for case in cases], np.float64)
        if not len(cases) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
            raise SynthDoseError("The training needs at least one patient whose weight is positive.")
        self._shares = weights / weights.sum()

    def window(self, stream: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the window `step` of a stream: image (1, 1, ...) float32 and classes (...) uint8."""
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Randomizable

        random = np.random.default_rng([self._recipe.seed, stream, step])
        place = int(random.choice(len(self._data), p=self._shares))
        data = dict(self._data[place])
        for transform in self._chain:
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=int(random.integers(2**31)))
            data = _run(transform, data, self._names[place])
        if "image" not in data:
            raise SynthDoseError(
                f"The patient {self._names[place]} has no image, and the training configuration has no RandomScand to make one."
            )
        image, classes = (data[k].as_tensor() if isinstance(data[k], MetaTensor) else data[k] for k in ("image", "label"))
        if tuple(image.shape[1:]) != self._recipe.window or tuple(classes.shape[1:]) != self._recipe.window:
            raise SynthDoseError(
                f"The randomisation of the training configuration gives windows of {tuple(image.shape[1:])} voxels; the "
                f'configuration says {self._recipe.window}. RandomWindowd or RandSpatialCropd with "@window" cuts them.'
            )
        if "seen" in data:
            image = torch.where(data["seen"], image, self._air)
        return image[None].float(), classes[0].to(torch.uint8)

    def class_counts(self) -> NDArray[np.int64]:
        """Voxels per class of all cases."""
        number = len(self._recipe.organs) + 1
        return np.sum([np.bincount(data["label"].numpy().ravel(), minlength=number) for data in self._data], axis=0)


def train_network(
    cases: Sequence[TrainingCase],
    held_out: Sequence[TrainingCase],
    recipe: TrainingRecipe,
    *,
    initial: Mapping[str, torch.Tensor] | None = None,
    state: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int = 1,
    progress: Progress = silent,
) -> TrainedNetwork:
    """Train a network.

    Parameters
    ----------
    cases, held_out : sequence of TrainingCase
        To learn from, and to decide when to stop; without held-out patients the last weights are kept.
    recipe : TrainingRecipe
    initial : mapping, optional
        Weights to start from (see `transferred_weights`).
    state : Path, optional
        File that holds the state after every look at the held-out patients.
    resume : bool
        Go on from that file if it exists.
    device : str
        "auto", "cpu" or "cuda"; bfloat16 where the device has it.
    threads : int
        CPU threads.
    progress : Progress

    Returns
    -------
    TrainedNetwork
        The best running mean of the weights. The same cases, recipe and number of threads give the same weights on a CPU,
        resumed or not.

    Raises
    ------
    SynthDoseError
        For bad cases or weights, or a state of another training.
    MissingPackageError
        If PyTorch or MONAI is missing.
    """
    try:
        import monai  # noqa: F401
        import torch
    except ImportError as error:
        missing = (error.name or "monai").split(".")[0]
        raise MissingPackageError(missing, "Training a network", 'pip install "synthdose[segmentation]"') from None
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = WindowSource(cases, recipe, progress)
        looks = _look_windows(held_out, recipe, progress)
        run = _Run(recipe, source.class_counts(), place, initial, fingerprint(cases, held_out, recipe))
        if state is not None and resume and state.is_file():
            run.load(state)
        start, already = time.monotonic(), run.history.seconds
        while run.step < recipe.steps and not run.stalled(recipe.patience):
            run.learn(*source.window(0, run.step))
            run.history.seconds = already + time.monotonic() - start
            if run.step % recipe.validate_every == 0 or run.step == recipe.steps:
                run.look(looks)
                if state is not None:
                    run.save(state)
            left = (time.monotonic() - start) * (recipe.steps - run.step) / max(1, len(run.history.loss) - run.first)
            recent = float(np.mean(run.history.loss[-20:]))
            progress(ProgressReport("train", run.step / recipe.steps, left, f"step {run.step}: loss {recent:.3f}"))
        return TrainedNetwork(run.best, recipe, run.history)
    finally:
        torch.set_num_threads(before)


def fingerprint(cases: Sequence[TrainingCase], held_out: Sequence[TrainingCase], recipe: TrainingRecipe) -> str:
    """SHA-256 over recipe and names, sizes and weights of the cases: what a resumed training has to share."""
    facts = [[case.name, list(case.labels.grid.shape), case.weight] for case in (*cases, *held_out)]
    text = json.dumps([dict(recipe.configuration), facts, len(held_out)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _look_windows(
    held_out: Sequence[TrainingCase], recipe: TrainingRecipe, progress: Progress
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    if not held_out:
        return []
    source = WindowSource(held_out, recipe, progress)
    return [source.window(1, number) for number in range(recipe.held_out_windows)]


class _Run:
    """A training in progress."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        counts: NDArray[np.int64],
        place: torch.device,
        initial: Mapping[str, torch.Tensor] | None,
        identity: str,
    ) -> None:
        import torch

        torch.manual_seed(recipe.seed)
        self.recipe, self.place, self.identity = recipe, place, identity
        network = recipe.network()
        if initial is not None:
            network.load_state_dict(initial)
        self.network = network.to(place).to(memory_format=torch.channels_last_3d)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
        inverse = np.maximum(counts, 1).astype(np.float64) ** -recipe.class_balance
        self.class_weights = torch.from_numpy((inverse / inverse.mean()).astype(np.float32)).to(place)
        self.mean = _copy(self.network)
        self.best = self.mean
        self.best_dice = -1.0
        self.step = self.first = 0
        self.history = History()

    def learn(self, image: torch.Tensor, classes: torch.Tensor) -> None:
        import torch

        rate = learning_rate_at(self.step, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        logits = self._logits(image)
        loss = overlap_and_entropy(logits, classes.to(self.place), self.class_weights)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MOST_NORM)
        self.optimiser.step()
        self.step += 1
        self.history.loss.append(float(loss.detach()))
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.mean[name].lerp_(value.detach().cpu(), 1 - keep) if value.is_floating_point() else self.mean[name].copy_(value)

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        import torch

        half = self.place.type == "cpu" or torch.cuda.is_bf16_supported()
        with torch.autocast(self.place.type, torch.bfloat16) if half else nullcontext():
            result = self.network(image.to(self.place).to(memory_format=torch.channels_last_3d))
        return result[0] if isinstance(result, (list, tuple)) else result

    def look(self, windows: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Measure the mean weights on held-out windows; keep them if they are the best."""
        import torch

        if not windows:
            self.best, self.history.best_step = {k: v.clone() for k, v in self.mean.items()}, self.step
            return
        own = _copy(self.network)
        self.network.load_state_dict(self.mean)
        number = len(self.recipe.organs) + 1
        both, sizes = np.zeros(number), np.zeros(number)
        with torch.inference_mode():
            for image, classes in windows:
                found = self._logits(image)[0].argmax(dim=0).cpu().numpy().ravel()
                truth = classes.numpy().ravel()
                both += np.bincount(truth[found == truth], minlength=number)
                sizes += np.bincount(truth, minlength=number) + np.bincount(found, minlength=number)
        self.network.load_state_dict(own)
        dice = np.divide(2 * both, sizes, out=np.full(number, np.nan), where=sizes > 0)
        self.history.validation.append((self.step, dict(zip(self.recipe.organs, map(float, dice[1:]), strict=True))))
        mean = self.history.mean_dice(-1)
        if mean > self.best_dice:
            self.best, self.best_dice = {k: v.clone() for k, v in self.mean.items()}, mean
            self.history.best_step = self.step

    def stalled(self, patience: int) -> bool:
        """Whether the last looks brought no progress."""
        return sum(step > self.history.best_step for step, _ in self.history.validation) >= patience

    def save(self, path: Path) -> None:
        import torch

        content = {
            "identity": self.identity,
            "step": self.step,
            "best_dice": self.best_dice,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            "best": self.best,
            "loss": self.history.loss,
            "validation": self.history.validation,
            "best_step": self.history.best_step,
            "seconds": self.history.seconds,
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        import torch

        try:
            content = torch.load(path, map_location=self.place, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise SynthDoseError(f"Cannot go on from {path}: it is damaged. Delete it to start anew.") from error
        if content["identity"] != self.identity:
            raise SynthDoseError(
                f"The state {path} belongs to another training (other patients, weights or configuration). Use another folder, "
                "or start anew without --resume."
            )
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.mean = {name: value.cpu() for name, value in content["mean"].items()}
        self.best = {name: value.cpu() for name, value in content["best"].items()}
        self.best_dice, self.step, self.first = content["best_dice"], content["step"], content["step"]
        self.history = History(
            list(content["loss"]),
            [(int(step), dict(dice)) for step, dice in content["validation"]],
            content["best_step"],
            content["seconds"],
        )


def learning_rate_at(step: int, recipe: TrainingRecipe) -> float:
    """Rate of a step: risen over the first steps, kept, then lowered along a cosine."""
    warm = max(1, round(WARM_UP_SHARE * recipe.steps))
    flat = recipe.flat_share * recipe.steps
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    if step <= flat:
        return recipe.learning_rate
    share = (step - flat) / max(1.0, recipe.steps - flat)
    return recipe.learning_rate * max(LOWEST_RATE, 0.5 * (1 + float(np.cos(np.pi * share))))


def _copy(network: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
