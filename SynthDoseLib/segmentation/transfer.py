"""Going on from the weights of another bundle, for other organs if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import SynthDoseError
from .bundle_folder import Bundle, load_weights
from .components import NETWORKS, build
from .recipe import TrainingRecipe
from .tables import find_organ

if TYPE_CHECKING:
    import torch


def transferred_weights(recipe: TrainingRecipe, bundle: Bundle, *, other_modality: bool = False) -> dict[str, torch.Tensor]:
    """Weights of a bundle for the network of a recipe.

    Organs that both have keep their channel's weights, wherever the channel is now; other channels of the last layer are left
    out, and start fresh.

    Parameters
    ----------
    recipe : TrainingRecipe
    bundle : Bundle
        Of the same network but for the number of output channels.
    other_modality : bool
        Whether a bundle for another modality is meant.

    Returns
    -------
    dict of str to Tensor
        float32.

    Raises
    ------
    SynthDoseError
        If the bundle is for another modality or spacing, or its network differs in more than the last layer.
    """
    if bundle.modality and bundle.modality != recipe.modality and not other_modality:
        raise SynthDoseError(
            f"The bundle {bundle.name} is for {bundle.modality}, the training configuration for {recipe.modality}. If you "
            "mean to start from it all the same, say --other-modality."
        )
    spacing = bundle.reader.get("spacing_mm") if "spacing_mm" in bundle.reader else None
    if isinstance(spacing, list) and any(abs(float(edge) - recipe.spacing_mm) > 0.01 for edge in spacing):
        raise SynthDoseError(
            f"The bundle {bundle.name} works at {' x '.join(f'{float(edge):g}' for edge in spacing)} mm, the training "
            f"configuration at {recipe.spacing_mm:g} mm. Its weights know sizes in voxels: set spacing_mm to the bundle's."
        )
    weights = {name: value.float() if value.is_floating_point() else value for name, value in load_weights(bundle).items()}
    before = ["background", *(_canonical(organ.name) for organ in bundle.organs)]
    after = ["background", *(_canonical(organ) for organ in recipe.organs)]
    fresh = recipe.network().state_dict()
    axes = _output_axes(recipe)
    result = {}
    for name, own in fresh.items():
        given = weights.get(name)
        if given is None or [n for a, n in enumerate(given.shape) if a not in axes.get(name, ())] != [
            n for a, n in enumerate(own.shape) if a not in axes.get(name, ())
        ]:
            raise SynthDoseError(
                f"The bundle {bundle.name} has another network than the training configuration: {name} is "
                f"{tuple(given.shape) if given is not None else 'absent'} there and {tuple(own.shape)} here."
            )
        mixed = own.clone() if axes.get(name) else given.clone()
        for axis in axes.get(name, ())[:1]:
            if given.shape[axis] != len(before):
                raise SynthDoseError(f"The bundle {bundle.name} names {len(before)} channels; {name} has {given.shape[axis]}.")
            if len(axes[name]) > 1:
                continue  # mixes the organs with each other: starts fresh
            for place, organ in enumerate(after):
                if organ in before:
                    mixed.select(axis, place).copy_(given.select(axis, before.index(organ)))
        result[name] = mixed
    if before == after:
        return {name: weights[name] for name in fresh}
    return result


def _canonical(name: str) -> str:
    found = find_organ(name)
    return found.name if found is not None else name


def _output_axes(recipe: TrainingRecipe) -> dict[str, tuple[int, ...]]:
    """Axes of each tensor that grow with the number of output channels."""
    component = recipe.network_component()
    shapes = []
    for extra in (0, 1):
        network = build(component, "networks", NETWORKS, out_channels=len(recipe.organs) + 1 + extra)
        shapes.append({name: tuple(value.shape) for name, value in network.state_dict().items()})
    here, there = shapes
    axes = {name: tuple(a for a, n in enumerate(here[name]) if there[name][a] != n) for name in here}
    return {name: found for name, found in axes.items() if found}
