"""Checks of organs against each other and of the body: sides, order, missing organs, overlaps, holes, truncation, arms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, VoxelPhantom

from .body import PADDING_HU
from .expectations import MEMBERS, expectation_of, side_of
from .quality_organ import MANY, face_letters
from .quality_values import FAIL, NOTE, WARNING, Finding, MeasuredOrgan

SIDE_MARGIN_MM = 5.0
MIDLINE_MARGIN_MM = 20.0
PART_SHARE = 0.05
LEVEL_STEP = 4.0  # per cent of the stature that two organs have to differ by to have an order
RIGHT_OF_LEFT = (("liver", "spleen"), ("liver", "stomach"), ("gallbladder", "spleen"), ("inferior_vena_cava", "aorta"))
FRONT = ("liver", "heart", "stomach", "urinary_bladder", "sternum")
BACK = ("spinal_cord", "vertebrae", "sacrum")
CORE = (
    "brain", "thyroid_gland", "lung_right", "lung_left", "heart", "liver", "spleen", "stomach", "pancreas", "kidney_right",
    "kidney_left", "urinary_bladder",
)  # fmt: skip
"""Organs that a whole segmentation has."""
STAND_INS = {"kidney_right": ("kidneys",), "kidney_left": ("kidneys",), "lung_right": ("lungs",), "lung_left": ("lungs",)}
WHOLE_SEGMENTATION = 0.6  # share of the organs in view from which a missing one is a fault and not a choice
OVERLAP_ML = 1.0
SHORT_MM = 50.0  # half of a mean free path of 511 keV in water, 104 mm
ENCLOSING = ("body", "skin", "external", "patient", "rest", "tumour", "tumor", "lesion", "gtv", "ctv", "ptv")
_SPLIT = re.compile(r"An organ is split over two labels: (.*) in brackets")
_SPLIT_LABEL = re.compile(r"([^,].*?) \((\w+)\)(?:, |$)")
_SHARED = re.compile(r"'(.*)' and '(.*)' share (\d+) voxels \(([\d.e+-]+) ml\)")
_ARM_CM2 = (6.0, 0.3)  # least area, and greatest share of the trunk's
_ARM_SLICES = 3


def check_sides(organs: Sequence[MeasuredOrgan], phantom: VoxelPhantom) -> list[Finding]:
    """Left and right: partners, organs of one side, and a whole image that is mirrored."""
    by_name = {row.name: row for row in organs if row.centre_ras_mm is not None}
    swapped, pairs = [], 0
    for name, row in by_name.items():
        if side_of(name) != "right":
            continue
        partner = by_name.get("_".join("left" if word == "right" else word for word in name.split("_")))
        if partner is None:
            continue
        pairs += 1
        if _x(row) < _x(partner) - SIDE_MARGIN_MM:
            swapped.append((name, partner.name))
    known = [(a, b) for a, b in RIGHT_OF_LEFT if a in by_name and b in by_name]
    mirrored = [(a, b) for a, b in known if _x(by_name[a]) < _x(by_name[b]) - SIDE_MARGIN_MM]
    if mirrored and len(mirrored) > len(known) / 2:
        listed = ", ".join(f"{a} left of {b}" for a, b in mirrored)
        return [
            Finding(
                FAIL, "side", "", f"{listed}{f'; {len(swapped)} of {pairs} pairs have their sides swapped' if pairs else ''}",
                "the liver on the right, spleen and stomach on the left",
                "The image is mirrored (check its orientation), unless the patient has situs inversus.",
            )
        ]  # fmt: skip
    found = [
        Finding(
            FAIL, "side", right, f"{right} lies left of {left}", "right organs on the patient's right",
            "Swap the two labels, or the orientation of the label map.",
        )
        for right, left in swapped
    ]  # fmt: skip
    middle = _middle(phantom)
    return found if middle is None else found + _check_single_sides(by_name, middle) + _check_parts_sides(by_name, middle)


def _middle(phantom: VoxelPhantom) -> float | None:
    """x (RAS) half-way between the right and left side of the body, mm; None if no axis of the image goes there."""
    axis = next((axis for axis, letters in enumerate(face_letters(phantom.grid)) if "R" in letters), None)
    if axis is None:
        return None
    used = np.flatnonzero((phantom.density_g_cm3 > 0).any(axis=tuple(n for n in range(3) if n != axis)))
    if not used.size:
        return None
    kji = (np.asarray(phantom.grid.shape) - 1) / 2
    kji[axis] = (used[0] + used[-1]) / 2
    return float(phantom.grid.to_ras(kji[::-1])[0])


def _wrong_side_mm(name: str, x: float, middle: float) -> float:
    """How far a place lies on the other side than an organ's name says, mm; negative on its own side."""
    return (x - middle) if side_of(name) == "left" else (middle - x)


