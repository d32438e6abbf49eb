"""A stylised adult: smooth organs at their places, each with the mass that was asked."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import LabelMap, SynthDoseError, VoxelGrid, organ_table

from .stylised_body import Body, Build, paint_body
from .stylised_canvas import Canvas, Floats
from .stylised_muscles import paint_fat_planes
from .stylised_organs import Placement, place_abdomen, place_chest, place_cord, place_head
from .stylised_reference import SEXES, TISSUES, Tissue, reference_masses, require_sex
from .stylised_skeleton import place_skeleton

FIELDS_OF_VIEW: dict[str, tuple[float, float]] = {"torso": (-290.0, 482.0), "head_to_thigh": (-290.0, 735.0)}
"""Lowest and highest z of the reference man, mm from the middle of L4: mid-thigh to the neck, or to above the vertex."""

REFERENCE_HEIGHT_M = {"male": 1.76, "female": 1.63}  # ICRP Publication 89

# the size of a man or woman relative to the reference man, whose shape the coordinates describe
_SIZE = {"male": 1.0, "female": 0.932}


@dataclass(frozen=True, eq=False)
class StylisedAdult:
    """A person made of labelled voxels.

    Attributes
    ----------
    labels : LabelMap
        One organ per voxel, canonical names; 0 is the rest of the body and the air around it.
    tissues : ndarray of uint8, (nk, nj, ni)
        Place in `tissue_table`; 0 is air outside the body.
    tissue_table : tuple of Tissue
        CT number and density of each tissue.
    target_mass_g : dict of str to float
        Mass asked per organ, g; for `skeleton` that of the bones inside the field of view.
    sex : str
        "female" or "male".
    height_m, weight_kg : float
        Of the whole person.
    seed : int
    """

    labels: LabelMap
    tissues: NDArray[np.uint8]
    tissue_table: tuple[Tissue, ...]
    target_mass_g: dict[str, float]
    sex: str
    height_m: float
    weight_kg: float
    seed: int

    @property
    def grid(self) -> VoxelGrid:
        """Where the voxels are."""
        return self.labels.grid

    @property
    def density_g_cm3(self) -> NDArray[np.float32]:
        """Density per voxel (nk, nj, ni), g/cm3; 0 outside the body."""
        table = np.array([tissue.density_g_cm3 for tissue in self.tissue_table], np.float32)
        table[0] = 0.0
        return table[self.tissues]

    def mass_g(self) -> dict[str, float]:
        """Mass per organ, g: what the voxels weigh, to compare with `target_mass_g`."""
        weights = np.array([tissue.density_g_cm3 for tissue in self.tissue_table])[self.tissues]
        sums = np.bincount(self.labels.labels.ravel(), weights=weights.ravel(), minlength=len(self.labels.organs) + 1)
        return {organ.name: float(sums[organ.index]) * self.grid.voxel_volume_ml for organ in self.labels.organs}


def stylised_adult(
    sex: str,
    *,
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    seed: int = 0,
    variation: float = 1.0,
    field_of_view: str = "torso",
    margin_mm: float = 15.0,
) -> StylisedAdult:
    """Build a stylised adult whose organ masses are the reference ones times this person's factors.

    Parameters
    ----------
    sex : str
        "female" or "male".
    spacing_mm : tuple of 3 float
        Voxel size along i, j, k, mm; 8 mm at most, because smaller organs would vanish.
    seed : int
        0 or more; the same seed, sex and variation are the same person on every grid.
    variation : float
        How much people differ: 0 is the reference person, 1 the spread of adults, more is refused above 1.5.
    field_of_view : str
        "torso" (neck to mid-thigh) or "head_to_thigh".
    margin_mm : float
        Air around the body, mm.

    Returns
    -------
    StylisedAdult
        On an axial grid whose axes run to the left, back and head, as in DICOM.

    Raises
    ------
    SynthDoseError
        If an argument is outside what is allowed above.

    Notes
    -----
    An organ is a smooth function of the position; it receives the free voxels with the smallest values, as many as its
    mass asks for, in an order of precedence. So no voxel belongs to two organs, and the mass is right to half a voxel.
    Shapes are drawn after anatomical landmarks, masses are those of ICRP Publications 89 and 110. Arms are raised.

    Examples
    --------
    >>> adult = stylised_adult("female", spacing_mm=(6, 6, 6), variation=0)
    >>> round(adult.mass_g()["liver"]), adult.target_mass_g["liver"]
    (1400, 1400.0)
    """
    require_sex(sex)
    if len(spacing_mm) != 3 or not all(0.5 <= s <= 8.0 for s in spacing_mm):
        raise SynthDoseError(f"spacing_mm has to be three sizes from 0.5 to 8 mm; found {spacing_mm}.")
    if not 0 <= variation <= 1.5:
        raise SynthDoseError(f"variation has to be from 0 (reference person) to 1.5; found {variation}.")
    if field_of_view not in FIELDS_OF_VIEW:
        raise SynthDoseError(f"'{field_of_view}' is not a field of view. Allowed: {', '.join(FIELDS_OF_VIEW)}.")
    if seed < 0:
        raise SynthDoseError(f"seed has to be 0 or more; found {seed}.")

    person = _Person(sex, seed, variation)
    grid = person.grid(spacing_mm, FIELDS_OF_VIEW[field_of_view], margin_mm)
    canvas = Canvas(*person.coordinates(grid), grid.voxel_volume_ml)
    body = Body(person.build)
    masses = person.masses_g()
    paint_body(canvas, body)
    grid, canvas = _without_air(grid, canvas, margin_mm)
    placement = Placement(canvas, body, masses, person.jitter)
    place_head(placement)
    place_cord(placement)
    bones = place_skeleton(canvas, body, masses)
    place_chest(placement)
    place_abdomen(placement)
    paint_fat_planes(canvas, body)

    labels = LabelMap(grid, canvas.labels, organ_table(canvas.names))
    targets = {**placement.asked_g, "skeleton": sum(bones.values())}
    return StylisedAdult(labels, canvas.tissues, TISSUES, targets, sex, person.height_m, person.weight_kg, seed)


COUCH_ROOM_MM = 20.0
"""Air behind the body beyond the margin, so that a couch has room in the image."""


def _without_air(grid: VoxelGrid, canvas: Canvas, margin_mm: float) -> tuple[VoxelGrid, Canvas]:
    """Crop rows and columns to the body and its margin; the grid's axes run to the left and back."""
    slices = []
    for axis, (before, after), spacing in (
        (1, (margin_mm, margin_mm + COUCH_ROOM_MM), grid.spacing_mm[1]),
        (2, (margin_mm, margin_mm), grid.spacing_mm[0]),
    ):
        body = np.flatnonzero(canvas.free.any(axis=(0, 3 - axis)))
        first = max(0, int(body[0] - np.ceil(before / spacing)))
        last = min(grid.shape[axis], int(body[-1] + 1 + np.ceil(after / spacing)))
        slices.append(slice(first, last))
    rows, columns = slices
    shape = (grid.shape[0], rows.stop - rows.start, columns.stop - columns.start)
    return grid.crop((0, rows.start, columns.start), shape), canvas.cropped(rows, columns)


