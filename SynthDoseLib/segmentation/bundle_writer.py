"""Writing a trained network as a MONAI bundle that this library and MONAI's own runner can run."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import SynthDoseError, atomic_path, sha256_of
from .recipe import TrainingRecipe, normalised_air
from .training import TrainedNetwork


@dataclass(frozen=True)
class ModelCard:
    """What a user has to know about a network.

    Attributes
    ----------
    name, version : str
    description, data, limits : str
        Sentences: what it does, what it was trained on, where it fails.
    measured : str
        What `metrics` were measured on.
    metrics : mapping of str to float
        Name of the metric and value.
    licence : str
        SPDX identifier.
    """

    name: str
    version: str
    description: str
    data: str
    limits: str
    measured: str
    metrics: Mapping[str, float]
    licence: str = "Apache-2.0"


def write_bundle(folder: str | os.PathLike[str], trained: TrainedNetwork, card: ModelCard) -> Path:
    """Write a bundle: ``configs/``, ``models/model.pt`` (a state dict in half precision), ``docs/README.md``, ``LICENSE`` and
    ``SHA256SUMS``; the recipe of the training is kept as ``configs/training.json``.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist; files of an earlier bundle are replaced.
    trained : TrainedNetwork
    card : ModelCard

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SynthDoseError
        If the folder cannot be written.
    """
    import monai
    import numpy as np
    import torch

    root = Path(folder)
    try:
        for name in ("configs", "models", "docs"):
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SynthDoseError(f"Cannot write the bundle {root}: {error.strerror}. Choose a folder you may write to.") from error
    versions = {"monai_version": monai.__version__, "pytorch_version": torch.__version__, "numpy_version": np.__version__}
    content = io.BytesIO()  # in a file, torch would store the temporary name, and equal weights would give unequal files
    half = {name: value.half() if value.is_floating_point() else value for name, value in trained.weights.items()}
    torch.save(half, content)
    with atomic_path(root / "models" / "model.pt") as path:
        path.write_bytes(content.getvalue())
    hashes = {"weights_sha256": sha256_of(root / "models" / "model.pt")}
    _write_json(root / "configs" / "inference.json", _inference(trained))
    _write_json(root / "configs" / "metadata.json", {**_metadata(trained.recipe, card, versions), **hashes})
    _write_json(root / "configs" / "training.json", trained.recipe.configuration)
    with atomic_path(root / "docs" / "README.md") as path:
        path.write_text(_readme(trained, card), encoding="utf-8", newline="\n")
    with atomic_path(root / "LICENSE") as path:
        notice = f"SPDX-License-Identifier: {card.licence}\n\nConfiguration and weights of this bundle; text of the licence: "
        path.write_text(notice + "https://www.apache.org/licenses/LICENSE-2.0\n", encoding="utf-8", newline="\n")
    write_hashes(root)
    return root


def replace_measurements(folder: str | os.PathLike[str], measured: str, metrics: Mapping[str, float]) -> None:
    """Put new measurements into the model card, the metadata and the checksums of a bundle that was written here.

    Parameters
    ----------
    folder : path-like
    measured : str
        What they were measured on.
    metrics : mapping of str to float
        Name of the metric and value; NaN is left out.
    """
    root = Path(folder)
    known = {name: round(value, 3) for name, value in metrics.items() if value == value}
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    _write_json(root / "configs" / "metadata.json", {**metadata, "eval_metrics": known})
    card = (root / "docs" / "README.md").read_text(encoding="utf-8")
    before, rest = card.split("## Measured\n", 1)
    after = rest[rest.index("## Limits\n") :]
    with atomic_path(root / "docs" / "README.md") as path:
        text = f"{before}## Measured\n\n{measured}\n\n{_metric_table(known)}\n\n{after}"
        path.write_text(text, encoding="utf-8", newline="\n")
    write_hashes(root)


def _metric_table(metrics: Mapping[str, float]) -> str:
    return "\n".join(["| metric | value |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in metrics.items())])


def write_hashes(root: Path) -> None:
    """Write ``SHA256SUMS`` over all other files of a bundle but hidden ones, as ``sha256sum --check`` reads it."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "SHA256SUMS" and not p.name.startswith("."))
    lines = [f"{sha256_of(path)}  {path.relative_to(root).as_posix()}\n" for path in files]
    with atomic_path(root / "SHA256SUMS") as path:
        path.write_text("".join(lines), encoding="utf-8", newline="\n")


