"""Conformance with the Image Biomarker Standardisation Initiative (IBSI): reference values beside those of pyradiomics."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ImageVolume, LabelMap, VoxelGrid, organ_table, resource_path
from .features import RadiomicsSettings, extract_features

ROUNDING = 0.005
"""Reference values are published with three digits: half of the last one, relative to 1.00, the least favourable number."""


@dataclass(frozen=True)
class IbsiRow:
    """One feature; the names of the fields are the header of the table.

    Attributes
    ----------
    ibsi, pyradiomics : str
        Its tag in the reference manual, and its name in pyradiomics.
    reference, tolerance : float
    value : float
        By pyradiomics, brought to the definition of IBSI where the two differ by a constant (kurtosis); nan if it is missing.
    agrees : bool
        Within the tolerance and the rounding of the reference.
    """

    ibsi: str
    pyradiomics: str
    reference: float
    tolerance: float
    value: float
    agrees: bool


def ibsi_features() -> dict[str, tuple[str, float]]:
    """Features that both define: IBSI tag to pyradiomics name, and what is to be added to the value of pyradiomics."""
    with resource_path("radiomics/ibsi_features.csv").open(newline="", encoding="utf-8") as stream:
        return {row["ibsi"]: (row["pyradiomics"], float(row["offset"])) for row in csv.DictReader(stream)}


def compare_with_ibsi(features: Mapping[str, float], reference: Mapping[str, tuple[float, float]]) -> tuple[IbsiRow, ...]:
    """Set features beside reference values.

    Parameters
    ----------
    features : mapping of str to float
        By the names of pyradiomics.
    reference : mapping of str to tuple of float
        Value and tolerance by IBSI tag, without the suffix that says how directions were merged.

    Returns
    -------
    tuple of IbsiRow
        Every feature that both define and the reference has a value of.
    """
    rows = []
    for tag, (name, offset) in ibsi_features().items():
        if tag in reference:
            expected, tolerance = reference[tag]
            value = features.get(name, np.nan) + offset
            agrees = bool(abs(value - expected) <= tolerance + ROUNDING * abs(expected))
            rows.append(IbsiRow(tag, name, expected, tolerance, float(value), agrees))
    return tuple(rows)


def check_ibsi() -> tuple[IbsiRow, ...]:
    """Extract the features of IBSI's digital phantom, which is shipped, and compare them with its reference values.

    Raises
    ------
    MissingPackageError
        If pyradiomics is not installed.

    References
    ----------
    Zwanenburg et al., Radiology 295 (2020) 328-338; reference manual arXiv:1612.07003.
    """
    phantom: dict[str, Any] = json.loads(resource_path("radiomics/ibsi_digital_phantom.json").read_text(encoding="utf-8"))
    mask = np.array(phantom["mask"], np.uint16)
    grid = VoxelGrid.from_spacing(mask.shape, tuple(phantom["spacing_mm"]))
    image = ImageVolume(grid, np.array(phantom["image"], np.float32))
    settings = RadiomicsSettings(bin_width=1.0, spacing_mm=None)
    table = extract_features(image, LabelMap(grid, mask, organ_table(["phantom"])), settings=settings)
    reference = {tag: (value, tolerance) for tag, (value, tolerance) in phantom["reference"].items()}
    return compare_with_ibsi({row.feature: row.value for row in table.rows}, reference)
