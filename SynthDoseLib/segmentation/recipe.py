"""What to train and how: a configuration in the form of MONAI's bundles, read without running code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import SynthDoseError, resource_path
from .components import NETWORKS, TRANSFORMS, build, short_name, transform_components
from .expressions import Component, ConfigurationReader

REST = "rest_of_body"
"""As an organ of a recipe: what of the body none of the other organs has."""

LOADING = ("LoadImaged", "EnsureChannelFirstd")
RANDOM_TRANSFORMS = frozenset(
    "Rand3DElasticd RandAffined RandRotated RandZoomd RandSpatialCropd RandGridDistortiond RandGaussianNoised RandRicianNoised "
    "RandGaussianSmoothd RandGaussianSharpend RandScaleIntensityd RandShiftIntensityd RandStdShiftIntensityd "
    "RandAdjustContrastd RandHistogramShiftd RandBiasFieldd RandGibbsNoised RandKSpaceSpikeNoised RandCoarseDropoutd "
    "RandSimulateLowResolutiond".split()
)
OWN_TRANSFORMS = frozenset(("RandomWindowd", "RandomScand"))
AIR_HU = -1000.0
_MIRRORS = ("RandFlipd", "RandAxisFlipd", "RandRotate90d", "Flipd")  # left would become right

_NUMBERS: dict[str, tuple[float, float]] = {  # name: smallest and largest allowed value
    "spacing_mm": (0.5, 20),
    "steps": (1, 10_000_000),
    "learning_rate": (1e-7, 1),
    "flat_share": (0, 1),
    "class_balance": (0, 1),
    "average": (0, 0.99999),
    "validate_every": (1, 1_000_000),
    "patience": (1, 1_000_000),
    "held_out_share": (0, 0.9),
    "held_out_windows": (1, 1000),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True, eq=False)
class TrainingRecipe:
    """A training that can be repeated.

    Attributes
    ----------
    configuration : mapping
        As in the JSON file, after the changes of the command line; it is kept in the bundle.
    reader : ConfigurationReader
        Resolves its references.
    name, modality : str
        Name of the bundle; "CT" or "MR".
    organs : tuple of str
        Organs or groups in the order of the network's channels, from channel 1; channel 0 is the air around the body, or
        everything else if `REST` is not among them.
    one_piece : tuple of str
        Those of `organs` that are one connected part; smaller parts are dropped in use.
    spacing_mm : float
        Cubic voxels the network sees.
    window : tuple of 3 int
        Voxels the network sees at once.
    steps : int
        Optimiser steps of one window each.
    learning_rate, flat_share : float
        AdamW's largest rate: reached after 2 % of the steps, kept for that share of them, then lowered along a cosine.
    class_balance : float
        Weight of a class in the cross entropy: how often it occurs, to minus this power. 0 treats voxels alike.
    average : float
        Decay per step of the running mean of the weights; the mean is what is kept.
    validate_every, patience : int
        Steps between two looks at the held-out patients, and looks without progress after which the training stops.
    held_out_share : float
        Of the patients.
    held_out_windows : int
        Windows of them that are looked at.
    seed : int
    """

    configuration: Mapping[str, Any]
    reader: ConfigurationReader
    name: str
    modality: str
    organs: tuple[str, ...]
    one_piece: tuple[str, ...]
    spacing_mm: float
    window: tuple[int, int, int]
    steps: int
    learning_rate: float
    flat_share: float
    class_balance: float
    average: float
    validate_every: int
    patience: int
    held_out_share: float
    held_out_windows: int
    seed: int

    def network(self) -> Any:
        """Build the network with fresh weights."""
        return build(self.network_component(), "networks", NETWORKS)

    def network_component(self) -> Component:
        """The network and its arguments."""
        component = self.reader.get("network_def")
        if not isinstance(component, Component):
            raise SynthDoseError("The training configuration's network_def has to be a network of MONAI with a _target_.")
        outputs = component.arguments.get("out_channels")
        if outputs != len(self.organs) + 1:
            raise SynthDoseError(
                f"The network of the training configuration has {outputs} output channels; {len(self.organs)} organs and the "
                f'background need {len(self.organs) + 1}. Write "out_channels": "$len(@organs) + 1".'
            )
        return component

    def chain(self, part: str) -> list[Any]:
        """Build the transforms of "preparation", "randomisation" or "normalisation", those that load files left out."""
        components = transform_components(self.reader.get(part), f"training configuration ({part})")
        return [_transform(item, part) for item in components if item.target.rsplit(".", 1)[-1] not in LOADING]

    def normalisation_configuration(self) -> list[Any]:
        """The normalisation with its references resolved, as plain data for the bundle's own configuration."""
        components = transform_components(self.reader.get("normalisation"), "training configuration (normalisation)")
        return [{"_target_": item.target, **item.arguments} for item in components]


def training_template(name: str) -> Path:
    """Path of a configuration that ships: "torso_ct" or "torso_mr"."""
    if not name.replace("_", "").isalnum():
        raise SynthDoseError(
            f"'{name}' is not the name of a training configuration. Shipped: {', '.join(training_templates())}."
        )
    try:
        return resource_path("training", f"{name}.json")
    except SynthDoseError:
        raise SynthDoseError(
            f"There is no training configuration '{name}', neither as a file nor shipped. Shipped: "
            f"{', '.join(training_templates())}; --template prints one to edit."
        ) from None


