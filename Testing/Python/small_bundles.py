"""Small MONAI bundles for the tests: the structure of the Model Zoo's, and a network whose right answer is known."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np

from SynthDoseLib.core import ImageVolume, VoxelGrid
from SynthDoseLib.segmentation import label_table

NAMES = ["background", *(label_table("monai-wholebody")[index].name for index in range(1, 105))]

# the structure of the Model Zoo's wholeBody_ct_segmentation 0.2, with a network of 2 filters instead of 32
INFERENCE = {
    "displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
    "imports": ["$import glob", "$import numpy", "$import os"],
    "bundle_root": ".",
    "image_key": "image",
    "output_dir": "$@bundle_root + '/eval'",
    "output_dtype": "$numpy.float32",
    "dataset_dir": "sampledata",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "pixdim": "$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
    "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
    "network_def": {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 105,
        "init_filters": 8,
        "blocks_down": [1, 1, 1, 1],
        "blocks_up": [1, 1, 1],
        "dropout_prob": 0.2,
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": [96, 96, 96],
        "sw_batch_size": "@displayable_configs#sw_batch_size",
        "overlap": "@displayable_configs#sw_overlap",
        "padding_mode": "replicate",
        "mode": "gaussian",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "@image_key",
                "nearest_interp": True,
                "to_tensor": True,
            },
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_dtype": "@output_dtype"},
        ],
    },
    "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
    "checkpointloader": {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/' + @modelname",
        "load_dict": {"model": "@network"},
    },
    "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$@checkpointloader(@evaluator)"],
    "run": ["$@evaluator.run()"],
}


def metadata(names, modality="CT") -> dict:
    """What a bundle says about itself."""
    return {
        "version": "0.2.5",
        "name": "Whole body CT segmentation",
        "network_data_format": {
            "inputs": {"image": {"format": "hounsfield", "modality": modality, "num_channels": 1}},
            "outputs": {"pred": {"num_channels": len(names), "channel_def": {str(i): n for i, n in enumerate(names)}}},
        },
    }


def write(folder: Path, inference: dict, meta: dict, weights: object) -> Path:
    """Write a bundle's folder."""
    import torch

    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(inference), encoding="utf-8")
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta), encoding="utf-8")
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def write_whole_body(folder: Path) -> Path:
    """A bundle folder as the Model Zoo's, with weights of chance."""
    import torch
    from monai.networks.nets import SegResNet

    torch.manual_seed(0)
    network = SegResNet(**{k: v for k, v in INFERENCE["network_def"].items() if k != "_target_"})
    return write(folder, INFERENCE, metadata(NAMES), {"model": network.state_dict()})


# a linear classifier of the CT number: one 1 x 1 x 1 convolution, so that the right answer is known
THRESHOLDS = {
    "network_def": {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [3, 3],
        "strides": [1],
        "kernel_size": 1,
        "up_kernel_size": 1,
        "num_res_units": 0,
        "norm": None,
        "act": ["leakyrelu", {"negative_slope": 1.0}],
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Orientationd", "keys": ["image"], "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": ["image"], "pixdim": [2, 2, 2], "mode": ["bilinear"]},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 1000, "b_min": -1, "b_max": 1},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "nearest_interp": False},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}


def write_thresholds(folder: Path) -> Path:
    """A bundle whose channels are: nothing, "liver" above 0 HU, "bone" above 500 HU - built from weights, not trained."""
    return write_linear(folder, ["background", "Liver", "bone"], slopes=(0.0, 8.0, 24.0), offsets=(0.0, 0.0, -8.0))


def write_linear(folder: Path, names, slopes, offsets, steps=None) -> Path:
    """A bundle whose logits are slope times x plus offset, x the CT number over 1000 HU; `steps` replace its postprocessing."""
    import torch
    from monai.networks.nets import UNet

    inference = copy.deepcopy(THRESHOLDS)
    inference["network_def"]["out_channels"] = len(slopes)
    if steps is not None:
        inference["postprocessing"]["transforms"] = steps
    network = UNet(**{k: v for k, v in inference["network_def"].items() if k != "_target_"})
    # with unit slopes of the activations the network is linear: the first layer hands the image on, the last one weighs it
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    weights = [name for name in state if name.endswith("weight")]
    state[weights[0]][0] = 1.0  # first convolution passes the image on in channel 0
    last = weights[-1]
    transposed = state[last].shape[1] == len(slopes)  # (in, out, 1, 1, 1) of a transposed convolution
    skip = 0  # the skip connection comes first in the concatenation
    for channel, (slope, offset) in enumerate(zip(slopes, offsets, strict=True)):
        state[last][(skip, channel) if transposed else (channel, skip)] = slope
        state[last.replace("weight", "bias")][channel] = offset
    return write(folder, inference, metadata(names), state)


def ball(shape=(40, 44, 48), spacing=(3.0, 2.0, 2.5), directions=None, radius_mm=30.0):
    """A ball of 200 HU with a core of 800 HU, off the middle towards the right and the feet, on any grid."""
    grid = VoxelGrid.from_spacing(shape, spacing, directions=directions)
    nk, nj, ni = shape
    k, j, i = np.meshgrid(np.arange(nk), np.arange(nj), np.arange(ni), indexing="ij")
    distance = np.linalg.norm(grid.to_ras(np.stack([i, j, k], axis=-1)) - (12.0, 3.0, -15.0), axis=-1)
    values = np.full(shape, -200.0, np.float32)
    values[distance < radius_mm] = 200
    values[distance < radius_mm / 2] = 800
    return ImageVolume(grid, values, modality="CT", unit="HU")
