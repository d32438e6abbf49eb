"""Outline, rib cage and abdominal cavity of the stylised adult, as smooth functions of the position.

Positions are those of the reference person in mm: x to the right, y to the front, z upwards, from the middle of the
vertebra L4. Levels and extents follow common anatomical landmarks, checked against the labelled CT of an adult.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .stylised_canvas import Canvas, Floats, tubes
from .stylised_reference import TISSUE_INDEX

# z, half width, front, back of the muscle surface under the fat
_FASCIA = (
    (-215, 150, 84, -80), (-185, 164, 92, -90), (-150, 166, 100, -94), (-100, 158, 108, -96), (-50, 148, 118, -92),
    (0, 142, 122, -90), (60, 144, 126, -92), (120, 152, 132, -98), (180, 158, 132, -106), (240, 158, 126, -112),
    (300, 156, 114, -116), (340, 156, 98, -116), (370, 150, 78, -112), (395, 112, 56, -106), (415, 78, 42, -98),
    (440, 58, 40, -90), (480, 54, 42, -84), (540, 56, 46, -84), (570, 52, 40, -80),
)  # fmt: skip
# the same of the middle of the ribs
_CAGE = (
    (20, 120, 108, -66), (60, 134, 112, -72), (120, 145, 118, -80), (180, 147, 116, -90), (240, 142, 108, -98),
    (300, 130, 92, -100), (340, 112, 72, -96), (370, 90, 52, -92), (395, 66, 30, -84), (415, 44, 8, -74),
    (430, 24, -14, -60),
)  # fmt: skip
# the same of the inside of the abdominal wall and the pelvis
_CAVITY = (
    (-200, 26, 22, -40), (-175, 44, 44, -52), (-140, 60, 76, -54), (-100, 84, 96, -46), (-60, 110, 106, -34),
    (-20, 128, 110, -32), (20, 132, 114, -40), (60, 134, 116, -52), (100, 136, 116, -62), (140, 138, 112, -70),
    (200, 138, 108, -78), (240, 132, 100, -84),
)  # fmt: skip
# z, fat thickness
_FAT = (
    (-330, 11), (-215, 14), (-150, 19), (-90, 22), (0, 20), (60, 17), (140, 12), (240, 10), (330, 9), (380, 8),
    (430, 6), (700, 5),
)  # fmt: skip

_TABLE_BOTTOM, _TABLE_TOP = -800.0, 900.0


class Profile:
    """Half width, middle and half depth of a cross-section along z, with soft corners."""

    def __init__(self, table: tuple[tuple[float, ...], ...], wide: float = 1.0, deep: float = 1.0) -> None:
        z, width, front, back = np.asarray(table, np.float64).T
        grid = np.arange(_TABLE_BOTTOM, _TABLE_TOP)
        smooth = [np.interp(grid, z, column) for column in (width * wide, (front + back) / 2, (front - back) / 2 * deep)]
        self.half_width, self.middle, self.half_depth = (column.astype(np.float32) for column in smooth)

    def at(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Half width, middle in y and half depth at `z`."""
        index = np.clip(z - _TABLE_BOTTOM, 0, self.half_width.size - 1).astype(np.int32)
        return self.half_width[index], self.middle[index], self.half_depth[index]

    def ratio(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """0 in the middle, 1 on the outline."""
        width, middle, depth = self.at(z)
        u = (x / width) ** 2
        v = ((y - middle) / depth) ** 2
        total = u + v
        return np.sqrt(total - 0.52 * u * v / (total + np.float32(1e-9)))

    def outside_mm(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Distance from the outline along the ray from the middle, mm; negative inside."""
        _, middle, _ = self.at(z)
        ratio = self.ratio(x, y, z) + np.float32(1e-6)
        return np.hypot(x, y - middle) * (1 - 1 / ratio)

    def point(self, angle: NDArray[np.float64], z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x, y on the outline at `angle` (0 at the back, pi/2 at the right, pi at the front) and `z`."""
        width, middle, depth = (np.asarray(part, np.float64) for part in self.at(z.astype(np.float32)))
        x, y = np.sin(angle) * width, -np.cos(angle) * depth
        ratio = self.ratio(x.astype(np.float32), (y + middle).astype(np.float32), z.astype(np.float32))
        return x / ratio, y / ratio + middle


@dataclass(frozen=True)
class Build:
    """How one person differs from the reference person.

    Attributes
    ----------
    sex : str
    fat : float
        Factor on the thickness of the subcutaneous fat.
    girth, chest, depth : float
        Factors on the width of the abdomen, on width and depth of the rib cage, and on the depth of the abdomen.
    dome_mm : float
        How much higher the diaphragm stands than in the reference person; the lungs' volume moves it further.
    """

    sex: str
    fat: float = 1.0
    girth: float = 1.0
    chest: float = 1.0
    depth: float = 1.0
    dome_mm: float = 0.0


class Body:
    """The person without organs: which voxel is fat, muscle, chest or abdominal cavity."""

    def __init__(self, build: Build) -> None:
        self.build = build
        hips = 1.05 if build.sex == "female" else 1.0
        fascia = tuple((z, w * (hips if z < -40 else build.girth if z < 110 else build.chest), f, b) for z, w, f, b in _FASCIA)
        cavity = tuple((z, w * (hips if z < -40 else build.girth if z < 110 else build.chest), f, b) for z, w, f, b in _CAVITY)
        self.fascia = Profile(fascia, deep=build.depth)
        self.cage = Profile(_CAGE, build.chest, build.depth)
        self.cavity = Profile(cavity, deep=build.depth)
        self.hips = hips

    def fat_mm(self, z: Floats) -> Floats:
        """Thickness of the subcutaneous fat, mm."""
        heights, thickness = np.asarray(_FAT, np.float64).T
        factor = self.build.fat * (1.35 if self.build.sex == "female" else 1.0)
        grid = np.interp(np.arange(_TABLE_BOTTOM, _TABLE_TOP), heights, thickness * factor).astype(np.float32)
        return np.asarray(grid[np.clip(z - _TABLE_BOTTOM, 0, grid.size - 1).astype(np.int32)])

    def diaphragm_mm(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Height of the diaphragm above or below (x, y), mm: two domes, the right one higher, low at the back."""
        # the wall's outline is taken at one level, so that the height does not depend on z
        level = np.full_like(x, 150.0)
        ratio = np.minimum(self.cage.ratio(x, y, level), np.float32(1.0))
        rim = 128 + np.float32(0.26) * (y + 80)
        peak = 200 + self.build.dome_mm + 7 * np.tanh(x / 40) - 9 * np.exp(-((x / 28) ** 2))
        return np.asarray(rim + (peak - rim) * (1 - ratio**3), np.float32)

    def outside_mm(self, canvas: Canvas) -> Floats:
        """Distance of every voxel from the muscle surface, mm; negative inside."""
        x, y, z = canvas.x, canvas.y, canvas.z
        outside = np.maximum(self.fascia.outside_mm(x, y, z), np.maximum(y**2 / 170 - 208 - z, z - 565))
        self._join_legs(canvas, outside)
        self._join_arms(canvas, outside)
        self._join_head(canvas, outside)
        return outside

    def _join_legs(self, canvas: Canvas, outside: Floats) -> None:
        where = canvas.slices(((-300, 300), (-200, 200), (-900, -50)))
        x, y, z = canvas.x[where], canvas.y[where], canvas.z[where]
        drop = np.clip((-150 - z) / 300, 0, 1)
        radius = 84 - 20 * drop - np.float32(0.006) * np.clip(z + 150, 0, 200) ** 2
        leg = np.hypot(np.abs(x) - (90 - 4 * drop) * self.hips, (y - 6) / np.float32(1.06)) - radius
        np.minimum(outside[where], leg, out=outside[where])

    def _join_arms(self, canvas: Canvas, outside: Floats) -> None:
        box = ((-290.0, 290.0), (-120.0, 70.0), (300.0, 900.0))
        where = canvas.slices(box)
        x, y, z = np.abs(canvas.x[where]), canvas.y[where], canvas.z[where]
        flat = np.flatnonzero((x > 80) & (z > 310))
        line = [(124, -48, 335), (146, -46, 385), (158, -34, 440), (160, -18, 540), (156, 0, 640), (150, 10, 760)]
        radii = np.array([45, 47, 44, 42, 38, 36])
        field = tubes([(line, radii)], step_mm=4.0)
        ratio = field(x.ravel()[flat], y.ravel()[flat], z.ravel()[flat])
        arm = np.full(x.size, np.inf, np.float32)
        arm[flat] = (ratio - 1) * 42
        np.minimum(outside[where], arm.reshape(x.shape), out=outside[where])

    def _join_head(self, canvas: Canvas, outside: Floats) -> None:
        where = canvas.slices(((-120, 120), (-140, 140), (480, 760)))
        x, y, z = canvas.x[where], canvas.y[where], canvas.z[where]
        cranium = (np.sqrt((x / 78) ** 2 + ((y + 2) / 97) ** 2 + ((z - 628) / 92) ** 2) - 1) * 85
        face = (np.sqrt((x / 62) ** 2 + ((y - 40) / 62) ** 2 + ((z - 565) / 78) ** 2) - 1) * 64
        np.minimum(outside[where], np.minimum(cranium, face), out=outside[where])


def paint_body(canvas: Canvas, body: Body) -> None:
    """Fill fat, muscle and skin; only the body's voxels stay free for organs."""
    outside = body.outside_mm(canvas)
    skin = body.fat_mm(canvas.z)
    _add_breasts(canvas, body, outside, skin)
    inside = outside < skin
    canvas.tissues[inside] = TISSUE_INDEX["fat"]
    canvas.tissues[inside & (outside > skin - 2.0)] = TISSUE_INDEX["skin"]
    canvas.tissues[outside < 0] = TISSUE_INDEX["muscle"]
    canvas.free &= inside
    if body.build.sex == "female":
        _paint_glands(canvas)


def _add_breasts(canvas: Canvas, body: Body, outside: Floats, skin: Floats) -> None:
    female = body.build.sex == "female"
    width, front, high = (62, 44, 62) if female else (52, 14, 44)
    where = canvas.slices(((-200, 200), (20, 240), (150, 360)))
    x, y, z = np.abs(canvas.x[where]), canvas.y[where], canvas.z[where]
    bulge = (np.sqrt(((x - 80) / width) ** 2 + ((y - 112) / front) ** 2 + ((z - 255) / high) ** 2) - 1) * front
    # pushes the skin outwards without moving the muscle
    np.maximum(skin[where], np.where(bulge < 0, outside[where] - bulge, 0), out=skin[where])


def _paint_glands(canvas: Canvas) -> None:
    where = canvas.slices(((-140, 140), (80, 200), (200, 310)))
    x, y, z = np.abs(canvas.x[where]), canvas.y[where], canvas.z[where]
    gland = ((x - 80) / 36) ** 2 + ((y - 128) / 22) ** 2 + ((z - 252) / 36) ** 2 < 1
    tissues = canvas.tissues[where]
    tissues[gland & (tissues == TISSUE_INDEX["fat"])] = TISSUE_INDEX["breast"]
