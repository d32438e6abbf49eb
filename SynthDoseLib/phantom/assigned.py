"""Phantoms without CT numbers: every label has a tissue, for MR images and for label maps alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import ImageVolume, LabelMap, Material, SynthDoseError, VoxelPhantom, resample_labels
from SynthDoseLib.physics import get_material

from .body import fill_air, largest_parts
from .builder import MAX_MATERIALS, REST_OF_BODY, add_material, assemble
from .expectations import expectation_of
from .tissues import OverrideValue, parse_override

UNLABELLED_TISSUE = "soft_tissue"
WHOLE_BODY_NAMES = ("body", REST_OF_BODY)
_THRESHOLD_BINS = 256


def assign_tissues(
    labels: LabelMap,
    *,
    image: ImageVolume | None = None,
    overrides: Mapping[str, OverrideValue] | None = None,
    body: NDArray[np.bool_] | None = None,
) -> VoxelPhantom:
    """Give every label the tissue and density of the reference person, for images whose values are no CT numbers.

    Parameters
    ----------
    labels : LabelMap
        Organs with names that `expectation_of` knows, or that `overrides` tells the tissue of.
    image : ImageVolume, optional
        MR or any other image that shows the body: its outline is found in it, and labels are brought to its grid.
    overrides : mapping, optional
        As for `build_phantom`; a material, or a density on top of the reference tissue.
    body : ndarray of bool, (nk, nj, ni), optional
        Outline of the patient; otherwise from `image`, otherwise the labels and what they enclose in axial slices.

    Returns
    -------
    VoxelPhantom
        On the grid of `image`, otherwise of `labels`. Voxels of the body without a label are soft tissue of 1 g/cm3 and
        belong to ``rest_of_body``; outside is vacuum.

    Raises
    ------
    SynthDoseError
        If the tissue of a label is not known, the image is a single slice or has no contrast between body and surroundings.
    """
    grid = labels.grid if image is None else image.grid
    if min(grid.shape) < 2:
        raise SynthDoseError(
            f"The image has {' x '.join(str(n) for n in grid.shape[::-1])} voxels: a single slice is no volume to transport "
            "radiation in. Give the whole series."
        )
    labels = resample_labels(labels, grid)
    notes = [*labels.notes, "Every label has tissue and density of the reference person (ICRP 110): no CT numbers were used."]
    inside = _outline(labels, image, body, notes) | np.asarray(labels.labels != 0)
    here = np.flatnonzero(inside.ravel())
    organ_of = labels.labels.ravel()[here]
    palette = [get_material(UNLABELLED_TISSUE)]
    density = np.full(here.size, palette[0].density_g_cm3, np.float32)
    material = np.zeros(here.size, np.uint8)
    for name, tissue in _tissues(labels, overrides or {}, notes).items():
        voxels = organ_of == labels.organ(name).index
        density[voxels] = tissue.density_g_cm3
        material[voxels] = add_material(palette, tissue)
    notes.append(
        f"{int((organ_of == 0).sum())} unlabelled voxels of the body are soft tissue of {palette[0].density_g_cm3:g} g/cm3."
    )
    return assemble(here, density, material, palette, organ_of, np.zeros(here.size, bool), labels, notes)


def _tissues(labels: LabelMap, overrides: Mapping[str, OverrideValue], notes: list[str]) -> dict[str, Material]:
    """Tissue of every organ with voxels."""
    result, unknown = {}, []
    for name in overrides:
        labels.organ(name)
    counts = labels.voxel_counts()
    for organ in labels.organs:
        expected = expectation_of(organ.name)
        if organ.name in overrides:
            override = parse_override(organ.name, overrides[organ.name])
            base = override.material or (expected.material if expected else None)
            if base is None:
                raise SynthDoseError(
                    f"The override of '{organ.name}' needs a material: without CT numbers a density alone does not say what it "
                    "is made of."
                )
            given = override.density_g_cm3
            result[organ.name] = base if given is None else replace(base, density_g_cm3=given)
            notes.append(f"{organ.name}: {base.name}, {result[organ.name].density_g_cm3:g} g/cm3 (override).")
        elif expected is not None:
            result[organ.name] = expected.material
        elif organ.name in WHOLE_BODY_NAMES:
            result[organ.name] = get_material(UNLABELLED_TISSUE)
        elif counts[organ.name]:
            unknown.append(organ.name)
    if unknown:
        raise SynthDoseError(
            f"No tissue is known for {', '.join(unknown)}. Name it: [phantom.overrides.{unknown[0]}] material = "
            f'"soft_tissue" '
            f"(or --override {unknown[0]}=soft_tissue), or give the label table that belongs to the map."
        )
    if len({tissue.name for tissue in result.values()}) >= MAX_MATERIALS:
        raise SynthDoseError(f"A phantom can have {MAX_MATERIALS} materials; join labels of one tissue.")
    return result


def _outline(
    labels: LabelMap, image: ImageVolume | None, body: NDArray[np.bool_] | None, notes: list[str]
) -> NDArray[np.bool_]:
    if body is not None:
        inside = np.asarray(body, bool)
        if inside.shape != labels.grid.shape or not inside.any():
            raise SynthDoseError(f"The body outline needs the shape {labels.grid.shape} and a voxel; found {inside.shape}.")
        notes.append("The body is the given outline; all outside it is vacuum.")
        return inside
    if image is not None:
        threshold = _between_air_and_tissue(image)
        notes.append(f"The body is what is brighter than {threshold:.4g} in the image, with what it encloses in axial slices.")
        return fill_air(largest_parts(np.asarray(image.values > threshold), labels.grid), labels.grid)
    notes.append("The body is what is labelled, with what the labels enclose in axial slices; all outside it is vacuum.")
    return fill_air(np.asarray(labels.labels != 0), labels.grid)


def _between_air_and_tissue(image: ImageVolume) -> float:
    """Threshold of Otsu (1979) on the square roots of the values, which draws bright fat and dark muscle together."""
    if not np.isfinite(image.values).all():
        raise SynthDoseError("The image holds values that are not finite numbers. Repair the image first.")
    lowest, highest = (float(x) for x in np.quantile(image.values, (0.001, 0.999)))
    if highest <= lowest:
        raise SynthDoseError("The image has one value everywhere: it shows no body. Give its outline, or the labels alone.")
    roots = np.sqrt(np.clip((image.values.ravel() - lowest) / (highest - lowest), 0, 1))
    counts, edges = np.histogram(roots, bins=_THRESHOLD_BINS, range=(0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    root = float(edges[1 + int(np.nanargmax(apart))])
    return lowest + root**2 * (highest - lowest)
