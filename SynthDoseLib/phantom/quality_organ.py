"""Checks of single organs: mass, density, CT number, holes, islands, resolution, cut by the border of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, Organ, VoxelGrid, VoxelPhantom

from .body import PADDING_HU
from .builder import REST_OF_BODY
from .expectations import PatientFacts, expectation_of, expected_mass_g
from .quality_values import FAIL, NOTE, WARNING, Finding, MeasuredOrgan, place

FEW_VOXELS = 50
MANY = 8
AIRY_HU = -300.0
ISLAND_ML, ISLAND_VOXELS, ISLAND_SHARE = 0.5, 8, 0.01  # fewer voxels come off an organ where its edge is drawn in voxels
HOLE_ML, HOLE_SHARE = 0.3, 0.01
GRAVE_SHARE = 0.2
GRAVE_MASS = 2.5
CT_MARGIN_HU = 150.0
DENSITY_MARGIN, GRAVE_DENSITY_MARGIN = 0.12, 0.3
CONTRAST_DENSITY = 0.04


def measure_organ(phantom: VoxelPhantom, organ: Organ, box: tuple[slice, ...] | None, ct: ImageVolume | None) -> MeasuredOrgan:
    """Measure one organ inside its bounding box (None for an organ without voxels)."""
    expectation = expectation_of(organ.name)
    if box is None:
        return MeasuredOrgan(organ.name, expectation, 0)
    grid, part = phantom.grid, phantom.labels.labels[box]
    mask = part == organ.index
    voxels = int(np.count_nonzero(mask))
    densities = phantom.density_g_cm3[box][mask].astype(np.float64)
    volume = voxels * grid.voxel_volume_ml
    mass = float(densities.sum()) * grid.voxel_volume_ml
    numbers: dict[str, Any] = {}
    if ct is not None:
        values = ct.values[box][mask].astype(np.float64)
        numbers = {
            "mean_HU": float(values.mean()),
            "sd_HU": float(values.std()),
            "airy_share": float(np.mean(values < AIRY_HU)),
        }
    corner = np.array([s.start for s in box])
    centre = _centre(mask, corner, grid)
    if organ.name == REST_OF_BODY:
        pieces: dict[str, Any] = {"piece_voxels": (voxels,)}
    else:
        rest = next((o.index for o in phantom.labels.organs if o.name == REST_OF_BODY), 0)
        pieces = {**_pieces(mask, corner, grid, centre), **_holes(mask, (part == 0) | (part == rest), corner, grid)}
    return MeasuredOrgan(
        organ.name,
        expectation,
        voxels,
        volume,
        mass,
        mass / volume,
        density_is_uniform=bool(np.ptp(densities) == 0),
        centre_ras_mm=centre,
        cut=_cut(box, mask, grid, ct),
        **pieces,
        **numbers,
    )


def _centre(mask: NDArray[np.bool_], corner: NDArray[np.int64], grid: VoxelGrid) -> NDArray[np.float64]:
    kji = np.array([float(np.mean(axis)) for axis in np.nonzero(mask)]) + corner
    return grid.to_ras(kji[::-1])


def _pieces(mask: NDArray[np.bool_], corner: NDArray[np.int64], grid: VoxelGrid, centre: NDArray[np.float64]) -> dict[str, Any]:
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    if count < 2:
        return {"piece_voxels": tuple(sizes.tolist())}
    island = _centre(parts == order[1] + 1, corner, grid)
    return {
        "piece_voxels": tuple(sizes[order].tolist()),
        "island_ras_mm": island,
        "island_distance_mm": float(np.linalg.norm(island - centre)),
    }


def _holes(
    mask: NDArray[np.bool_], unlabelled: NDArray[np.bool_], corner: NDArray[np.int64], grid: VoxelGrid
) -> dict[str, Any]:
    """Cavities that are enclosed in three dimensions; those that are another organ (a tumour) are none."""
    empty = np.pad(~mask, 1, constant_values=True)
    parts, count = ndimage.label(empty)
    if count < 2:
        return {}
    parts = parts[1:-1, 1:-1, 1:-1]
    sizes = np.bincount(parts[unlabelled], minlength=count + 1)
    sizes[[0, 1]] = 0  # the first part found is the outside, because the padding comes first
    order = [int(n) for n in np.argsort(-sizes, kind="stable") if sizes[n]]
    if not order:
        return {}
    return {
        "hole_voxels": tuple(int(sizes[n]) for n in order),
        "hole_ras_mm": _centre((parts == order[0]) & unlabelled, corner, grid),
    }


def face_letters(grid: VoxelGrid) -> tuple[tuple[str, str], ...]:
    """Side of the patient that lies at the first and last index of each array axis (k, j, i).

    Examples
    --------
    >>> face_letters(VoxelGrid.from_spacing((2, 2, 2), (1.0, 1.0, 1.0)))
    (('I', 'S'), ('P', 'A'), ('L', 'R'))
    """
    result = []
    for column in (2, 1, 0):
        direction = grid.directions[:, column]
        axis = int(np.abs(direction).argmax())
        letters = (("L", "R"), ("P", "A"), ("I", "S"))[axis]
        result.append(letters if direction[axis] > 0 else letters[::-1])
    return tuple(result)


def _cut(box: tuple[slice, ...], mask: NDArray[np.bool_], grid: VoxelGrid, ct: ImageVolume | None) -> tuple[str, ...]:
    touched = []
    for (first, last), span, size in zip(face_letters(grid), box, grid.shape, strict=True):
        touched += [first] if span.start == 0 and size > 1 else []
        touched += [last] if span.stop == size and size > 1 else []
    if ct is not None:
        wider = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, grid.shape, strict=True))
        unseen = ct.values[wider] < PADDING_HU
        if unseen.any():
            grown = np.zeros(unseen.shape, bool)
            grown[tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wider, strict=True))] = mask
            if (ndimage.binary_dilation(grown) & unseen).any():
                touched.append("unseen")
    return tuple(touched)


def check_organ(row: MeasuredOrgan, person: PatientFacts) -> list[Finding]:
    """Everything that can be said about one organ alone."""
    if not row.voxels:
        return [
            Finding(
                WARNING, "missing", row.name, "listed, but without a voxel", "one voxel or more",
                "Segment it again, or take it off the label table; its dose cannot be given.",
            )
        ]  # fmt: skip
    found = _check_field_of_view(row) + _check_size(row) + _check_mass(row, person)
    found += _check_islands(row) + _check_holes(row)
    about_numbers = _check_ct_number(row)
    return found + (about_numbers or _check_density(row))


def _check_field_of_view(row: MeasuredOrgan) -> list[Finding]:
    if not row.cut or row.expectation is None or not row.expectation.compact:
        return []
    sides = ", ".join(row.cut)
    return [
        Finding(
            WARNING, "field of view", row.name, f"cut by the border of the image ({sides})", "all of it inside",
            "Its mass and mean dose are those of the part that is shown.",
        )
    ]  # fmt: skip


def _check_size(row: MeasuredOrgan) -> list[Finding]:
    if row.voxels >= FEW_VOXELS:
        return []
    return [
        Finding(
            NOTE, "size", row.name, f"only {row.voxels} voxel{'s' if row.voxels > 1 else ''}", f"{FEW_VOXELS} or more",
            "Use smaller voxels if its dose matters.",
        )
    ]  # fmt: skip


def _short(value: float) -> str:
    """Three digits, never as a power of ten."""
    return f"{float(f'{value:.3g}'):g}"


def _check_mass(row: MeasuredOrgan, person: PatientFacts) -> list[Finding]:
    expected = expected_mass_g(row.name, person)
    if expected is None or row.cut or expected.low_g <= row.mass_g <= expected.high_g:
        return []
    grave = not expected.low_g / GRAVE_MASS <= row.mass_g <= expected.high_g * GRAVE_MASS
    return [
        Finding(
            FAIL if grave else WARNING,
            "mass",
            row.name,
            f"{_short(row.mass_g)} g in {_short(row.volume_ml)} ml",
            f"{_short(expected.low_g)} to {_short(expected.high_g)} g (reference {_short(expected.reference_g)} g)",
            "Look at its outline, the voxel size, and the sex, age and height that it is compared with.",
        )
    ]


def _check_islands(row: MeasuredOrgan) -> list[Finding]:
    if row.expectation is None or row.expectation.pieces == 0 or len(row.piece_voxels) <= row.expectation.pieces:
        return []
    islands = row.piece_voxels[row.expectation.pieces :]
    volume = sum(islands) / row.voxels * row.volume_ml
    share = sum(islands) / row.voxels
    serious = share > ISLAND_SHARE or (volume > ISLAND_ML and sum(islands) > ISLAND_VOXELS)
    severity = FAIL if share > GRAVE_SHARE else WARNING if serious else NOTE
    action = "Delete what does not belong to it."
    if not row.expectation.compact:
        severity = NOTE
        action = "Thin organs break where voxels are as wide as they are, bones where the image ends; look at the rest."
    where = ""
    if row.island_ras_mm is not None and row.expectation.pieces == 1:
        where = f", the largest around {place(row.island_ras_mm)}, {row.island_distance_mm:.0f} mm from the middle"
    return [
        Finding(
            severity,
            "island",
            row.name,
            f"{len(islands)} separate part{'s' if len(islands) > 1 else ''} of {volume:.2g} ml together ({share:.1%}){where}",
            f"{row.expectation.pieces} connected part{'s' if row.expectation.pieces > 1 else ''}",
            action,
        )
    ]


def _check_holes(row: MeasuredOrgan) -> list[Finding]:
    if row.expectation is None or not row.hole_voxels:
        return []
    volume = sum(row.hole_voxels) / row.voxels * row.volume_ml
    share = sum(row.hole_voxels) / row.voxels
    serious = row.expectation.solid and (volume > HOLE_ML or share > HOLE_SHARE)
    severity = NOTE if not serious else FAIL if share > GRAVE_SHARE else WARNING
    if not row.expectation.solid and share < GRAVE_SHARE:
        return []  # marrow, gas and vessels are left out of bones, bowel and lungs by many segmenters
    where = f", the largest around {place(row.hole_ras_mm)}" if row.hole_ras_mm is not None else ""
    count = len(row.hole_voxels)
    return [
        Finding(
            severity,
            "hole",
            row.name,
            f"{count} unlabelled cavit{'ies' if count > 1 else 'y'} of {volume:.2g} ml together ({share:.1%}){where}",
            "none",
            "Fill what belongs to the organ, or label what it is.",
        )
    ]


def _check_ct_number(row: MeasuredOrgan) -> list[Finding]:
    expected = row.expectation
    if expected is None or row.mean_HU is None or row.airy_share is None:
        return []
    found = []
    if not expected.hu_low <= row.mean_HU <= expected.hu_contrast:
        beyond = max(expected.hu_low - row.mean_HU, row.mean_HU - expected.hu_contrast)
        found.append(
            Finding(
                FAIL if beyond > CT_MARGIN_HU else WARNING,
                "ct number",
                row.name,
                f"mean of {row.mean_HU:.0f} HU",
                f"{expected.hu_low:.0f} to {expected.hu_high:.0f} HU (to {expected.hu_contrast:.0f} with contrast agent)",
                "Check that the labels lie on the organ, what the label means, and that the image is in HU.",
            )
        )
    elif row.mean_HU > expected.hu_high:
        excess = row.density_g_cm3 / expected.material.density_g_cm3 - 1
        harmless = row.density_is_uniform or abs(excess) <= CONTRAST_DENSITY
        found.append(
            Finding(
                NOTE if harmless else WARNING,
                "ct number",
                row.name,
                f"mean of {row.mean_HU:.0f} HU: contrast agent; its density is {round(100 * excess):+d} % off the reference",
                f"up to {expected.hu_high:.0f} HU without contrast agent",
                "" if harmless else "Give it its reference tissue: [phantom] contrast = \"override\".",
            )
        )  # fmt: skip
    if expected.solid and row.airy_share > 0.02:
        found.append(
            Finding(
                FAIL if row.airy_share > GRAVE_SHARE else WARNING,
                "ct number",
                row.name,
                f"{row.airy_share:.0%} of its voxels are below {AIRY_HU:.0f} HU",
                "no air or lung inside it",
                "The label reaches beyond the organ, or image and labels do not lie on each other.",
            )
        )
    return found


def _check_density(row: MeasuredOrgan) -> list[Finding]:
    expected = row.expectation
    if expected is None or not expected.solid:
        return []
    off = row.density_g_cm3 / expected.material.density_g_cm3 - 1
    if abs(off) <= DENSITY_MARGIN:
        return []
    return [
        Finding(
            FAIL if abs(off) > GRAVE_DENSITY_MARGIN else WARNING,
            "density",
            row.name,
            f"{row.density_g_cm3:.3g} g/cm3, {100 * off:+.0f} %",
            f"{expected.material.density_g_cm3:.3g} g/cm3 within {DENSITY_MARGIN:.0%}",
            "Check calibration and overrides.",
        )
    ]


def check_long_organs(organs: Sequence[MeasuredOrgan]) -> list[Finding]:
    """Bones, vessels and muscles that leave the image, in one note: most images show parts of them only."""
    cut = [row.name for row in organs if row.cut and (row.expectation is None or not row.expectation.compact)]
    if not cut:
        return []
    listed = ", ".join(cut[:MANY]) + (f" and {len(cut) - MANY} more" if len(cut) > MANY else "")
    return [
        Finding(
            NOTE,
            "field of view",
            "",
            f"long or unknown organs leave the image: {listed}",
            "",
            "Their masses and mean doses are those of the parts that are shown.",
        )
    ]


def check_total_mass(phantom: VoxelPhantom, person: PatientFacts) -> list[Finding]:
    """The phantom must not weigh more than the patient."""
    if person.weight_kg is None:
        return []
    mass_kg = float(phantom.density_g_cm3.sum(dtype=np.float64)) * phantom.grid.voxel_volume_ml / 1000
    if mass_kg <= 1.1 * person.weight_kg:
        return []
    return [
        Finding(
            WARNING if mass_kg <= 1.5 * person.weight_kg else FAIL,
            "scale",
            "",
            f"the phantom weighs {mass_kg:.1f} kg",
            f"not more than the patient, {person.weight_kg:.1f} kg",
            "Check the voxel size, and that couch and mattress are left out.",
        )
    ]
