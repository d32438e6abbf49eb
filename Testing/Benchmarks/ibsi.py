"""Conformance of the installed pyradiomics with IBSI: digital phantom, and the CT phantom by configurations A and B.

usage: python -m Testing.Benchmarks.ibsi [--out RESULTS.md]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from SynthDoseLib.core import ImageVolume, LabelMap, organ_table
from SynthDoseLib.io import read_volume
from SynthDoseLib.radiomics import (
    IbsiRow,
    RadiomicsSettings,
    check_ibsi,
    compare_with_ibsi,
    extract_features,
    extract_with_parameters,
)
from SynthDoseLib.radiomics.features import CLASSES

from .results import RESULTS, write_section

SHARED = Path(__file__).resolve().parents[3] / "shared/data/images/ibsi"
# IBSI reference manual, section 5.2: A keeps the voxels, 25 HU from -500 HU; B makes 2 mm pixels in the slices, 32 levels
CONFIGURATIONS = {
    "A": (
        "ibsi_1_chest_config_a.csv",
        RadiomicsSettings(
            bin_width=25, spacing_mm=None, resegment=(-500, 400), in_slices=True, maximum_surface_voxels=1_000_000
        ),
    ),
    "B": (
        "ibsi_1_chest_config_b.csv",
        RadiomicsSettings(bin_count=32, spacing_mm=(2, 2, 0), interpolation="linear", resegment=(-500, 400), in_slices=True),
    ),
}
PYRADIOMICS_B = {
    "resegmentRange": [-500, 400], "force2D": True, "force2Ddimension": 0, "binCount": 32, "resampledPixelSpacing": [2, 2, 0],
    "interpolator": "sitkLinear", "padDistance": 10,
}  # fmt: skip
"""Configuration B with the interpolation of pyradiomics in place of ours."""
SUFFIXES = ("", "_2_5D_avg", "_2_5D")
"""In slices, directions averaged over the matrices of all slices together: what pyradiomics does with force2D."""


def reference(path: Path) -> dict[str, tuple[float, float]]:
    """Values and tolerances by tag without the suffix of the aggregation."""
    with path.open(newline="", encoding="utf-8") as stream:
        given = {row["tag"]: row for row in csv.DictReader(stream, delimiter=";")}
    found = {}
    for tag, row in given.items():
        for suffix in SUFFIXES:
            if (suffix and tag.endswith(suffix)) or (not suffix and "D" not in tag.rsplit("_", 1)[-1]):
                name = tag.removesuffix(suffix)
                if not (suffix == "" and f"{tag}_2_5D" in given) and row["reference value"]:
                    found[name] = (float(row["reference value"]), float(row["tolerance"] or 0))
    return found


def ct_phantom() -> tuple[ImageVolume, LabelMap]:
    """The CT phantom and its lesion."""
    values, grid, _ = read_volume(SHARED / "ct_radiomics_phantom_NC/image.nii.gz")
    mask, mask_grid, _ = read_volume(SHARED / "ct_radiomics_phantom_NC/mask.nii.gz")
    assert mask_grid.matches(grid)
    image = ImageVolume(grid, np.asarray(values, np.float32), "CT", "HU")
    return image, LabelMap(grid, (np.asarray(mask) > 0).astype(np.uint16), organ_table(["lesion"]))


def configuration(name: str) -> tuple[IbsiRow, ...]:
    """Features of the CT phantom by one configuration."""
    file, settings = CONFIGURATIONS[name]
    table = extract_features(*ct_phantom(), settings=settings)
    return compare_with_ibsi({row.feature: row.value for row in table.rows}, reference(SHARED / "reference_values" / file))


def configuration_b_of_pyradiomics() -> tuple[IbsiRow, ...]:
    """Configuration B as pyradiomics alone does it."""
    parameters = {"setting": PYRADIOMICS_B, "imageType": {"Original": {}}, "featureClass": {name: [] for name in CLASSES}}
    table = extract_with_parameters(*ct_phantom(), parameters)
    file = SHARED / "reference_values" / CONFIGURATIONS["B"][0]
    return compare_with_ibsi({row.feature: row.value for row in table.rows}, reference(file))


def describe(title: str, rows: tuple[IbsiRow, ...]) -> str:
    """How many agree, and those that do not."""
    wrong = [row for row in rows if not row.agrees]
    lines = [f"### {title}: {len(rows) - len(wrong)} of {len(rows)} features within the tolerance", ""]
    if wrong:
        lines += ["| IBSI | pyradiomics | reference | tolerance | value | difference |", "|---|---|---|---|---|---|"]
    for row in wrong:
        part = f"{100 * (row.value / row.reference - 1):+.2g} %" if row.reference else f"{row.value:+.3g}"
        lines.append(f"| {row.ibsi} | {row.pyradiomics} | {row.reference:g} | {row.tolerance:g} | {row.value:.4g} | {part} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    parts = [describe("Digital phantom, 3D", check_ibsi())]
    if SHARED.exists():
        parts += [describe(f"CT phantom, configuration {name}, in slices", configuration(name)) for name in CONFIGURATIONS]
        parts.append(describe("The same, configuration B, by pyradiomics' own interpolation", configuration_b_of_pyradiomics()))
        parts.append(
            "pyradiomics takes the mask by nearest neighbour, keeps fractions of HU, and aligns the new grid with a corner of "
            "the image; `synthdose radiomics --ibsi-interpolation` does these three as IBSI asks, and then all values agree."
        )
    else:
        parts.append("The CT phantom is not here (../shared): configurations A and B are left out.")
    write_section(
        "Radiomics: pyradiomics beside IBSI's reference values",
        "python -m Testing.Benchmarks.ibsi",
        "\n".join(parts),
        options.out,
    )
    print("\n".join(parts))


if __name__ == "__main__":
    main()
