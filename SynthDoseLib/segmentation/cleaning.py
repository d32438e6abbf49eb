"""Mending what networks leave behind (islands, holes, left taken for right), and telling what cannot be mended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import ImageVolume, LabelMap, Organ, VoxelGrid
from .tables import read_shipped_table

ISLAND = 0.2  # of the largest part: what is smaller is no part of the organ
WHOLE = ("rest_of_body", "body")  # with one of them the labels cover the patient, without gaps
STRAY = 0.02  # of the body: what lies apart from it and is smaller is couch, cable or sheet
STRAY_CELL_MM = 3.0
HOLE = 0.05  # of the organ: what is larger is no slip
PADDING_HU = -1100.0  # below air: outside of what the scanner reconstructed
_EVERY_NEIGHBOUR = np.ones((3, 3, 3))
_SIDES = (("right", "left"), ("anterior", "posterior"), ("superior", "inferior"))


@dataclass(frozen=True)
class Shape:
    """What anatomy says about an organ: connected, without holes, or around others and going on beyond any image."""

    one_piece: bool = False
    solid: bool = False
    container: bool = False


@cache
def organ_shapes() -> Mapping[str, Shape]:
    """Shapes of the organs that anatomy says something about, by canonical name."""
    rows = read_shipped_table("shapes.csv")
    return {r["name"]: Shape(r["one_piece"] == "yes", r["solid"] == "yes", r["container"] == "yes") for r in rows}


def clean_labels(labels: LabelMap, image: ImageVolume | None = None) -> LabelMap:
    """Mend islands, holes and parts of a paired organ on the wrong side; tell of organs that are cut or swapped.

    Parameters
    ----------
    labels : LabelMap
        With canonical names; organs that are not known are left as they are.
    image : ImageVolume, optional
        On the same grid; its padding counts as the edge of the field of view.

    Returns
    -------
    LabelMap
        With a note per kind of change. Islands (parts below a fifth of the largest) go to the organ around them, holes (up to
        a twentieth of the organ) to the organ, parts of a paired organ that lie with its partner to the partner. Where the
        labels cover the whole patient, parts below 2 % of it that lie apart become background.
    """
    values = np.array(labels.labels)
    names = {organ.name: organ for organ in labels.organs}
    sides = _mend_sides(values, names, labels.grid)
    boxes = ndimage.find_objects(values, max_label=max((organ.index for organ in labels.organs), default=0))
    containers = np.array([0, *(o.index for o in labels.organs if organ_shapes().get(o.name, Shape()).container)])
    islands: dict[str, float] = {}
    holes: dict[str, float] = {}
    for organ in labels.organs:
        shape, box = organ_shapes().get(organ.name, Shape()), boxes[organ.index - 1]
        if box is None or not shape.one_piece:
            continue
        inner = values[_grown(box, values.shape)]
        if dropped := _drop_islands(inner, organ.index):
            islands[organ.name] = dropped * labels.grid.voxel_volume_ml
        if shape.solid and (filled := _fill_holes(inner, organ.index, containers)):
            holes[organ.name] = filled * labels.grid.voxel_volume_ml
    whole = any(name in names and boxes[names[name].index - 1] is not None for name in WHOLE)
    strays = _drop_strays(values, labels.grid) if whole else 0
    notes = [
        *_told(
            "Labels apart from the body were taken away", {"strays": strays * labels.grid.voxel_volume_ml} if strays else {}
        ),
        *_told("Islands were given to what is around them", islands),
        *_told("Holes were filled", holes),
        *_told("Parts on the wrong side were given to the partner", sides),
    ]
    mended = LabelMap(labels.grid, values, labels.organs, (*labels.notes, *notes))
    return inspect_labels(mended, image)


def _drop_strays(values: NDArray[np.uint16], grid: VoxelGrid) -> int:
    """Make background of small labelled parts that do not touch the body, in place; return their voxels."""
    steps = [max(1, int(STRAY_CELL_MM / spacing + 1e-3)) for spacing in grid.spacing_mm[::-1]]
    cells = values > 0
    for axis, step in enumerate(steps):  # cells of 3 mm, so that the numbers of the parts take little memory
        cells = np.logical_or.reduceat(cells, np.arange(0, values.shape[axis], step), axis=axis)
    parts, number = ndimage.label(cells)
    counts = np.bincount(parts.ravel(), minlength=number + 1)
    counts[0] = 0
    small = counts < STRAY * counts.max()
    small[0] = False
    if not small.any():
        return 0
    lost, dropped = small[parts], 0
    rows, columns = (np.arange(values.shape[axis]) // steps[axis] for axis in (1, 2))
    for k, plane in enumerate(values):
        where = lost[k // steps[0]][np.ix_(rows, columns)]
        dropped += int(np.count_nonzero(plane[where]))
        plane[where] = 0
    return dropped


def inspect_labels(labels: LabelMap, image: ImageVolume | None = None) -> LabelMap:
    """Return the label map with notes on paired organs that are swapped, and on organs that the field of view cuts."""
    notes = [*_swapped(labels), *_truncated(labels, image)]
    return LabelMap(labels.grid, labels.labels, labels.organs, (*labels.notes, *notes)) if notes else labels


def cut_organs(labels: LabelMap, image: ImageVolume | None = None) -> dict[str, tuple[str, ...]]:
    """Organs that the edge of the image cuts, and where: "superior", "left" …, or "beyond the scanner's circle".

    Containers such as the body go on beyond any image and are left out.

    Parameters
    ----------
    labels : LabelMap
    image : ImageVolume, optional
        CT on the same grid, whose padding is looked for.
    """
    values = labels.labels
    wanted = {o.index: o.name for o in labels.organs if not organ_shapes().get(o.name, Shape()).container}
    found: dict[str, list[str]] = {}
    for face, where in _faces(labels.grid):
        for index in np.unique(values[face]).tolist():
            if index in wanted:
                found.setdefault(wanted[index], []).append(where)
    if image is not None and image.modality in ("CT", "") and image.grid.matches(labels.grid):
        padding = image.values < PADDING_HU
        if padding.any():
            touched = values[ndimage.binary_dilation(padding) & ~padding]
            for index in np.unique(touched).tolist():
                if index in wanted:
                    found.setdefault(wanted[index], []).append("beyond the scanner's circle")
    return {name: tuple(places) for name, places in found.items()}


def _faces(grid: VoxelGrid) -> Iterator[tuple[tuple[slice | int, ...], str]]:
    """The six faces of an array (k, j, i) and where in the patient they are."""
    for axis in range(3):
        direction = grid.directions[:, 2 - axis]
        along = int(np.abs(direction).argmax())
        first, last = _SIDES[along][::-1] if direction[along] > 0 else _SIDES[along]
        for place, where in ((0, first), (-1, last)):
            yield tuple(place if a == axis else slice(None) for a in range(3)), where


def _truncated(labels: LabelMap, image: ImageVolume | None) -> list[str]:
    cut = cut_organs(labels, image)
    if not cut:
        return []
    listed = ", ".join(f"{name} ({' and '.join(places)})" for name, places in cut.items())
    return [f"Cut by the edge of the field of view, so that volume and mass are too small: {listed}."]


def _swapped(labels: LabelMap) -> list[str]:
    boxes = ndimage.find_objects(labels.labels, max_label=max((organ.index for organ in labels.organs), default=0))
    names = {organ.name: organ for organ in labels.organs}
    wrong = []
    for left, right in _pairs(names):
        places = [_rightness(labels.labels, boxes[organ.index - 1], organ.index, labels.grid) for organ in (left, right)]
        if None not in places and places[0] > places[1]:  # type: ignore[operator]
            wrong.append(left.name.replace("_left", ""))
    if not wrong:
        return []
    return [
        f"Left lies to the right of right: {', '.join(wrong)}. The labels are swapped or the image is mirrored; check both "
        "before you use any dose."
    ]


def _pairs(names: Mapping[str, Organ]) -> list[tuple[Organ, Organ]]:
    pairs = ((organ, names.get(name.replace("left", "right", 1))) for name, organ in names.items() if "left" in name)
    return [(left, right) for left, right in pairs if right is not None]


def _rightness(values: NDArray[np.uint16], box: tuple[slice, ...] | None, index: int, grid: VoxelGrid) -> float | None:
    """How far to the patient's right the middle of an organ is, mm; None if it is empty."""
    if box is None:
        return None
    centre = ndimage.center_of_mass(values[box] == index)
    ijk = [c + s.start for c, s in zip(centre, box, strict=True)][::-1]
    return float(grid.to_ras(ijk)[0])


