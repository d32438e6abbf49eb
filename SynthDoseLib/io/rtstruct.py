"""DICOM RTSTRUCT to labels: contours on planes to voxels of a reference grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage
from scipy.spatial import KDTree

from ..core import LabelMap, Organ, SynthDoseError, VoxelGrid
from .coding import snomed_of
from .dicom_files import read_dataset
from .dicom_labels import compare_frames
from .dicom_metadata import number
from .geometry import LPS_TO_RAS
from .overlap import combine
from .polygons import fill_polygons
from .text import clean_name, clean_text, same_name_notes, unique_names

# of a slice: contours drawn on the slices of the reference are this close to them
_ON_SLICE = 0.05
_PLANE_TOLERANCE_MM = 0.1
_NEXT_TO_EACH_OTHER = 1.5
_CONTOUR_DATA = 0x30060050
_POINT_LIMIT = 20_000_000
_FINE_PIXEL_LIMIT = 2_000_000_000
_TIE = 1e-6
_SAME_MM = 0.01
_WHOLE_LIMIT = 200_000_000  # voxels of a structure and the image together
_WORTH_SAYING = 0.001
_COMPARED = 20  # contours of one plane that are compared with each other


@dataclass(frozen=True, eq=False)
class Structure:
    """One region of interest.

    Attributes
    ----------
    number : int
        ROINumber.
    name : str
        Cleaned.
    contours : tuple of ndarray of float64, (n, 3)
        Closed planar contours, RAS mm.
    slab_mm : float or None
        ContourSlabThickness, mm, if stated.
    """

    number: int
    name: str
    contours: tuple[NDArray[np.float64], ...]
    slab_mm: float | None = None
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    snomed_code: str = ""
    notes: tuple[str, ...] = field(default=())


def read_rtstruct(
    path: Path,
    reference: VoxelGrid | None,
    frame_of_reference: str = "",
    segments: Collection[str] | None = None,
    accept_other_frame: bool = False,
) -> LabelMap:
    """Rasterise the structures of an RTSTRUCT on `reference`; see `read_labels`."""
    if reference is None:
        raise SynthDoseError(f"{path} holds contours, not voxels. Give the image they were drawn on as well (reference).")
    from .rtstruct_volume import rasterise_with_volume

    structures, own_frame = read_structures(path)
    notes = list(compare_frames(path, own_frame, frame_of_reference, accept_other_frame))
    if segments is not None:
        known = {s.name for s in structures}
        lacking = [name for name in segments if name not in known]
        if lacking:
            raise SynthDoseError(f"{path} has no structure '{lacking[0]}'. Structures: {', '.join(sorted(known))}.")
        structures = [s for s in structures if s.name in segments]
    organs = tuple(Organ(n, s.name, s.snomed_code, s.colour) for n, s in enumerate(structures, start=1))
    apart = plane_distance(structures)
    masks = []
    outside = []
    for organ, structure in zip(organs, structures, strict=True):
        mask, remarks = rasterise_with_volume(structure, reference, apart)
        notes += [*structure.notes, *remarks, *_beyond(structure, reference, apart, int(mask.sum()))]
        if structure.contours and not mask.any():
            outside.append(structure.name)
        masks.append((organ.index, mask))
    if outside and len(outside) == sum(bool(s.contours) for s in structures):
        centre = np.concatenate([c for s in structures for c in s.contours]).mean(axis=0).round().astype(int)
        raise SynthDoseError(
            f"{path}: no structure has a voxel in the image. The contours are around RAS {tuple(centre.tolist())} mm. "
            "Check that they belong to this image."
        )
    notes += [f"Structure '{name}' has no voxel in the image: it lies outside, or is smaller than a voxel." for name in outside]
    labels, overlap = combine(masks, organs, reference)
    return LabelMap(reference, labels, organs, (*notes, *overlap))


def _beyond(structure: Structure, grid: VoxelGrid, apart_mm: float | None, inside: int) -> list[str]:
    """A note if a structure with voxels in the image goes on beyond its border, with the share that is lost."""
    if not structure.contours or not inside:
        return []
    corners = np.concatenate([grid.to_ijk(contour) for contour in structure.contours])[:, ::-1]
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.array(grid.shape)
    outside_mm = np.maximum(-0.5 - low, high - (size - 0.5)) * grid.spacing_mm[::-1]
    if (outside_mm <= 0.5 * np.array(grid.spacing_mm[::-1])).all():
        return []
    first = np.floor(np.minimum(low, 0)).astype(np.int64) - 1
    whole = np.ceil(np.maximum(high, size - 1)).astype(np.int64) + 2 - first
    share = "part"
    if whole.astype(np.float64).prod() <= _WHOLE_LIMIT:
        k, j, i = (int(n) for n in whole)
        wider = grid.crop((int(first[0]), int(first[1]), int(first[2])), (k, j, i))
        lost = 1 - inside / max(inside, int(rasterise(structure, wider, apart_mm)[0].sum()))
        if lost < _WORTH_SAYING:
            return []
        share = f"{lost:.0%}" if lost >= 0.01 else f"{lost:.1%}"
    return [
        f"Structure '{structure.name}' is cut by the border of the image: {share} of it, up to {outside_mm.max():.0f} mm, lies "
        "outside. Its volume, mass and dose are those of the part inside."
    ]


def read_structures(path: Path) -> tuple[list[Structure], str]:
    """Return the structures of an RTSTRUCT file and their frame of reference (UID, "" if not stated).

    Raises
    ------
    SynthDoseError
        If there are none, they are in several frames of reference, or a contour is damaged.
    """
    dataset = read_dataset(path)
    rois = dataset.get("StructureSetROISequence") or []
    if not rois:
        raise SynthDoseError(f"{path} holds no structures.")
    frames = {clean_text(r.get("ReferencedFrameOfReferenceUID")) for r in rois} - {""}
    if len(frames) > 1:
        raise SynthDoseError(f"{path} holds structures in {len(frames)} frames of reference. Export those of one image.")
    contours = {int(c.ReferencedROINumber): c for c in dataset.get("ROIContourSequence") or []}
    observed = {int(o.ReferencedROINumber): o for o in dataset.get("RTROIObservationsSequence") or []}
    given = [clean_name(r.get("ROIName")) or f"ROI {int(r.ROINumber)}" for r in rois]
    names = unique_names(given)
    structures = []
    for roi, name in zip(rois, names, strict=True):
        roi_number = int(roi.ROINumber)
        structures.append(_structure(path, roi_number, name, contours.get(roi_number), observed.get(roi_number)))
    if said := same_name_notes(given, names, "structures"):
        structures[0] = replace(structures[0], notes=(*said, *structures[0].notes))
    if sum(len(c) for s in structures for c in s.contours) > _POINT_LIMIT:
        raise SynthDoseError(f"{path} holds more than {_POINT_LIMIT} contour points. Export fewer structures at a time.")
    return structures, next(iter(frames), "")


def _structure(path: Path, roi_number: int, name: str, item: Dataset | None, observed: Dataset | None) -> Structure:
    closed: list[NDArray[np.float64]] = []
    skipped: dict[str, int] = {}
    slab = None
    for contour in (item.get("ContourSequence") if item is not None else None) or []:
        kind = clean_text(contour.get("ContourGeometricType"), 20).upper()
        points = _points(path, name, contour)
        slab = slab or number(contour.get("ContourSlabThickness"))
        if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            skipped[f"of type {kind or 'unknown'}"] = skipped.get(f"of type {kind or 'unknown'}", 0) + 1
        elif len(points) < 3:
            skipped["of fewer than three points"] = skipped.get("of fewer than three points", 0) + 1
        else:
            closed.append(points)
    again = _written_again(closed)
    if again:
        skipped["written twice"] = len(again)
        closed = [points for n, points in enumerate(closed) if n not in again]
    notes = [f"Structure '{name}': {count} contour(s) {why} were left out." for why, count in skipped.items()]
    if not closed:
        notes.append(f"Structure '{name}' has no closed contour; it is empty.")
    colour = [int(c) / 255 for c in (item.get("ROIDisplayColor") if item is not None else None) or []]
    code = ((observed.get("RTROIIdentificationCodeSequence") if observed is not None else None) or [Dataset()])[0]
    return Structure(
        roi_number,
        name,
        tuple(closed),
        slab,
        (colour[0], colour[1], colour[2]) if len(colour) == 3 and 0 <= min(colour) <= max(colour) <= 1 else (0.5, 0.5, 0.5),
        snomed_of(code.get("CodeValue"), code.get("CodingSchemeDesignator")),
        tuple(notes),
    )


def _written_again(contours: Sequence[NDArray[np.float64]]) -> set[int]:
    """Which contours are the same as one before, though they may begin at another corner or turn the other way."""
    if len(contours) < 2:
        return set()
    shapes = np.array([_shape_of(points) for points in contours])
    return {max(pair) for pair in KDTree(shapes).query_pairs(_SAME_MM)}


def _shape_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middle, extent, length, width by area (mm) and number of corners."""
    after = np.roll(points, -1, axis=0)
    area = np.linalg.norm(np.cross(points - points[0], after - points[0]).sum(axis=0)) / 2
    length = np.linalg.norm(after - points, axis=1).sum()
    return np.array([*points.mean(axis=0), *points.min(axis=0), *points.max(axis=0), length, np.sqrt(area), len(points)])