class _Person:
    """The random numbers of one person, drawn by name, so that they do not depend on the grid or on each other."""

    def __init__(self, sex: str, seed: int, variation: float) -> None:
        self.sex, self.seed, self.variation = sex, seed, variation
        self.size = _SIZE[sex] * (1 + 0.035 * self._normal("height"))
        self.width = _SIZE[sex] ** 0.75 * (1 + 0.035 * self._normal("width"))
        fat = float(np.exp(0.28 * self._normal("fat")))
        self.lungs = float(np.exp(0.07 * self._normal("lungs")))
        stature, breadth = self.size / _SIZE[sex], self.width / _SIZE[sex] ** 0.75
        roominess = self.lungs * stature / breadth**2  # volume of the lungs over what the scaled chest would hold
        self.build = Build(
            sex,
            fat=fat,
            girth=1 + 0.03 * self._normal("girth") + 0.04 * (fat - 1),
            chest=(0.95 if sex == "female" else 0.98) * (1 + 0.025 * self._normal("chest")) * roominess**0.5,
            depth=1 + 0.03 * self._normal("depth") + 0.04 * (fat - 1),
            dome_mm=5 * self._normal("dome"),
        )
        self.angle = np.radians(2.0) * self._normal("turn")
        self.shift = np.array([8.0, 8.0, 15.0]) * [self._normal(f"shift {axis}") for axis in "xyz"]
        self.lean = 0.02 * self._normal("lean")
        self.height_m = REFERENCE_HEIGHT_M[sex] * self.size / _SIZE[sex]
        girth = (self.width / _SIZE[sex] ** 0.75) ** 2 * self.size / _SIZE[sex]
        self.weight_kg = reference_masses(sex)["total_body"] / 1000 * girth * (1 + 0.25 * (fat - 1))

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, SEXES.index(self.sex), zlib.crc32(name.encode())])

    def _normal(self, name: str) -> float:
        return float(self._normals(name, 1)[0])

    def _normals(self, name: str, number: int) -> NDArray[np.float64]:
        return np.clip(self._random(name).standard_normal(number), -2, 2) * self.variation

    def masses_g(self) -> dict[str, float]:
        """Mass asked per organ and bone."""
        reference = dict(reference_masses(self.sex))
        # the aorta is taken as half of the trunk's large vessels, the duodenum as 7 % of the small intestine
        reference["aorta"] = 0.5 * reference.pop("blood_vessels_trunk")
        reference["duodenum"] = 0.07 * reference["small_bowel"]
        reference["small_bowel"] *= 0.93
        stature = self.size / _SIZE[self.sex]
        person = stature**2
        spread = {"urinary_bladder": 0.25, "gallbladder": 0.2, "stomach": 0.18, "spleen": 0.18, "lung_right": 0.0}
        result = {}
        bone = float(np.exp(0.05 * self._normal("bones")))
        boney = {"cranium", "mandible", "sacrum", "pelvis", "ribs", "sternum", "scapulae", "clavicles"}
        for name, mass in reference.items():
            if name.startswith("lung_"):
                factor = self.lungs
            elif name in boney or name.endswith(("_spine", "_half")):
                factor = bone
            else:
                factor = float(np.exp(spread.get(name, 0.09) * self._normal(f"mass {name}")))
            result[name] = mass * person * factor
        return result

    def jitter(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift, mm, and size factors of an organ."""
        shift = self._normals(f"place {name}", 3) * np.array([2.5, 2.5, 4.0])
        return shift, np.exp(0.05 * self._normals(f"shape {name}", 3))

    def grid(self, spacing_mm: tuple[float, float, float], extent: tuple[float, float], margin_mm: float) -> VoxelGrid:
        """Axial grid around the person, axes to the left, back and head."""
        spacing = np.asarray(spacing_mm, np.float64)
        fat = 22 * self.build.fat * (1.35 if self.sex == "female" else 1.0)
        breast = 25 if self.sex == "female" else 0
        side = max((176 + fat) * self.build.girth, 218.0) * self.width + margin_mm
        back = (118 + 0.6 * fat) * self.build.depth * self.width + margin_mm + COUCH_ROOM_MM
        front = (134 + 0.6 * fat + breast) * self.build.depth * self.width + margin_mm
        low = np.array([-side, -back, extent[0] * self.size])
        high = np.array([side, front, extent[1] * self.size])
        count = np.ceil((high - low) / spacing).astype(int)
        middle = (low + high) / 2 + self.shift
        directions = np.diag([-1.0, -1.0, 1.0])
        origin = middle - directions @ (spacing * (count - 1) / 2)
        shape = (int(count[2]), int(count[1]), int(count[0]))
        return VoxelGrid.from_spacing(shape, (spacing[0], spacing[1], spacing[2]), origin, directions)

    def coordinates(self, grid: VoxelGrid) -> tuple[Floats, Floats, Floats]:
        """Place of every voxel in the reference person, mm; inside the person it bends and swells a little."""
        nk, nj, ni = grid.shape
        origin, step = grid.ijk_to_ras[:3, 3] - self.shift, grid.ijk_to_ras[:3, :3].diagonal()
        x0 = (origin[0] + step[0] * np.arange(ni)).astype(np.float32)[None, None, :]
        y0 = (origin[1] + step[1] * np.arange(nj)).astype(np.float32)[None, :, None]
        z0 = (origin[2] + step[2] * np.arange(nk)).astype(np.float32)[:, None, None] / np.float32(self.size)
        cosine, sine = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        x = (cosine * x0 + sine * y0) / np.float32(self.width) - np.float32(self.lean) * z0
        y = np.broadcast_to((cosine * y0 - sine * x0) / np.float32(self.width), x.shape)
        amplitude = self._normals("warp", 3) * np.array([3.0, 3.0, 4.0])
        phase = self._random("warp phase").uniform(0, 2 * np.pi, (3, 2))
        xs, ys = x0 / np.float32(self.width), y0 / np.float32(self.width)
        x = x + (amplitude[0] * np.sin(z0 / 70 + phase[0, 0]) * np.cos(ys / 60 + phase[0, 1])).astype(np.float32)
        y = y + (amplitude[1] * np.sin(z0 / 80 + phase[1, 0]) * np.cos(xs / 60 + phase[1, 1])).astype(np.float32)
        z = z0 + (amplitude[2] * np.sin(xs / 70 + phase[2, 0]) * np.cos(ys / 60 + phase[2, 1])).astype(np.float32)
        return (
            np.ascontiguousarray(x, np.float32),
            np.ascontiguousarray(y, np.float32),
            np.ascontiguousarray(np.broadcast_to(z, grid.shape), np.float32),
        )
