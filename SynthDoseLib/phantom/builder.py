"""From a CT and its labels to a computational phantom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import ImageVolume, LabelMap, Material, Organ, SynthDoseError, VoxelPhantom, resample_labels
from SynthDoseLib.physics import get_material

from .body import PADDING_HU, fill_air, find_body
from .calibration import HUCalibration, schneider_calibration
from .expectations import expectation_of
from .metal import find_metal
from .tissues import Override, OverrideValue, parse_override

REST_OF_BODY = "rest_of_body"
MAX_MATERIALS = 255
AIR_LIKE_G_CM3 = 0.05  # air cavities are not rest of the body; lung is, at 0.1 and more
GAS_G_CM3 = 0.5  # what is lighter in a hollow organ of reference density is gas, or partly gas
LEAST_HU_RANGE = 150.0
ABOVE_FAT_HU = -50.0
SAMPLE = 1_000_000
DENSITIES = ("ct", "reference")
CONTRASTS = ("keep", "override")


@dataclass(frozen=True)
class OrganMass:
    """One organ of a phantom: voxels, volume, mass and mean density (0 for an empty organ)."""

    organ: str
    voxels: int
    volume_ml: float
    mass_g: float
    density_g_cm3: float


def build_phantom(
    ct: ImageVolume,
    labels: LabelMap,
    *,
    calibration: HUCalibration | None = None,
    overrides: Mapping[str, OverrideValue] | None = None,
    metal: str | Material | None = None,
    body: NDArray[np.bool_] | None = None,
    density: str = "ct",
    contrast: str = "keep",
) -> VoxelPhantom:
    """Give every voxel of a CT its material, density and organ.

    Parameters
    ----------
    ct : ImageVolume
        CT numbers, HU.
    labels : LabelMap
        Organs; on another grid they are resampled (nearest neighbour) with a note.
    calibration : HUCalibration, optional
        Schneider et al. (2000) if not given.
    overrides : mapping, optional
        Organ name to what it is made of instead: a material (its name or a `Material`; composition and nominal density),
        a density in g/cm3 (composition stays that of the CT), or both: ``{"material": "lung", "density_g_cm3": 0.3}``.
        ``"density_g_cm3": "ct"`` keeps the density of the CT with a given material.
    metal : str or Material, optional
        What metal inside the body is made of (voxels above the calibration's highest knot; see `find_metal`).
    body : ndarray of bool, (nk, nj, ni), optional
        Outline of the patient on the CT's grid; found by `find_body` if not given.
    density : str
        "ct": from the CT numbers. "reference": labelled organs have tissue and density of the reference person (see
        `expectation_of`), what is not labelled those of the CT; gas in hollow organs stays gas.
    contrast : str
        What to do with organs whose mean CT number is above that of the organ without contrast agent: "keep" what the CT
        numbers say (iodine is taken for bone), or "override" them by the reference tissue and density.

    Returns
    -------
    VoxelPhantom
        On the CT's grid. Outside the body is vacuum (density 0): couch, table and the air of the room are left out. Labelled
        voxels always belong to the body. Its labels have ``rest_of_body`` added: every body voxel without a label that is
        not air. Its notes say what was found, changed and left out.

    Raises
    ------
    SynthDoseError
        If the image is not a CT in Hounsfield units, has a single slice, holds numbers that are not finite, an override names
        no organ or material, or there is no body in it.
    CalibrationRangeError
        If there is metal in the body and none is named.
    """
    _require_one_of("density", density, DENSITIES)
    _require_one_of("contrast", contrast, CONTRASTS)
    require_ct(ct)
    curve = schneider_calibration() if calibration is None else calibration
    labels = resample_labels(labels, ct.grid)
    parsed = {name: parse_override(name, value) for name, value in (overrides or {}).items()}
    for name in parsed:
        labels.organ(name)
    metal_material = get_material(metal) if isinstance(metal, str) else metal
    notes = [*labels.notes]

    inside = _body(ct, labels, body, notes)
    here = np.flatnonzero(inside.ravel())
    values = ct.values.ravel()[here]
    metal_voxels = find_metal(ct.grid, here, values, curve, metal_material, notes)
    values = np.minimum(values, curve.highest_hu)

    densities = curve.density(values)
    material = curve.material_number(values)
    air = (material == curve.material_number(curve.lowest_hu)) & (densities < AIR_LIKE_G_CM3)
    palette = list(curve.materials)
    if metal_material is not None:
        densities[metal_voxels] = metal_material.density_g_cm3
        air[metal_voxels] = False
        palette.append(metal_material)
        material[metal_voxels] = len(palette) - 1
    organ_of = labels.labels.ravel()[here]
    reference = _reference_organs(labels, organ_of, values, parsed, density, contrast, notes)
    _apply_reference(reference, labels, organ_of, densities, material, palette, air, metal_voxels)
    _apply_overrides(parsed, labels, organ_of, densities, material, palette, air, notes)
    return assemble(here, densities, material, palette, organ_of, air, labels, notes)


def assemble(
    here: NDArray[np.int64],
    density: NDArray[np.float32],
    material: NDArray[np.uint8],
    palette: Sequence[Material],
    organ_of: NDArray[np.uint16],
    air: NDArray[np.bool_],
    labels: LabelMap,
    notes: Sequence[str],
) -> VoxelPhantom:
    """Put the voxels of the body (`here`, flat) into a phantom; all others are vacuum, the unlabelled ones rest of the body."""
    material, materials = compact_materials(material, density, palette)
    grid = labels.grid
    full_density = np.zeros(grid.size, np.float32)
    full_material = np.zeros(grid.size, np.uint8)
    full_density[here], full_material[here] = density, material
    completed = _with_rest(labels, here[(organ_of == 0) & ~air])
    said = list(notes)
    _note_empty(completed, said)
    return VoxelPhantom(
        grid,
        full_material.reshape(grid.shape),
        full_density.reshape(grid.shape),
        materials,
        completed,
        tuple(dict.fromkeys(said)),
    )


def organ_masses(phantom: VoxelPhantom) -> tuple[OrganMass, ...]:
    """Volume, mass and mean density of every organ of a phantom, in the order of its label table."""
    counts, masses = phantom.labels.voxel_counts(), phantom.mass_g()
    voxel_ml = phantom.grid.voxel_volume_ml
    rows = []
    for organ in phantom.labels.organs:
        volume = counts[organ.name] * voxel_ml
        mass = masses[organ.name]
        rows.append(OrganMass(organ.name, counts[organ.name], volume, mass, mass / volume if volume else 0.0))
    return tuple(rows)


def add_box(
    labels: LabelMap,
    name: str,
    lower_ras_mm: Sequence[float],
    upper_ras_mm: Sequence[float],
    *,
    only_background: bool = False,
) -> LabelMap:
    """Add an organ that is a box along the patient's axes, for example a source region where no organ is outlined.

    Parameters
    ----------
    labels : LabelMap
    name : str
        Of the new organ.
    lower_ras_mm, upper_ras_mm : sequence of 3 float
        Opposite corners, RAS, mm. A voxel belongs to the box if its centre does (lower faces included, upper ones not).
    only_background : bool
        Leave other organs as they are; otherwise the box takes their voxels, which a note says.

    Raises
    ------
    SynthDoseError
        If the name is taken, a corner is not below the other, or no voxel centre lies in the box.
    """
    lower, upper = np.asarray(lower_ras_mm, np.float64), np.asarray(upper_ras_mm, np.float64)
    if any(organ.name == name for organ in labels.organs):
        raise SynthDoseError(f"There is already an organ '{name}'. Give the box another name.")
    if lower.shape != (3,) or upper.shape != (3,) or not (np.isfinite([lower, upper]).all() and (lower < upper).all()):
        raise SynthDoseError(
            f"The box '{name}' needs two corners (x, y, z), RAS mm, the first below the second in each; "
            f"found {list(lower_ras_mm)} and {list(upper_ras_mm)}."
        )
    corners = [[(lower, upper)[bit][axis] for axis, bit in enumerate(bits)] for bits in np.ndindex(2, 2, 2)]
    ijk = labels.grid.to_ijk(corners)
    size = np.asarray(labels.grid.shape[::-1])
    first = np.clip(np.floor(ijk.min(axis=0)), 0, size).astype(int)
    last = np.clip(np.ceil(ijk.max(axis=0)) + 1, 0, size).astype(int)
    window = tuple(slice(int(a), int(b)) for a, b in zip(first[::-1], last[::-1], strict=True))
    kji = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in window), indexing="ij"), axis=-1)
    ras = labels.grid.to_ras(kji[..., ::-1])
    chosen = ((ras >= lower - 1e-6) & (ras < upper - 1e-6)).all(axis=-1)
    if not chosen.any():
        ends = labels.grid.to_ras([(0, 0, 0), tuple(size - 1)])
        raise SynthDoseError(
            f"No voxel centre lies in the box '{name}' from {lower.tolist()} to {upper.tolist()} RAS mm. The image reaches "
            f"from {ends.min(axis=0).round(1).tolist()} to {ends.max(axis=0).round(1).tolist()}."
        )
    values = np.array(labels.labels)
    part = values[window]
    if only_background:
        chosen &= part == 0
    taken = int(((part != 0) & chosen).sum())
    index = max((organ.index for organ in labels.organs), default=0) + 1
    part[chosen] = index
    note = f"'{name}' is a box of {int(chosen.sum())} voxels from {lower.tolist()} to {upper.tolist()} RAS mm"
    note += f"; it takes {taken} voxels from other labels." if taken else "."
    return LabelMap(labels.grid, values, (*labels.organs, Organ(index, name)), (*labels.notes, note))


def require_ct(ct: ImageVolume) -> None:
    """Raise `SynthDoseError` unless an image can be one in Hounsfield units of a volume."""
    if ct.modality not in ("", "CT") or ct.unit not in ("", "HU"):
        raise SynthDoseError(
            f"A phantom is built from CT numbers; this image is of modality '{ct.modality}' in '{ct.unit}'. Give a CT, or have "
            'tissues assigned by label ([phantom] materials = "labels").'
        )
    if min(ct.grid.shape) < 2:
        raise SynthDoseError(
            f"The image has {' x '.join(str(n) for n in ct.grid.shape[::-1])} voxels: a single slice is no volume to transport "
            "radiation in. Give the whole series."
        )
    bad = int(ct.grid.size - np.isfinite(ct.values).sum())
    if bad:
        raise SynthDoseError(f"{bad} voxels of the CT are not finite numbers. Repair the image first.")
    lowest, highest = float(ct.values.min()), float(ct.values.max())
    if lowest == highest:
        return
    remedy = "Add a rescale ([image] hu_offset), or give the CT as the scanner wrote it."
    if highest - lowest < LEAST_HU_RANGE:
        raise SynthDoseError(
            f"The values of the image lie between {lowest:g} and {highest:g}, too close together for Hounsfield units: from "
            f"air to tissue there are 1000. {remedy}"
        )
    some = ct.values.ravel()[:: max(1, ct.grid.size // SAMPLE)]
    negative = float(np.mean((some > PADDING_HU) & (some < ABOVE_FAT_HU)))
    watery = float(np.mean((some > 700) & (some < 1300)))
    if lowest >= 0 or negative < 0.001 or (watery > 0.15 and negative < 0.05):
        guess = (
            "many of them are around 1000, where water is if 1000 or 1024 has been added: hu_offset = -1000 or -1024."
            if watery > 0.15
            else 'an MR image has its tissues assigned by label ([phantom] materials = "labels").'
        )
        share = "no value is below 0" if lowest >= 0 else f"{negative:.2%} of the values are below {ABOVE_FAT_HU:g}"
        raise SynthDoseError(
            f"The image is not in Hounsfield units: {share} (they reach from {lowest:g} to {highest:g}), but air "
            f"and fat are negative. {remedy} Here {guess}"
        )
    around = float(np.median(np.concatenate([ct.values[:, :, 0], ct.values[:, :, -1]])))
    if around > 500 and float(np.mean((some > PADDING_HU) & (some < -700))) < 0.01:
        raise SynthDoseError(
            f"The image is not in Hounsfield units: its border has {around:g} HU, where a CT has the air of the room "
            f"(-1000 HU); the values may have been turned round. {remedy}"
        )


def _require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SynthDoseError(f"{name} is '{value}'. Allowed: {', '.join(allowed)}.")


def _body(ct: ImageVolume, labels: LabelMap, body: NDArray[np.bool_] | None, notes: list[str]) -> NDArray[np.bool_]:
    if body is None:
        inside = find_body(ct)
        left_out = int(((ct.values > -300) & ~inside).sum()) * ct.grid.voxel_volume_ml
        notes.append(
            "The body is the largest connected part above -300 HU with the air it encloses; all outside it is vacuum"
            + (f" (couch, table and the like: {left_out:.0f} ml above -300 HU left out)." if left_out >= 0.5 else ".")
        )
    else:
        inside = np.asarray(body, dtype=bool)
        if inside.shape != ct.grid.shape:
            raise SynthDoseError(f"The body outline has shape {inside.shape}, the CT has {ct.grid.shape}.")
        if not inside.any():
            raise SynthDoseError("The body outline is empty. Give another one, or none to have the body found in the CT.")
        notes.append("The body is the given outline; all outside it is vacuum.")
    outside = np.asarray(labels.labels != 0) & ~inside
    if outside.any():
        names = {organ.index: organ.name for organ in labels.organs}
        counts = np.bincount(labels.labels[outside])
        listed = ", ".join(f"{names[int(n)]} {counts[n]}" for n in np.argsort(-counts, kind="stable")[:5] if counts[n])
        notes.append(f"{int(outside.sum())} labelled voxels outside the body outline were taken into the body ({listed}).")
        inside = inside | outside
        if body is None:
            inside = fill_air(inside, ct.grid)  # pockets between the outline and the labels around it
    return inside


def _reference_organs(
    labels: LabelMap,
    organ_of: NDArray[np.uint16],
    values: NDArray[np.float32],
    overrides: Mapping[str, Override],
    density: str,
    contrast: str,
    notes: list[str],
) -> list[Organ]:
    """Organs that get the tissue and density of the reference person: all that are known, or those with contrast agent."""
    counts = np.bincount(organ_of, minlength=max((o.index for o in labels.organs), default=0) + 1)
    sums = np.bincount(organ_of, weights=values, minlength=counts.size)
    chosen, unknown, enhanced = [], [], []
    for organ in labels.organs:
        if organ.name in overrides or not counts[organ.index] or organ.name == REST_OF_BODY:
            continue
        expected = expectation_of(organ.name)
        if expected is None:
            unknown.append(organ.name)
        elif density == "reference":
            chosen.append(organ)
        elif contrast == "override" and (mean := sums[organ.index] / counts[organ.index]) > expected.hu_high:
            chosen.append(organ)
            enhanced.append(f"{organ.name} {mean:.0f} HU")
    if density == "reference":
        notes.append(
            f"{len(chosen)} labelled organs have tissue and density of the reference person (ICRP 110), the rest of the CT"
            + (f"; no reference is known for {', '.join(unknown)}." if unknown else ".")
        )
    if enhanced:
        notes.append(f"Organs with contrast agent have their reference tissue and density: {', '.join(enhanced)}.")
    return chosen


def _apply_reference(
    organs: Sequence[Organ],
    labels: LabelMap,
    organ_of: NDArray[np.uint16],
    density: NDArray[np.float32],
    material: NDArray[np.uint8],
    palette: list[Material],
    air: NDArray[np.bool_],
    untouched: NDArray[np.bool_],
) -> None:
    for organ in organs:
        expected = expectation_of(organ.name)
        assert expected is not None
        voxels = (organ_of == organ.index) & ~untouched
        if not expected.solid and expected.material.density_g_cm3 > GAS_G_CM3:
            voxels &= density > GAS_G_CM3
        number = add_material(palette, expected.material)
        density[voxels], material[voxels] = expected.material.density_g_cm3, number
        air[voxels] = False


def add_material(palette: list[Material], wanted: Material) -> int:
    """Place of a material in the palette; it is added if it is not there.

    Raises
    ------
    SynthDoseError
        If there are too many.
    """
    for number, known in enumerate(palette):
        if known.name == wanted.name and known.mass_fractions == wanted.mass_fractions:
            return number
    if len(palette) >= MAX_MATERIALS:
        raise SynthDoseError(f"A phantom can have {MAX_MATERIALS} materials; use fewer overrides.")
    palette.append(wanted)
    return len(palette) - 1


def _apply_overrides(
    overrides: Mapping[str, Override],
    labels: LabelMap,
    organ_of: NDArray[np.uint16],
    density: NDArray[np.float32],
    material: NDArray[np.uint8],
    palette: list[Material],
    air: NDArray[np.bool_],
    notes: list[str],
) -> None:
    for name, override in overrides.items():
        voxels = organ_of == labels.organ(name).index
        if override.density_g_cm3 is not None:
            density[voxels] = override.density_g_cm3
        if override.material is not None:
            material[voxels] = add_material(palette, override.material)
        air[voxels] = False
        notes.append(f"{name} ({int(voxels.sum())} voxels): {override.describe()}.")


def compact_materials(
    material: NDArray[np.uint8], density: NDArray[np.float32], palette: Sequence[Material]
) -> tuple[NDArray[np.uint8], tuple[Material, ...]]:
    """Keep the materials in use, once per composition, each with the mean density of its voxels."""
    counts = np.bincount(material, minlength=len(palette))
    sums = np.bincount(material, weights=density, minlength=len(palette))
    place = np.zeros(len(palette), np.uint8)
    kept: dict[tuple[tuple[str, float], ...], int] = {}
    names: list[Material] = []
    totals: list[tuple[float, float]] = []
    for number in np.flatnonzero(counts).tolist():
        composition = tuple(sorted((s, round(f, 6)) for s, f in palette[number].mass_fractions.items()))
        if composition not in kept:
            kept[composition] = len(names)
            names.append(palette[number])
            totals.append((0.0, 0.0))
        here = kept[composition]
        place[number] = here
        totals[here] = (totals[here][0] + sums[number], totals[here][1] + counts[number])
    # the density effect of electrons needs a density per material: the mean of its voxels
    materials = tuple(
        replace(entry, density_g_cm3=max(total / count, 1e-6)) for entry, (total, count) in zip(names, totals, strict=True)
    )
    return place[material], materials


def _with_rest(labels: LabelMap, voxels: NDArray[np.int64]) -> LabelMap:
    """Add `rest_of_body` to a label map."""
    organs = labels.organs
    known = {organ.name: organ.index for organ in organs}
    if REST_OF_BODY not in known:
        index = max(known.values(), default=0) + 1
        organs = (*organs, Organ(index, REST_OF_BODY, colour=(0.85, 0.75, 0.65)))
        known[REST_OF_BODY] = index
    values = np.array(labels.labels).ravel()
    values[voxels] = known[REST_OF_BODY]
    return LabelMap(labels.grid, values.reshape(labels.grid.shape), organs, labels.notes)


def _note_empty(labels: LabelMap, notes: list[str]) -> None:
    empty = [name for name, count in labels.voxel_counts().items() if count == 0]
    if empty:
        notes.append(f"Organs without a voxel: {', '.join(empty)}.")