def _points(path: Path, name: str, contour: Dataset) -> NDArray[np.float64]:
    try:
        # from bytes: pydicom makes an object of every number, which takes a minute for a whole body
        element = contour.get_item(_CONTOUR_DATA) if _CONTOUR_DATA in contour else None
        raw = element.value if element is not None and isinstance(element.value, bytes) else None
        numbers = raw.decode("ascii").strip(" \0").split("\\") if raw else contour.get("ContourData") or []
        data = np.array(numbers, dtype=np.float64)
        points = data.reshape(-1, 3)
        if not np.isfinite(points).all():
            raise ValueError
    except (TypeError, ValueError):
        raise SynthDoseError(
            f"{path}: a contour of structure '{name}' is damaged (its points are not triples of numbers)."
        ) from None
    points = points @ LPS_TO_RAS[:3, :3]
    # a closing point equal to the first is allowed, and would be a side of no length
    return points[:-1] if len(points) > 1 and np.allclose(points[0], points[-1], atol=1e-6) else points


def plane_distance(structures: Sequence[Structure]) -> float | None:
    """Usual distance between contour planes of a structure set, mm; None if no structure has three planes."""
    distances = []
    for structure in structures:
        if len(structure.contours) > 2:
            gaps = np.diff(_group_planes(_heights(structure), _PLANE_TOLERANCE_MM)[0])
            if gaps.size > 1:
                distances.append(float(np.median(gaps)))
    return min(distances, default=None)


