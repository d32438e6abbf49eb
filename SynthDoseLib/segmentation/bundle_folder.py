"""A MONAI bundle on disk: finding it, reading its configuration and weights as data from a stranger."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ..core import MissingPackageError, Organ, SynthDoseError, organ_table, resource_path, sha256_of, user_path
from .archive import is_archive, unpacked_bundle
from .expressions import Component, ConfigurationReader, DevicePlace
from .postprocessing import gives_regions

if TYPE_CHECKING:
    import torch

MAX_CONFIGURATION_BYTES = 5_000_000
LONGEST_NAME = 200  # of a file, or of an organ
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
SCRIPT_SUFFIX = ".ts"
BACKGROUND = ("background", "nothing", "air", "unlabeled", "unlabelled")
_WRAPPERS = ("model", "state_dict", "network", "net")
_TRUST = "Where you know and trust its author, say so: --trust-bundle, in a plan [segmentation] trusted = true."


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose configuration was read; nothing of it has been built or run.

    Attributes
    ----------
    folder : Path
    name, version, licence : str
        From the metadata; "" if it does not say.
    modality : str
        DICOM modality the network was trained on ("CT", "MR"; several as "CT/MR"), "" if the metadata do not say.
    organs : tuple of Organ
        In the order of the output's channels, without the background; the index is the label that the organ gets.
    reader : ConfigurationReader
        Of ``configs/inference.json``.
    weights : Path
        Weights file.
    weights_sha256 : str
        What the metadata say its SHA-256 is; "" if they do not.
    regions : bool
        Whether the organs may overlap (sigmoid), and a voxel may be in several of them.
    background : bool
        Whether channel 0 of the output is the background; False for regions whose channel 0 is an organ.
    """

    folder: Path
    name: str
    version: str
    licence: str
    modality: str
    organs: tuple[Organ, ...]
    reader: ConfigurationReader
    weights: Path
    weights_sha256: str = ""
    regions: bool = False
    background: bool = True

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return len(self.organs) + self.background


def shipped_bundles() -> tuple[str, ...]:
    """Names of the bundles that ship with the library."""
    folder = resource_path("segmentation")
    return tuple(sorted(path.name for path in folder.iterdir() if (path / "configs" / "inference.json").is_file()))


def bundle_store() -> Path:
    """Folder that downloaded bundles are kept in, ``.synthdose/bundles`` in the user's home; it need not exist."""
    return user_path("bundles")


def downloaded_bundles() -> tuple[str, ...]:
    """Names of the bundles in `bundle_store`."""
    store = bundle_store()
    return tuple(sorted(path.name for path in store.iterdir() if (path / "configs").is_dir())) if store.is_dir() else ()