def training_templates() -> tuple[str, ...]:
    """Names of the configurations that ship."""
    return tuple(sorted(path.stem for path in resource_path("training").glob("*.json")))


def read_recipe(source: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TrainingRecipe:
    """Read a training configuration.

    Parameters
    ----------
    source : str or path-like
        JSON file, or the name of a shipped one.
    changes : mapping of str to object, optional
        Values that replace the file's, by name ("steps", "organs").

    Returns
    -------
    TrainingRecipe

    Raises
    ------
    SynthDoseError
        If it cannot be read, lacks an entry, or an entry is not allowed.
    """
    path = Path(source)
    if not path.is_file():
        path = training_template(str(source))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SynthDoseError(f"Cannot read the training configuration {path}: {error}. It has to be a JSON file.") from error
    if not isinstance(content, dict):
        raise SynthDoseError(f"The training configuration {path} has to be a JSON object; found {type(content).__name__}.")
    return recipe_of({**content, **(changes or {})})


def recipe_of(configuration: Mapping[str, Any]) -> TrainingRecipe:
    """Check a training configuration and return it as a recipe; see `read_recipe`."""
    reader = ConfigurationReader(configuration)
    for name in ("name", "modality", "organs", "window", "network_def", "preparation", "randomisation", "normalisation"):
        if name not in reader:
            raise SynthDoseError(f"The training configuration has no '{name}'. --template prints a complete one.")
    organs = _names(reader.get("organs"), "organs")
    one_piece = _names(reader.get("one_piece") if "one_piece" in reader else [], "one_piece")
    strangers = [organ for organ in one_piece if organ not in organs]
    if not organs or len(set(organs)) != len(organs) or strangers:
        raise SynthDoseError(
            f"The training configuration has the organs {', '.join(organs) or 'none'} and as one_piece "
            f"{', '.join(one_piece) or 'none'}: every organ once, and one_piece from among them."
        )
    modality = str(reader.get("modality")).upper()
    if modality not in ("CT", "MR"):
        raise SynthDoseError(f"The training configuration has the modality '{modality}'. Allowed: CT, MR.")
    window = reader.get("window")
    if not isinstance(window, list) or len(window) != 3 or not all(isinstance(n, int) and 1 <= n <= 1024 for n in window):
        raise SynthDoseError(f"The training configuration has the window {window}; three numbers of voxels were due.")
    numbers = {name: _number(reader, name, limits) for name, limits in _NUMBERS.items()}
    whole = ("steps", "validate_every", "patience", "held_out_windows", "seed")
    settings: dict[str, Any] = {name: int(value) if name in whole else value for name, value in numbers.items()}
    recipe = TrainingRecipe(
        configuration, reader, str(reader.get("name")), modality, organs, one_piece, window=(window[0], window[1], window[2]),
        **settings,
    )  # fmt: skip
    recipe.network_component()
    return recipe


def _names(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise SynthDoseError(f"The training configuration's '{what}' has to be a list of names; found {value!r}.")
    return tuple(value)


def _number(reader: ConfigurationReader, name: str, limits: tuple[float, float]) -> float:
    if name not in reader:
        raise SynthDoseError(f"The training configuration has no '{name}'. --template prints a complete one.")
    value = reader.get(name)
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise SynthDoseError(f"The training configuration has {name} = {value!r}; a number from {low:g} to {high:g} was due.")
    return float(value)


def _transform(component: Component, part: str) -> Any:
    """Build one transform of a chain."""
    name = component.target.rsplit(".", 1)[-1]
    if name in _MIRRORS:
        raise SynthDoseError(f"The training configuration's {name} mirrors patients: left organs would become right ones.")
    if name in OWN_TRANSFORMS:
        from . import training_transforms

        try:
            return getattr(training_transforms, name)(**component.arguments)
        except (TypeError, ValueError) as error:
            raise SynthDoseError(f"The training configuration's {name} cannot be built: {error}.") from error
    allowed = TRANSFORMS | RANDOM_TRANSFORMS
    if name not in allowed:
        raise SynthDoseError(
            f"The training configuration asks for {component.target} in '{part}', which SynthDose does not run. Allowed: "
            f"{', '.join(sorted(OWN_TRANSFORMS))}, and of MONAI: {', '.join(sorted(allowed))}."
        )
    short_name(component, allowed, "transform")
    return build(component, "transforms", allowed)


def normalised_air(recipe: TrainingRecipe) -> float:
    """What a recipe's normalisation makes of the air around a patient: it goes around an image smaller than a window."""
    import torch

    air, tissue = (AIR_HU, 40.0) if recipe.modality == "CT" else (0.0, 1.0)
    image = torch.full((1, 16, 16, 16), air)
    image[:, 4:12, 4:12, 4:12] = tissue
    data = {"image": image}
    for transform in recipe.chain("normalisation"):
        data = transform(data)
    return round(float(data["image"][0, 0, 0, 0]), 6)


def channels_of(names: Iterable[str], organs: Iterable[str]) -> dict[str, int]:
    """Channel of each label name that belongs to one of `organs` (organs or groups)."""
    from .tables import organ_group

    known = list(names)
    result = {}
    for number, organ in enumerate(organs, start=1):
        members = set(organ_group(organ))
        result.update({name: number for name in known if name in members})
    return result