def _check_parts_sides(by_name: dict[str, MeasuredOrgan], middle: float) -> list[Finding]:
    """Sided organs with a part on the other side: a lobe or a half that was given the wrong label."""
    found = []
    for name, row in by_name.items():
        if not side_of(name) or row.island_ras_mm is None:
            continue
        share, x = row.piece_voxels[1] / row.voxels, float(row.island_ras_mm[0])
        if share > PART_SHARE and _wrong_side_mm(name, x, middle) > MIDLINE_MARGIN_MM > _wrong_side_mm(name, _x(row), middle):
            found.append(
                Finding(
                    WARNING, "side", name, f"a part of {share * row.volume_ml:.0f} ml ({share:.0%}) lies on the other side",
                    f"all of it on the {side_of(name)}", "Give that part the label that it belongs to.",
                )
            )  # fmt: skip
    return found


def _check_single_sides(by_name: dict[str, MeasuredOrgan], middle: float) -> list[Finding]:
    """Sided organs without a partner, against the middle of the body."""
    single = []
    for name in by_name:
        side = side_of(name)
        other = "left" if side == "right" else "right"
        if side and "_".join(other if word == side else word for word in name.split("_")) not in by_name:
            single.append(name)
    found = []
    for name in single:
        wrong_mm = _wrong_side_mm(name, _x(by_name[name]), middle)
        expected = expectation_of(name)
        if expected is None or not expected.solid:
            continue
        if wrong_mm > MIDLINE_MARGIN_MM:
            found.append(
                Finding(
                    WARNING, "side", name, f"lies {wrong_mm:.0f} mm on the other side of the body's middle",
                    f"on the {side_of(name)}", "Check the side of the label and the orientation of the image.",
                )
            )  # fmt: skip
    return found


def _x(row: MeasuredOrgan) -> float:
    assert row.centre_ras_mm is not None
    return float(row.centre_ras_mm[0])


def check_order(organs: Sequence[MeasuredOrgan]) -> list[Finding]:
    """From head to feet, and from front to back."""
    placed = [
        (row.expectation.level, float(row.centre_ras_mm[2]))
        for row in organs
        if row.centre_ras_mm is not None and row.expectation is not None and row.expectation.level is not None
    ]
    found = []
    pairs = [(za - zb) for la, za in placed for lb, zb in placed if la - lb >= LEVEL_STEP]
    if len(pairs) >= 2 and sum(step < 0 for step in pairs) > 0.5 * len(pairs):
        found.append(
            Finding(
                FAIL, "order", "", f"{sum(step < 0 for step in pairs)} of {len(pairs)} pairs of organs are upside down",
                "organs in their order from head to feet", "Check the orientation of image and labels (head and feet).",
            )
        )  # fmt: skip
    front = [float(row.centre_ras_mm[1]) for row in organs if row.name in FRONT and row.centre_ras_mm is not None]
    back = [float(row.centre_ras_mm[1]) for row in organs if row.name.startswith(BACK) and row.centre_ras_mm is not None]
    if front and back and float(np.median(back)) > max(front):
        found.append(
            Finding(
                FAIL, "order", "", "the spine lies in front of heart, liver, stomach and bladder", "the spine at the back",
                "Check the orientation of image and labels (front and back).",
            )
        )  # fmt: skip
    return found