def _mend_sides(values: NDArray[np.uint16], names: Mapping[str, Organ], grid: VoxelGrid) -> dict[str, float]:
    """Give parts that lie beyond the middle of a pair to the partner, in place; return the ml per organ that lost them."""
    moved: dict[str, float] = {}
    boxes = ndimage.find_objects(values, max_label=max((organ.index for organ in names.values()), default=0))
    for left, right in _pairs(names):
        places = [_largest_part(values, boxes[organ.index - 1], organ.index, grid) for organ in (left, right)]
        if places[0] is None or places[1] is None or places[0] >= places[1]:
            continue  # one side only, or swapped as a whole: that is told, not mended
        middle = (places[0] + places[1]) / 2
        for organ, partner, way in ((left, right, 1.0), (right, left, -1.0)):
            box = boxes[organ.index - 1]
            parts, number = ndimage.label(values[box] == organ.index, structure=_EVERY_NEIGHBOUR)
            if number < 2:
                continue
            centres = ndimage.center_of_mass(parts > 0, parts, range(1, number + 1))
            ijk = np.array(centres)[:, ::-1] + [s.start for s in box[::-1]]
            beyond = 1 + np.flatnonzero(way * (grid.to_ras(ijk)[:, 0] - middle) > 0)
            if beyond.size:
                wrong = np.isin(parts, beyond)
                values[box][wrong] = partner.index
                moved[organ.name] = moved.get(organ.name, 0.0) + float(wrong.sum()) * grid.voxel_volume_ml
    return moved


