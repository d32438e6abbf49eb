"""The record of how a result was made, kept with its node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..core import versions
from .volumes import sceneOrDefault

RECORD_REFERENCE = "SynthDose.record"
VERSION_ATTRIBUTE = "SynthDose.version"


def attachRecord(node: Any, record: Mapping[str, Any], scene: Any = None) -> Any:
    """Add a record to the scene as a text node (JSON) to which `node` refers; the version goes into an attribute as well.

    Parameters
    ----------
    node : vtkMRMLNode
        The result.
    record : mapping
        What was done; versions are added if it has none.
    scene : vtkMRMLScene, optional

    Returns
    -------
    vtkMRMLTextNode
    """
    text = sceneOrDefault(scene).AddNewNodeByClass("vtkMRMLTextNode", f"{node.GetName()} record")
    text.SetText(json.dumps({"versions": versions(), **record}, indent=1, default=str))
    node.SetNodeReferenceID(RECORD_REFERENCE, text.GetID())
    node.SetAttribute(VERSION_ATTRIBUTE, __version__)
    return text