def value_range(recipe: TrainingRecipe) -> list[float]:
    """Values that a network is given; empty if the normalisation does not bound them."""
    last = (recipe.normalisation_configuration() or [{}])[-1]
    return [last[name] for name in ("b_min", "b_max")] if last.get("clip") and {"b_min", "b_max"} <= set(last) else []


def _inference(trained: TrainedNetwork) -> dict[str, Any]:
    recipe = trained.recipe
    network = recipe.network_component()
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "images",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "spacing_mm": [recipe.spacing_mm] * 3,
        "network_def": {"_target_": network.target, **network.arguments},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {
                    "_target_": "Orientationd",
                    "keys": "@image_key",
                    "axcodes": "RAS",
                    "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
                },
                {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@spacing_mm", "mode": "bilinear"},
                *recipe.normalisation_configuration(),
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(recipe.window),
            "sw_batch_size": 1,
            "overlap": 0.25,
            "mode": "gaussian",
            "padding_mode": "constant",
            "cval": normalised_air(recipe),
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "@image_key",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "KeepLargestConnectedComponentd",
                    "keys": "pred",
                    "applied_labels": [recipe.organs.index(organ) + 1 for organ in recipe.one_piece],
                    "_disabled_": not recipe.one_piece,
                },
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def _metadata(recipe: TrainingRecipe, card: ModelCard, versions: Mapping[str, str]) -> dict[str, Any]:
    channels = {str(place): name for place, name in enumerate(("background", *recipe.organs))}
    patch = {"type": "image", "spatial_shape": list(recipe.window), "dtype": "float32", "is_patch_data": True}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": card.version,
        "changelog": {card.version: "weights of this training"},
        **versions,
        "name": card.name,
        "task": f"Segmentation of organs on {recipe.modality}",
        "description": card.description,
        "authors": "SynthDose",
        "copyright": "Copyright (c) SynthDose contributors",
        "license": card.licence,
        "data_source": card.data,
        "intended_use": "Research and demonstration; not for clinical use",
        "eval_metrics": {name: round(value, 3) for name, value in card.metrics.items()},
        "network_data_format": {
            "inputs": {
                "image": {
                    **patch,
                    "format": "hounsfield" if recipe.modality == "CT" else "magnitude",
                    "modality": recipe.modality,
                    "num_channels": 1,
                    "value_range": value_range(recipe),
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **patch,
                    "format": "segmentation",
                    "num_channels": len(channels),
                    "value_range": [0, len(recipe.organs)],
                    "channel_def": channels,
                }
            },
        },
    }


def _readme(trained: TrainedNetwork, card: ModelCard) -> str:
    recipe, history = trained.recipe, trained.history
    network = recipe.network_component()
    window = " x ".join(map(str, recipe.window))
    pieces = f"Only the largest part is kept of: {', '.join(recipe.one_piece)}." if recipe.one_piece else ""
    parameters = sum(int(value.numel()) for value in trained.weights.values())
    arguments = ", ".join(f"{name} {value}" for name, value in network.arguments.items())
    last = f"; mean loss of the last 20 steps {sum(history.loss[-20:]) / len(history.loss[-20:]):.3f}" if history.loss else ""
    return f"""# {card.name} {card.version}

{card.description} Not for clinical use.

## Data

{card.data}

## Network and training

MONAI {network.target} ({arguments}), {parameters} parameters, kept in half precision; {recipe.spacing_mm:g} mm isotropic,
windows of {window} voxels. {len(history.loss)} steps of one window in {history.seconds / 60:.0f} min, the weights after step
{history.best_step} were kept{last}. Dice loss plus cross entropy (class balance {recipe.class_balance:g}), AdamW up to
{recipe.learning_rate:g} with warm-up and cosine, running mean of the weights (decay {recipe.average:g}), seed {recipe.seed}.
The whole recipe, random changes included, is `configs/training.json`. {pieces}

## Measured

{card.measured}

{_metric_table(card.metrics)}

## Limits

{card.limits}

## Licence

{card.licence}.
"""


def _write_json(target: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(target) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
