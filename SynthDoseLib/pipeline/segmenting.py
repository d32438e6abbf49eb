"""Segmentation from file to file, its uncertainty in files, and what a bundle is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import ImageVolume, LabelMap, Progress, SynthDoseError, VoxelGrid, sha256_of, silent
from ..io import write_csv, write_segmentation, write_volume
from ..segmentation import (
    OrganVolume,
    SegmentedImage,
    downloaded_bundles,
    fetch_bundle,
    find_bundle,
    look_up_bundle,
    match_organs,
    read_bundle,
    shipped_bundles,
)
from .plan import ImagePlan, RunPlan, SegmentationPlan, check_segmentation
from .stations import find_organs, read_any_image, read_ct, report_stage

ENTROPY, VOLUMES = "segmentation_entropy.nrrd", "segmentation_volumes.csv"
VOLUME_HEADER = ("organ", "volume_ml", "sigma_ml", "low_ml", "high_ml", "inferences")


def segment_file(
    image: ImagePlan, out: Path, plan: SegmentationPlan, *, device: str = "auto", progress: Progress = silent
) -> str:
    """Segment an image and write ``.seg.nrrd``; with an uncertainty also ``.entropy.nrrd`` and ``.volumes.csv`` beside it.

    Returns
    -------
    str
        Table of organs and volumes, for people.
    """
    check_segmentation(plan)
    if not out.name.endswith(".seg.nrrd"):
        raise SynthDoseError(f"--out has to end with .seg.nrrd, as Slicer expects; found {out.name}.")
    if not out.absolute().parent.is_dir():
        raise SynthDoseError(f"The folder {out.absolute().parent} does not exist. Make it first.")
    report_stage(progress, "read", 0.0)
    volume = read_any_image(image) if plan.bundle else read_ct(image)
    found = find_organs(plan, volume, device=device, progress=progress)
    write_segmentation(out, found.labels)
    stem = out.name.removesuffix(".seg.nrrd")
    write_uncertainty(found, out.with_name(f"{stem}.entropy.nrrd"), out.with_name(f"{stem}.volumes.csv"))
    if found.volumes:
        lines = [f"{'organ':<28}{'volume / ml':>14}{'95 % interval / ml':>24}"]
        for row in found.volumes:
            lines.append(f"{row.organ:<28}{row.volume_ml:>14.1f}{f'{row.low_ml:.1f} to {row.high_ml:.1f}':>24}")
    else:
        lines = [f"{'organ':<28}{'volume / ml':>14}"]
        counts = found.labels.voxel_counts()
        lines += [f"{name:<28}{count * volume.grid.voxel_volume_ml:>14.1f}" for name, count in counts.items()]
    return "\n".join([*lines, *found.labels.notes])


def organs_inputs(plan: RunPlan, image: ImageVolume) -> Any:
    """Everything that decides what `find_organs` finds in an image by bundles or by tissues."""
    folders: list[Path] = []
    for bundle in filter(None, (plan.segmentation.bundle, *plan.segmentation.ensemble)):
        with contextlib.suppress(SynthDoseError):
            folders.append(find_bundle(bundle))  # its files count, not its name alone
    return plan.segmentation, folders, plan.dose.device, image


def settings_of(words: Sequence[str]) -> dict[str, bool | int | float | str]:
    """Read KEY=VALUE words; a value is JSON (false, 2, 0.5) or else a text.

    Raises
    ------
    SynthDoseError
        If a word has no = in it, or a value is a list or an object.

    Examples
    --------
    >>> settings_of(["displayable_configs#highres=false", "modelname=model_lowres.pt"])
    {'displayable_configs#highres': False, 'modelname': 'model_lowres.pt'}
    """
    result: dict[str, bool | int | float | str] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not (found and key):
            raise SynthDoseError(f"--set takes KEY=VALUE, as in displayable_configs#highres=false; found '{word}'.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not isinstance(value, (bool, int, float, str)):
            raise SynthDoseError(f"--set takes true, false, a number or a text; found '{text}' for {key}.")
        result[key] = value
    return result


def write_uncertainty(found: SegmentedImage, entropy: Path, volumes: Path) -> None:
    """Write the entropy per voxel (nats) and the volume intervals per organ, where they are known."""
    if found.entropy is not None:
        write_volume(entropy, found.entropy, found.labels.grid, unit="nat")
    if found.volumes:
        write_csv(volumes, VOLUME_HEADER, [_row(volume) for volume in found.volumes])


def _row(volume: OrganVolume) -> Sequence[object]:
    return (volume.organ, volume.volume_ml, volume.sigma_ml, volume.low_ml, volume.high_ml, len(volume.inferences_ml))


def describe_bundle(name: str, *, download: bool = False, progress: Progress = silent) -> str:
    """Say what a bundle is: version, licence, modality, weights and their hash, organs, and labels that are no known organ.

    Parameters
    ----------
    name : str
        Folder, archive, shipped or downloaded name, or a name of the Model Zoo. "" lists what is at hand.
    download : bool
        Fetch a Model Zoo bundle; otherwise its size, licence and checksum are only shown.
    """
    if not name:
        shipped, downloaded = (", ".join(names) or "none" for names in (shipped_bundles(), downloaded_bundles()))
        return f"shipped: {shipped}\ndownloaded: {downloaded}"
    try:
        folder = find_bundle(name)
    except SynthDoseError:
        if Path(name).exists():
            raise
        offer = look_up_bundle(name)
        if not download:
            return f"{offer}\nNot on this computer; 'synthdose bundle {name} --download' fetches it."
        folder = fetch_bundle(name, version=offer.version, progress=progress)
    bundle = read_bundle(folder)
    nothing = VoxelGrid.from_spacing((1, 1, 1), (1.0, 1.0, 1.0))
    known = match_organs(LabelMap(nothing, np.zeros(nothing.shape, np.uint16), bundle.organs))
    pairs = [
        f"  {raw.index:>4}  {raw.name}" + ("" if raw.name == organ.name else f" = {organ.name}")
        for raw, organ in zip(bundle.organs, known.organs, strict=True)
    ]
    return "\n".join(
        [
            f"{bundle.name} {bundle.version}".rstrip(),
            f"licence: {bundle.licence or 'not stated'}; modality: {bundle.modality or 'not stated'}",
            f"weights: {bundle.weights.name}, {bundle.weights.stat().st_size / 1e6:.1f} MB",
            f"SHA-256 of the weights: {sha256_of(bundle.weights)}",
            f"{len(bundle.organs)} organs:",
            *pairs,
            *known.notes,
        ]
    )
