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
from .training import TrainedNetwork, TrainingSettings, network_definition


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
    """Write a bundle: ``configs/``, ``models/model.pt`` (a plain state dict), ``docs/README.md`` and ``LICENSE``.

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
    settings = trained.settings
    try:
        for name in ("configs", "models", "docs"):
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SynthDoseError(f"Cannot write the bundle {root}: {error.strerror}. Choose a folder you may write to.") from error
    versions = {"monai_version": monai.__version__, "pytorch_version": torch.__version__, "numpy_version": np.__version__}
    content = io.BytesIO()  # in a file, torch would store the temporary name, and equal weights would give unequal files
    torch.save(trained.weights, content)
    with atomic_path(root / "models" / "model.pt") as path:
        path.write_bytes(content.getvalue())
    hashes = {"weights_sha256": sha256_of(root / "models" / "model.pt")}
    _write_json(root / "configs" / "inference.json", _inference(trained))
    _write_json(root / "configs" / "metadata.json", {**_metadata(settings, card, versions), **hashes})
    with atomic_path(root / "docs" / "README.md") as path:
        path.write_text(_readme(trained, card), encoding="utf-8", newline="\n")
    with atomic_path(root / "LICENSE") as path:
        notice = f"SPDX-License-Identifier: {card.licence}\n\nConfiguration and weights of this bundle; text of the licence: "
        path.write_text(notice + "https://www.apache.org/licenses/LICENSE-2.0\n", encoding="utf-8", newline="\n")
    return root


def _inference(trained: TrainedNetwork) -> dict[str, Any]:
    settings = trained.settings
    low, high = settings.window_HU
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "images",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "spacing_mm": [settings.spacing_mm] * 3,
        "network_def": network_definition(settings),
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
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "@image_key",
                    "a_min": low,
                    "a_max": high,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(settings.window),
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
            "padding_mode": "constant",
            "cval": 0.0,
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
                    "applied_labels": [settings.organs.index(organ) + 1 for organ in settings.one_piece],
                    "_disabled_": not settings.one_piece,
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


def _metadata(settings: TrainingSettings, card: ModelCard, versions: Mapping[str, str]) -> dict[str, Any]:
    channels = {str(place): name for place, name in enumerate(("background", *settings.organs))}
    patch = {"type": "image", "spatial_shape": list(settings.window), "dtype": "float32", "is_patch_data": True}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": card.version,
        "changelog": {card.version: "weights of this training"},
        **versions,
        "name": card.name,
        "task": "Organs of the torso on CT",
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
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": 1,
                    "value_range": [0, 1],
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **patch,
                    "format": "segmentation",
                    "num_channels": len(channels),
                    "value_range": [0, len(settings.organs)],
                    "channel_def": channels,
                }
            },
        },
    }


def _readme(trained: TrainedNetwork, card: ModelCard) -> str:
    settings = trained.settings
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in card.metrics.items())
    window = " x ".join(map(str, settings.window))
    pieces = f"Only the largest part is kept of: {', '.join(settings.one_piece)}." if settings.one_piece else ""
    parameters = sum(int(value.numel()) for value in trained.weights.values())
    return f"""# {card.name} {card.version}

{card.description} Not for clinical use.

## Data

{card.data}

## Network and training

MONAI UNet of {", ".join(map(str, settings.channels))} channels, {parameters} parameters; {settings.spacing_mm:g} mm isotropic,
{settings.window_HU[0]:g} to {settings.window_HU[1]:g} HU scaled to 0 to 1, windows of {window} voxels. {settings.steps} steps
of one window, Dice loss plus cross entropy (class balance {settings.class_balance:.2f} at the end), AdamW with a one-cycle
schedule up to {settings.learning_rate:g}, running mean of the weights (decay {settings.average:g}), {trained.seconds / 60:.0f}
min on {settings.threads} CPU thread(s), seed {settings.seed}; last loss {float(trained.loss[-20:].mean()):.3f}. Random
rotation, scale, shift, bending, cuts, noise, blur and CT number offsets (`SynthDoseLib/segmentation/augmentation.py`).
{pieces}

## Measured

{card.measured}

| metric | value |
|---|---|
{rows}

## Limits

{card.limits}

## Licence

{card.licence}.
"""


def _write_json(target: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(target) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