def check_missing(organs: Sequence[MeasuredOrgan]) -> list[Finding]:
    """Organs that the scan should show because it shows others above and below them, or their partner."""
    present = {row.name for row in organs if row.voxels}
    listed = {row.name for row in organs}
    # an organ that the upper border cuts does not show that the image reaches up to its middle
    placed = [row for row in organs if row.voxels and row.expectation is not None and row.expectation.level]
    above = [row.expectation.level or 0.0 for row in placed if row.expectation is not None and "S" not in row.cut]
    below = [row.expectation.level or 0.0 for row in placed if row.expectation is not None and "I" not in row.cut]
    in_view = []
    for name in CORE:
        expected = expectation_of(name)
        assert expected is not None
        assert expected.level is not None
        around = above and below and min(below) < expected.level < max(above)
        if around or _partner(name) in present:
            in_view.append(name)
    missing = [name for name in in_view if not _is_there(name, present)]
    whole = len(missing) <= (1 - WHOLE_SEGMENTATION) * len(in_view)
    found: list[Finding] = []
    if listed and not present:
        found.append(Finding(FAIL, "missing", "", "no label has a voxel", "organs", "Check that this is the right label map."))
    unknown = [row.name for row in organs if row.voxels and row.expectation is None]
    or_named = f" Or is it one of these labels, whose names are not known: {', '.join(unknown[:MANY])}?" if unknown else ""
    for name in missing:
        if name in listed:
            continue  # said already: listed without a voxel
        found.append(
            Finding(
                WARNING if whole else NOTE, "missing", name, "not labelled, though the image shows its surroundings",
                "labelled", f"It is rest of the body now: segment it if its dose matters or if it takes up activity.{or_named}",
            )
        )  # fmt: skip
    return found


def _partner(name: str) -> str:
    side = side_of(name)
    if not side:
        return ""
    return "_".join({"left": "right", "right": "left"}.get(word, word) for word in name.split("_"))


def _is_there(name: str, present: set[str]) -> bool:
    stand_ins = (name, f"{name}_wall", *STAND_INS.get(name, ()), *MEMBERS.get(name, ()))
    return any(other in present for other in stand_ins)


def check_overlaps(notes: Iterable[str]) -> list[Finding]:
    """Overlaps between segments, which the reader of the labels has resolved and told."""
    found = []
    for note in notes:
        match = _SHARED.search(note)
        if match is None:
            continue
        first, second, _, volume = match.groups()
        nested = any(word in name.lower() for name in (first, second) for word in ENCLOSING)
        found.append(
            Finding(
                NOTE if nested or float(volume) < OVERLAP_ML else WARNING, "overlap", first,
                f"shares {float(volume):.3g} ml with {second}", "no common volume",
                "The smaller one has it now; correct the outlines if that is wrong.",
            )
        )  # fmt: skip
    return found


def check_split(notes: Iterable[str], organs: Iterable[MeasuredOrgan]) -> list[Finding]:
    """Organs of which a second label holds a part, which the matching of names has told."""
    by_name = {row.name: row for row in organs}
    found = []
    for note in notes:
        match = _SPLIT.search(note)
        for label, organ in _SPLIT_LABEL.findall(match[1]) if match else []:
            masses = " and ".join(f"{by_name[name].mass_g:.3g} g" for name in (organ, label) if name in by_name)
            found.append(
                Finding(
                    WARNING, "split", organ, f"'{label}' is another label of it ({masses})", "one label per organ",
                    "Give both the same index if they are one organ: its mass, activity and dose are those of a part now.",
                )
            )  # fmt: skip
    return found


def check_body(phantom: VoxelPhantom, ct: ImageVolume | None) -> list[Finding]:
    """An image that shows nothing, holes in the body, its truncation at the sides of the image, arms."""
    body = np.asarray(phantom.density_g_cm3 > 0)
    if not body.any():
        return [Finding(FAIL, "body", "", "every voxel is vacuum", "a body", "Check calibration and outline.")]
    blank = [] if ct is None or np.ptp(ct.values) > 0 else [
        Finding(
            FAIL, "body", "", f"the image has the value {float(ct.values.flat[0]):g} everywhere", "a body in air",
            "Give the image that shows the patient; this phantom is a block of one tissue.",
        )
    ]  # fmt: skip
    found = blank + _check_body_holes(body, phantom) + _check_length(phantom)
    return found + _check_truncation(body, phantom, ct) + _check_arms(body, phantom)