def find_bundle(bundle: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle given by folder, archive (unpacked once), shipped name, or name of a downloaded one.

    Raises
    ------
    SynthDoseError
        If there is none.
    """
    text = os.fspath(bundle)
    path = Path(text)
    if text and os.path.isdir(text):  # unlike Path.is_dir, False for a name that no file can have
        return path
    if is_archive(path):
        return unpacked_bundle(path, bundle_store())
    plain = bool(text) and PurePosixPath(text).name == text == PureWindowsPath(text).name and text not in (".", "..")
    if plain:
        for root in (resource_path("segmentation"), bundle_store()):
            if os.path.isdir(root / text / "configs"):
                return root / text
    what = f"{path} is a file" if os.path.isfile(text) else f"There is no bundle '{text[:LONGEST_NAME]}'"
    raise SynthDoseError(
        f"{what}. A bundle is a folder or archive with configs/inference.json, configs/metadata.json and models/; shipped: "
        f"{', '.join(shipped_bundles()) or 'none'}. A Model Zoo bundle such as wholeBody_ct_segmentation has to be downloaded "
        "once: synthdose bundle NAME --download, or fetch_bundle(name)."
    )


def read_bundle(bundle: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Bundle:
    """Read a bundle's configuration and metadata; the weights are found, not loaded.

    Parameters
    ----------
    bundle : str or path-like
        Folder, shipped name, or downloaded name.
    overrides : mapping of str to object, optional
        Values to use instead of the configuration's, by identifier: ``{"displayable_configs#highres": False}``.

    Returns
    -------
    Bundle

    Raises
    ------
    SynthDoseError
        If files are missing, are links, are no JSON, or contradict each other.
    """
    folder = find_bundle(bundle)
    configuration = _read_json(folder, "configs/inference.json")
    metadata = _read_json(folder, "configs/metadata.json")
    replaced = {"device": DevicePlace(), "bundle_root": "", **(overrides or {})}
    reader = ConfigurationReader(configuration, replaced)
    formats = metadata.get("network_data_format")
    formats = formats if isinstance(formats, dict) else {}
    licence = metadata.get("license") or metadata.get("licence") or ""
    channels = _channels(formats, folder)
    regions = gives_regions(reader)
    background = not regions or channels[0].strip().lower() in BACKGROUND
    return Bundle(
        folder=folder,
        name=str(metadata.get("name") or folder.resolve().name),
        version=str(metadata.get("version") or ""),
        licence=str(licence),
        modality=_modality(formats),
        organs=organ_table(channels[int(background) :]),
        reader=reader,
        weights=_weights_path(folder, reader),
        weights_sha256=str(metadata.get("weights_sha256") or ""),
        regions=regions,
        background=background,
    )


def load_script(bundle: Bundle, *, trusted: bool) -> Any:
    """Load a bundle's TorchScript, which is a program: only if the user says that its source is trusted.

    Raises
    ------
    SynthDoseError
        If it is not trusted, or cannot be read.
    """
    import torch

    if not trusted:
        raise SynthDoseError(
            f"The bundle {bundle.name} holds its network only as TorchScript ({bundle.weights.name}), which is a program and "
            f"is refused. {_TRUST}"
        )
    _check_hash(bundle)
    try:
        return torch.jit.load(str(bundle.weights), map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise SynthDoseError(f"Cannot read the TorchScript {bundle.weights}: {_first_line(error)}") from error


def _check_hash(bundle: Bundle) -> None:
    if bundle.weights_sha256 and sha256_of(bundle.weights) != bundle.weights_sha256:
        raise SynthDoseError(
            f"The weights {bundle.weights} are not the ones the bundle's metadata name (SHA-256). Get the bundle again."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def load_weights(bundle: Bundle, *, trusted: bool = False) -> dict[str, torch.Tensor]:
    """Read network weights without unpickling objects: safetensors, or PyTorch's weights-only reader.

    Parameters
    ----------
    bundle : Bundle
    trusted : bool
        Whether the user trusts the source of the bundle: a checkpoint with pickled objects is then unpickled, which can run
        code.

    Raises
    ------
    SynthDoseError
        If the file holds anything but tensors in plain containers, cannot be read, or is not the one the metadata name.
    """
    path = bundle.weights
    _check_hash(bundle)
    try:
        import torch
    except ImportError:
        raise MissingPackageError("torch", "Running a MONAI bundle", 'pip install "synthdose[segmentation]"') from None
    content: Any
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError:
                raise MissingPackageError("safetensors", f"Reading {path.name}") from None
            content = load_file(path, device="cpu")
        else:
            content = torch.load(path, map_location="cpu", weights_only=not trusted)
    except MissingPackageError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged or unsafe file
        raise SynthDoseError(
            f"Cannot read the weights {path}: {_first_line(error)} Only files that hold tensors alone are loaded (a state dict "
            f"saved by torch.save, or safetensors); pickled objects and TorchScript could run code and are refused. {_TRUST}"
        ) from error
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    is_state = isinstance(content, dict) and content and all(isinstance(value, torch.Tensor) for value in content.values())
    if not is_state:
        raise SynthDoseError(f"The weights {path} hold no table of tensors (state dict), neither at the top nor under 'model'.")
    for key, value in content.items():
        dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_complex()
        # a view may repeat one number endlessly
        if not (dense and value.nbytes <= value.untyped_storage().nbytes() and bool(torch.isfinite(value).all())):
            raise SynthDoseError(f"The weights {path} hold in '{key}' no plain finite numbers. Get or train the bundle again.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def inside(folder: Path, relative: str) -> Path:
    """Return a path in a bundle; refuse one that leads out of it or goes over a link.

    Raises
    ------
    SynthDoseError
        If the path is absolute, climbs, or any part of it inside the bundle is a symbolic link.
    """
    parts = [part for part in relative.replace("\\", "/").split("/") if part not in ("", ".")]
    absolute = relative.startswith(("/", "\\")) or PureWindowsPath(relative).drive
    odd = any(":" in part or "\0" in part or len(part) > LONGEST_NAME for part in parts)
    if absolute or ".." in parts or not parts or odd:
        raise SynthDoseError(f"The bundle names a file outside its own folder ({relative[:120]!r}), which is refused.")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise SynthDoseError(f"{path} in the bundle is a symbolic link, which is refused. Copy the file into the bundle.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SynthDoseError(f"The bundle names a file outside its own folder ({relative}), which is refused.")
    return path


def _read_json(folder: Path, relative: str) -> dict[str, Any]:
    path = inside(folder, relative)
    if not path.is_file():
        raise SynthDoseError(
            f"{folder} is not a MONAI bundle that can be run: {relative} is missing. A bundle has configs/inference.json, "
            "configs/metadata.json and models/model.pt (or .safetensors)."
        )
    if path.stat().st_size > MAX_CONFIGURATION_BYTES:
        raise SynthDoseError(f"{path} has {path.stat().st_size} bytes; a configuration has at most {MAX_CONFIGURATION_BYTES}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SynthDoseError(f"Cannot read {path}: {error}. It has to be a JSON file in UTF-8.") from error
    if not isinstance(content, dict):
        raise SynthDoseError(f"{path} has to hold a JSON object; found {type(content).__name__}.")
    return content


def _modality(formats: Mapping[str, Any]) -> str:
    inputs = formats.get("inputs")
    image: Any = next(iter(inputs.values()), {}) if isinstance(inputs, dict) else {}
    image = image if isinstance(image, dict) else {}
    stated = image.get("modality") or ""
    modality = " ".join(map(str, stated)).upper() if isinstance(stated, list) else str(stated).upper()
    if not modality and str(image.get("format") or "").lower() == "hounsfield":
        return "CT"
    names = {"MRI": "MR", "PET": "PT"}
    return "" if modality == "N/A" else "/".join(dict.fromkeys(names.get(word, word) for word in re.findall(r"\w+", modality)))


def _channels(formats: Mapping[str, Any], folder: Path) -> list[str]:
    """Names of the output's channels, the background's too."""
    outputs = formats.get("outputs")
    prediction: Any = next(iter(outputs.values()), {}) if isinstance(outputs, dict) else {}
    names = prediction.get("channel_def") if isinstance(prediction, dict) else None
    if not isinstance(names, dict) or not names:
        raise SynthDoseError(
            f"The metadata of the bundle {folder} do not name the output channels "
            "(network_data_format.outputs.pred.channel_def), so that nobody knows which organ a label is."
        )
    try:
        channels = {int(key): str(value) for key, value in names.items()}
    except ValueError:
        raise SynthDoseError(f"The bundle {folder} numbers its output channels by {', '.join(map(str, names))}.") from None
    for value in names.values():
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_NAME or not value.isprintable():
            raise SynthDoseError(
                f"The bundle {folder} names an output channel {repr(value)[:80]}, which is no name of an organ."
            )
    if sorted(channels) != list(range(len(channels))):
        raise SynthDoseError(f"The bundle {folder} names {len(channels)} output channels, but not from 0 without gaps.")
    if len(set(channels.values())) != len(channels):
        raise SynthDoseError(f"The bundle {folder} gives two output channels the same name.")
    return [channels[index] for index in range(len(channels))]


def _weights_path(folder: Path, reader: ConfigurationReader) -> Path:
    """Weights file that the configuration's checkpoint loader names, else ``models/model.*``."""
    candidates = ["checkpointloader", "handlers", "val_handlers"]
    named = ""
    for candidate in (name for name in candidates if name in reader):
        named = named or _load_path(reader, candidate)
    if named:
        stem = named.rsplit(".", 1)[0]
        choices = [named, *(stem + suffix for suffix in (*WEIGHT_SUFFIXES, SCRIPT_SUFFIX))]
    else:
        choices = [f"models/model{suffix}" for suffix in (*WEIGHT_SUFFIXES, SCRIPT_SUFFIX)]
    for choice in choices:
        path = inside(folder, choice.lstrip("/"))
        if path.is_file():
            return path
    models = folder / "models"
    found = sorted(path.name for path in models.iterdir()) if models.is_dir() else []
    raise SynthDoseError(
        f"The bundle {folder} has no weights {choices[0].lstrip('/')}; its models folder holds "
        f"{', '.join(found) if found else 'nothing'}. Download the bundle again."
    )


def _load_path(reader: ConfigurationReader, identifier: str) -> str:
    """``load_path`` of a CheckpointLoader at `identifier` (itself or one of a list), "" if there is none."""
    # only this entry is resolved: the others may hold expressions that are none of our business
    for place in (identifier, *(f"{identifier}#{number}" for number in range(16))):
        if f"{place}#load_path" in reader and f"{place}#_target_" in reader:
            target = reader.get(f"{place}#_target_")
            if str(target).rsplit(".", 1)[-1] == "CheckpointLoader":
                return str(reader.get(f"{place}#load_path"))
    return ""


def require_component(value: Any, what: str) -> Component:
    """Return `value` if it is a part to build; raise `SynthDoseError` if the configuration has something else there."""
    if not isinstance(value, Component):
        raise SynthDoseError(f"The bundle's configuration has no {what} with a _target_; found {type(value).__name__}.")
    return value
