"""Building the parts of a bundle: only MONAI's own transforms, networks and inferers that are on the lists here."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping
from typing import Any

from ..core import MissingPackageError, SynthDoseError
from .expressions import Component, DevicePlace, DTypeName

TRANSFORMS = frozenset(
    "EnsureTyped Orientationd Spacingd NormalizeIntensityd ScaleIntensityd ScaleIntensityRanged "
    "ScaleIntensityRangePercentilesd ClipIntensityPercentilesd ThresholdIntensityd CropForegroundd SpatialPadd DivisiblePadd "
    "BorderPadd ResizeWithPadOrCropd CenterSpatialCropd Resized CastToTyped ToTensord SelectItemsd ShiftIntensityd "
    "GaussianSmoothd MedianSmoothd AdjustContrastd".split()
)
NETWORKS = frozenset(
    "SegResNet SegResNetDS SegResNetVAE UNet BasicUNet BasicUNetPlusPlus DynUNet AttentionUnet VNet UNETR SwinUNETR HighResNet "
    "MedNeXt".split()
)
INFERERS = frozenset(("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SimpleInferer"))
POSTPROCESSING = frozenset(
    "Activationsd AsDiscreted Invertd SaveImaged KeepLargestConnectedComponentd EnsureTyped ToTensord CopyItemsd".split()
)

_OTHER_NAMES = {  # that MONAI knows too
    "EnsureTypeD": "EnsureTyped", "Unet": "UNet", "DynUnet": "DynUNet", "Dynunet": "DynUNet", "BasicUnet": "BasicUNet",
    "Basicunet": "BasicUNet", "MedNext": "MedNeXt",
}  # fmt: skip
_MODULES = {"transforms": "monai.transforms", "networks": "monai.networks.nets", "inferers": "monai.inferers"}


def short_name(component: Component, allowed: frozenset[str], what: str) -> str:
    """Return the class name of a component if it is allowed.

    Raises
    ------
    SynthDoseError
        If the target is not a class of MONAI that `allowed` lists.
    """
    *prefix, name = component.target.split(".")
    name = _OTHER_NAMES.get(name, name)
    if name.endswith(("Dict", "D")) and f"{name.removesuffix('Dict').removesuffix('D')}d" in allowed:
        name = f"{name.removesuffix('Dict').removesuffix('D')}d"
    if (prefix and prefix[0] != "monai") or name not in allowed:
        raise SynthDoseError(
            f"The bundle asks for {component.target} as {what}, which SynthDose does not run. Allowed, all of MONAI: "
            f"{', '.join(sorted(allowed))}."
        )
    return name


def build(component: Component, kind: str, allowed: frozenset[str], **changed: Any) -> Any:
    """Build a component from its resolved arguments.

    Parameters
    ----------
    component : Component
    kind : str
        "transforms", "networks" or "inferers".
    allowed : frozenset of str
        Class names.
    **changed
        Arguments that replace the configuration's.

    Raises
    ------
    SynthDoseError
        If the class is not allowed, an argument is not plain data, or the class refuses its arguments.
    MissingPackageError
        If MONAI is not installed.
    """
    name = short_name(component, allowed, kind.rstrip("s"))
    arguments = {key: _plain(value, name, key) for key, value in component.arguments.items()}
    arguments = {key: value for key, value in arguments.items() if not isinstance(value, DevicePlace)}
    arguments.update(changed)
    try:
        module = importlib.import_module(_MODULES[kind])
    except ImportError:
        raise MissingPackageError("monai", "Running a MONAI bundle", 'pip install "synthdose[segmentation]"') from None
    factory = getattr(module, name, None)
    if factory is None:
        raise SynthDoseError(f"The bundle asks for {component.target}, which the installed MONAI does not have.")
    if "img_size" in arguments and "img_size" not in inspect.signature(factory).parameters:
        del arguments["img_size"]  # older bundles give it; newer MONAI networks take any size
    try:
        with warnings.catch_warnings():
            # MONAI announces changes of defaults that a bundle's author chose or left alone
            warnings.simplefilter("ignore", FutureWarning)
            return factory(**arguments)
    except Exception as error:  # MONAI raises many kinds for arguments it does not like
        raise_if_missing(error, component.target)
        raise SynthDoseError(f"The bundle's {component.target} cannot be built: {_first_line(error)}") from error


def raise_if_missing(error: Exception, what: str) -> None:
    """Raise `MissingPackageError` if `error` is MONAI's complaint about a package that only some networks need."""
    found = re.search(r"No module named '([\w.]+)'", str(error))
    if isinstance(error, ImportError) and found:
        raise MissingPackageError(found.group(1), f"The bundle's {what}") from error


def transform_components(value: Any, what: str) -> list[Component]:
    """List the components of a ``Compose`` (or a single transform), disabled ones left out.

    Raises
    ------
    SynthDoseError
        If the configuration has something else there.
    """
    if isinstance(value, Component) and value.target.rsplit(".", 1)[-1] == "Compose":
        items = value.arguments.get("transforms", [])
    else:
        items = value if isinstance(value, list) else [value]
    result: list[Component] = []
    for item in items if isinstance(items, list) else [items]:
        if item is None:
            continue
        if not isinstance(item, Component):
            raise SynthDoseError(f"The bundle's {what} has to be a list of transforms; found {type(item).__name__}.")
        result.extend(transform_components(item, what) if item.target.rsplit(".", 1)[-1] == "Compose" else [item])
    return result


def _plain(value: Any, name: str, key: str) -> Any:
    if isinstance(value, DTypeName):
        return _dtype(value)
    if isinstance(value, Component):
        raise SynthDoseError(f"The bundle gives {name} the component {value.target} as '{key}', which is not supported.")
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, name, key) for item in value)
    if isinstance(value, Mapping):
        return {inner: _plain(item, name, key) for inner, item in value.items()}
    return value


def _dtype(value: DTypeName) -> Any:
    import torch

    return getattr(torch, value.name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