def _check_body_holes(body: NDArray[np.bool_], phantom: VoxelPhantom) -> list[Finding]:
    box = ndimage.find_objects(body.view(np.uint8))[0]
    parts, count = ndimage.label(np.pad(~body[box], 1, constant_values=True))
    if count < 2:
        return []
    enclosed = int(np.bincount(parts.ravel())[2:].sum())
    volume = enclosed * phantom.grid.voxel_volume_ml
    return [
        Finding(
            FAIL if volume > 10 else WARNING, "body", "", f"{count - 1} holes of vacuum ({volume:.2g} ml) inside the body",
            "air, not vacuum, inside the outline", "Fill the body outline; particles cross vacuum without losing energy.",
        )
    ]  # fmt: skip


def _check_length(phantom: VoxelPhantom) -> list[Finding]:
    along = _along(phantom)
    length_mm = phantom.grid.shape[along] * phantom.grid.spacing_mm[2 - along]
    if length_mm >= SHORT_MM:
        return []
    return [
        Finding(
            WARNING, "field of view", "", f"the image is {length_mm:.2g} mm long from head to feet",
            f"{SHORT_MM:.0f} mm or more", "Photons that leave it do not scatter back: doses are those of this slab alone.",
        )
    ]  # fmt: skip


def _along(phantom: VoxelPhantom) -> int:
    """Array axis from head to feet."""
    return next((axis for axis, pair in enumerate(face_letters(phantom.grid)) if "S" in pair), 0)


def _check_truncation(body: NDArray[np.bool_], phantom: VoxelPhantom, ct: ImageVolume | None) -> list[Finding]:
    """Slices in which the image does not show all of the body's width."""
    along = _along(phantom)
    cut = np.zeros(phantom.grid.shape[along], bool)
    for axis in range(3):
        if axis == along or phantom.grid.shape[axis] < 2:
            continue
        across = 3 - along - axis
        for face in (0, -1):
            edge = np.take(body, face, axis=axis)
            cut |= edge.any(axis=across - (1 if axis < across else 0))
    if ct is not None and (unseen := ct.values < PADDING_HU).any():
        beside = ndimage.binary_dilation(unseen) & body
        cut |= beside.any(axis=tuple(n for n in range(3) if n != along))
    slices = body.any(axis=tuple(n for n in range(3) if n != along))
    share = float(cut.sum() / slices.sum())
    if not cut.any():
        return []
    return [
        Finding(
            WARNING if share > 0.02 else NOTE, "field of view", "",
            f"the body is cut off at the side in {int(cut.sum())} of {int(slices.sum())} slices", "all of its width in view",
            "Tissue outside does not scatter back: doses near that border are too low; arms may be missing.",
        )
    ]  # fmt: skip


def _check_arms(body: NDArray[np.bool_], phantom: VoxelPhantom) -> list[Finding]:
    """Slices with parts beside the trunk that are no legs (which are of one size)."""
    along = _along(phantom)
    spacing = phantom.grid.spacing_mm[::-1]
    pixel_cm2 = float(np.prod([spacing[n] for n in range(3) if n != along])) / 100
    least, share = _ARM_CM2
    count, volume = 0, 0.0
    for place in range(body.shape[along]):
        parts, number = ndimage.label(np.take(body, place, axis=along))
        if number < 2:
            continue
        areas = np.sort(np.bincount(parts.ravel())[1:])[::-1] * pixel_cm2
        arms = areas[1:][(areas[1:] >= least) & (areas[1:] <= share * areas[0])]
        count += bool(arms.size)
        volume += float(arms.sum()) * spacing[along] / 10
    if count < _ARM_SLICES:
        return []
    return [
        Finding(
            NOTE, "body", "", f"parts beside the trunk (arms) in {count} slices, {volume:.0f} ml", "",
            "They belong to the rest of the body and scatter radiation as they lie in this image.",
        )
    ]  # fmt: skip