def _largest_part(values: NDArray[np.uint16], box: tuple[slice, ...] | None, index: int, grid: VoxelGrid) -> float | None:
    if box is None:
        return None
    parts, number = ndimage.label(values[box] == index, structure=_EVERY_NEIGHBOUR)
    if number > 1:
        parts = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return _rightness(
        np.asarray(parts > 0, np.uint16),
        tuple(slice(0, n) for n in parts.shape),
        1,
        grid.crop((box[0].start, box[1].start, box[2].start), parts.shape),
    )


def _drop_islands(inner: NDArray[np.uint16], index: int) -> int:
    """Turn small parts into what is around them, in place; return the number of voxels."""
    parts, number = ndimage.label(inner == index, structure=_EVERY_NEIGHBOUR)
    if number < 2:
        return 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    small = np.flatnonzero((sizes > 0) & (sizes < ISLAND * sizes.max()))
    boxes = ndimage.find_objects(parts)
    for part in small.tolist():
        box = _grown(boxes[part - 1], inner.shape)
        own = parts[box] == part
        shell = inner[box][ndimage.binary_dilation(own, structure=_EVERY_NEIGHBOUR) & ~own]
        inner[box][own] = np.bincount(shell).argmax() if shell.size else 0
    return int(sizes[small].sum())


def _fill_holes(inner: NDArray[np.uint16], index: int, containers: NDArray[np.int_]) -> int:
    """Fill holes of background or of a container, in place; return the number of voxels."""
    mask = inner == index
    hole = ndimage.binary_fill_holes(mask) & ~mask & np.isin(inner, containers)
    parts, number = ndimage.label(hole)
    if not number:
        return 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    small = np.flatnonzero((sizes > 0) & (sizes <= HOLE * mask.sum()))
    inner[np.isin(parts, small)] = index
    return int(sizes[small].sum())


def _grown(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, shape, strict=True))


def _told(text: str, volumes_ml: Mapping[str, float]) -> list[str]:
    if not volumes_ml:
        return []
    return [f"{text}: {', '.join(f'{name} ({volume:.3g} ml)' for name, volume in volumes_ml.items())}."]