def contour_slabs(structure: Structure, single_mm: float) -> tuple[list[list[int]], NDArray[np.float64]]:
    """Contours (their numbers) of each plane of a structure, and the thickness that the plane stands for, mm.

    `single_mm` is that of a plane without neighbours, if the structure does not state it.
    """
    planes, members = _group_planes(_heights(structure), _PLANE_TOLERANCE_MM)
    lower, upper = _slabs(planes, structure.slab_mm, single_mm)
    return members, upper - lower


def _heights(structure: Structure) -> NDArray[np.float64]:
    """Heights of a structure's contours along the normal of their planes, mm."""
    largest = max(structure.contours, key=len)
    normal = np.linalg.svd(largest - largest.mean(axis=0), full_matrices=False)[2][2]
    return np.array([float(c.mean(axis=0) @ normal) for c in structure.contours])


def rasterise(
    structure: Structure, grid: VoxelGrid, apart_mm: float | None = None
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Voxels whose centres lie inside a structure, and notes.

    Within a plane a voxel belongs to the structure if an odd number of its contours encloses the voxel's centre.
    Across planes a contour stands for the slab half-way to its neighbours: volume is area times distance.
    Planes more than 1.5 times as far apart as usual belong to separate pieces.

    Parameters
    ----------
    structure : Structure
    grid : VoxelGrid
    apart_mm : float, optional
        Usual distance of contour planes, for a structure of one or two planes.

    Returns
    -------
    mask : ndarray of bool, (nk, nj, ni)
    notes : tuple of str
    """
    mask = np.zeros(grid.shape, bool)
    if not structure.contours:
        return mask, ()
    voxels = [grid.to_ijk(c) for c in structure.contours]
    flat = max(float(np.ptp(v[:, 2])) for v in voxels) * grid.spacing_mm[2]
    if flat > _PLANE_TOLERANCE_MM:
        return _rasterise_oblique(structure, grid, apart_mm)
    heights = np.array([v[:, 2].mean() for v in voxels])
    planes, members = _group_planes(heights, _ON_SLICE)
    slab = structure.slab_mm or apart_mm
    lower, upper = _slabs(planes, slab / grid.spacing_mm[2] if slab else None, 1.0)
    filled: dict[int, NDArray[np.bool_]] = {}
    used = set()
    for k, plane in enumerate(_plane_of(np.arange(grid.shape[0], dtype=np.float64), planes, lower, upper).tolist()):
        if plane < 0:
            continue
        used.add(plane)
        if plane not in filled:
            filled = {plane: fill_polygons([voxels[m][:, :2] for m in members[plane]], grid.shape[1:])}
        mask[k] = filled[plane]
    notes = _crossing_notes(structure.name, [[voxels[m][:, :2] for m in group] for group in members])
    if (upper[:-1] < lower[1:] - 1e-6).any():
        notes.append(
            f"Structure '{structure.name}' is in {int((upper[:-1] < lower[1:] - 1e-6).sum()) + 1} pieces along the slices."
        )
    if np.abs(planes - planes.round()).max() > _ON_SLICE:
        notes.append(
            f"Structure '{structure.name}' was drawn between the slices of the image: each took the nearest contour plane."
        )
    within = {p for p in range(len(planes)) if -0.5 <= planes[p] <= grid.shape[0] - 0.5}
    if len(within) < len(planes):
        notes.append(f"Structure '{structure.name}': {len(planes) - len(within)} contour plane(s) lie beyond the image.")
    if within - used:
        notes.append(
            f"Structure '{structure.name}': {len(within - used)} contour plane(s) lie between slices that took others."
        )
    return mask, tuple(notes)


def _crossing_notes(name: str, planes: Sequence[Sequence[NDArray[np.float64]]]) -> list[str]:
    """A note if contours of one plane cross each other: neither beside nor inside each other, they mean nothing certain."""
    crossing = 0
    for group in planes:
        if 1 < len(group) <= _COMPARED:
            crossing += any(_cross(group[a], group[b]) for a in range(len(group)) for b in range(a))
    if not crossing:
        return []
    return [
        f"Structure '{name}': contours cross each other on {crossing} plane(s); what two of them share counts as outside. "
        "Unite them where they were drawn if it belongs to the structure."
    ]


def _cross(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two outlines share a part of both, finer than a pixel of a 64 x 64 picture of them."""
    low = np.maximum(one.min(axis=0), other.min(axis=0))
    if (low >= np.minimum(one.max(axis=0), other.max(axis=0))).any():
        return False
    corners = np.concatenate([one, other])
    start, pixel = corners.min(axis=0), max(float(np.ptp(corners, axis=0).max()) / 64, 1e-9)
    first, second = (fill_polygons([(outline - start) / pixel], (66, 66)) for outline in (one, other))
    shared = int((first & second).sum())
    # touching outlines share pixels of their rims only
    rim = 4 + 0.02 * min(int(first.sum()), int(second.sum()))
    return rim < shared < min(int(first.sum()), int(second.sum())) - rim


def _group_planes(heights: NDArray[np.float64], tolerance: float) -> tuple[NDArray[np.float64], list[list[int]]]:
    """Sort contours into planes; those closer than `tolerance` share one."""
    members: list[list[int]] = []
    planes: list[float] = []
    for n in np.argsort(heights, kind="stable"):
        if planes and heights[n] - planes[-1] < tolerance:
            members[-1].append(int(n))
        else:
            planes.append(float(heights[n]))
            members.append([int(n)])
    return np.array(planes), members


def _slabs(planes: NDArray[np.float64], stated: float | None, single: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end of what each plane stands for: half-way to a neighbour, or half the usual distance."""
    gaps = np.diff(planes)
    usual = float(np.median(gaps)) if gaps.size > 1 else stated or (float(gaps[0]) if gaps.size else single)
    near = gaps <= _NEXT_TO_EACH_OTHER * usual
    half = np.where(near, gaps / 2, usual / 2)
    lower = planes - np.concatenate([[usual / 2], half])
    upper = planes + np.concatenate([half, [usual / 2]])
    return lower, upper


def _plane_of(
    heights: NDArray[np.float64], planes: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.int_]:
    """Contour plane whose slab holds each height, -1 if none does; slabs are half-open, so none is counted twice."""
    found = np.searchsorted(lower - _TIE, heights, side="right") - 1
    inside = (found >= 0) & (heights < upper[np.maximum(found, 0)] - _TIE)
    nearest = np.abs(heights[..., None] - planes).argmin(axis=-1)
    on = np.abs(heights - planes[nearest]) <= _TIE
    return np.where(inside, found, np.where(on, nearest, -1))


def _rasterise_oblique(
    structure: Structure, grid: VoxelGrid, apart_mm: float | None
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Rasterise every contour plane finely in itself, and look each voxel centre up in the plane whose slab it is in."""
    largest = max(structure.contours, key=len)
    _, _, axes = np.linalg.svd(largest - largest.mean(axis=0))
    directions = np.stack([axes[0], axes[1], np.cross(axes[0], axes[1])], axis=1)
    local = [c @ directions for c in structure.contours]
    thick = max(float(np.ptp(c[:, 2])) for c in local)
    if thick > 2 * _PLANE_TOLERANCE_MM:
        raise SynthDoseError(
            f"Structure '{structure.name}': its contours do not lie in parallel planes (off by {thick:.2f} mm). "
            "Export it on the slices of one image."
        )
    heights = np.array([c[:, 2].mean() for c in local])
    planes, members = _group_planes(heights, _PLANE_TOLERANCE_MM)
    lower, upper = _slabs(planes, structure.slab_mm or apart_mm, min(grid.spacing_mm))
    fine = min(grid.spacing_mm) / 2
    points = np.concatenate(local)
    start = points[:, :2].min(axis=0) - 2 * fine
    columns, rows = np.ceil((points[:, :2].max(axis=0) - start) / fine).astype(int) + 3
    if int(rows) * int(columns) * len(planes) > _FINE_PIXEL_LIMIT:
        raise SynthDoseError(
            f"Structure '{structure.name}' is too large to be drawn obliquely. Resample the image to its planes."
        )
    pictures = [fill_polygons([(local[m][:, :2] - start) / fine for m in group], (rows, columns)) for group in members]
    mask = np.zeros(grid.shape, bool)
    j, i = np.mgrid[: grid.shape[1], : grid.shape[2]]
    for k in range(grid.shape[0]):
        place = grid.to_ras(np.stack([i, j, np.full_like(i, k)], axis=-1)) @ directions
        which = _plane_of(place[..., 2], planes, lower, upper)
        for plane in np.unique(which[which >= 0]):
            here = which == plane
            at = (place[here][:, :2] - start) / fine
            # half inside: the edge then runs where the contour does, not half a fine pixel beside it
            inside = ndimage.map_coordinates(pictures[plane].astype(np.float32), at[:, ::-1].T, order=1, cval=0.0)
            mask[k][here] = inside >= 0.5
    note = (
        f"Structure '{structure.name}' was drawn in planes at an angle to the slices of the image: "
        "each voxel took the nearest contour plane."
    )
    return mask, (note,)
