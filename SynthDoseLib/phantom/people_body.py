"""Outline of a person without organs: muscle surface, rib cage, abdominal cavity, diaphragm, legs, head and arms.

Tables are in the reference frame (see `people_canvas`): levels and extents after common anatomical landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .people_canvas import BodyFrame, Canvas, Floats, Shells
from .people_shapes import Tubes

# z, half width, front, back of the muscle surface under the fat
_FASCIA = (
    (-230, 156, 84, -84), (-185, 166, 92, -94), (-150, 166, 100, -96), (-100, 158, 108, -96), (-50, 146, 116, -92),
    (0, 138, 118, -92), (60, 142, 122, -96), (120, 152, 130, -102), (180, 158, 132, -108), (240, 160, 126, -114),
    (300, 160, 112, -118), (340, 158, 94, -118), (370, 148, 76, -114), (395, 108, 56, -108), (415, 76, 42, -100),
    (440, 59, 40, -92), (480, 54, 42, -84), (530, 54, 46, -80), (550, 48, 40, -74), (570, 38, 30, -66),
)  # fmt: skip
# the same of the middle of the ribs
_CAGE = (
    (20, 120, 106, -66), (60, 132, 112, -74), (120, 143, 118, -84), (180, 147, 116, -93), (240, 144, 108, -100),
    (300, 133, 92, -102), (340, 114, 72, -98), (370, 90, 52, -93), (395, 66, 30, -85), (415, 44, 8, -75),
    (430, 24, -14, -60),
)  # fmt: skip
# the same of the inside of the abdominal wall and the pelvis
_CAVITY = (
    (-200, 30, 22, -44), (-175, 46, 44, -58), (-140, 62, 76, -62), (-100, 86, 98, -52), (-60, 108, 106, -38),
    (-20, 122, 108, -36), (20, 124, 112, -44), (60, 128, 114, -56), (100, 133, 116, -66), (140, 137, 112, -74),
    (200, 138, 108, -80), (240, 132, 100, -86),
)  # fmt: skip
# z, middle in x and y, radius of a leg
_LEG = (
    (-120, 92, 2, 60), (-208, 91, 4, 82), (-300, 90, 6, 79), (-420, 89, 6, 68), (-510, 88, 2, 56), (-560, 88, 0, 55),
    (-610, 88, -6, 53), (-690, 88, -14, 55), (-800, 88, -14, 43), (-900, 88, -12, 33), (-960, 88, -10, 33),
    (-1000, 88, -8, 30),
)  # fmt: skip
# z, thickness of the fat relative to elsewhere
_FAT = (
    (-1040, 0.25), (-900, 0.25), (-560, 0.4), (-330, 0.7), (-215, 1.0), (-150, 1.35), (-90, 1.55), (0, 1.45), (60, 1.25),
    (140, 0.95), (240, 0.75), (330, 0.65), (380, 0.55), (430, 0.45), (520, 0.4), (600, 0.22), (720, 0.2),
)  # fmt: skip

ARM_FAT = np.float32(0.55)


class Profile:
    """Half width, middle and half depth of a cross-section along z."""

    def __init__(self, table: tuple[tuple[float, ...], ...]) -> None:
        rows = np.asarray(table, np.float64)
        self.z, self.half_width, front, back = rows[np.argsort(rows[:, 0])].T
        self.middle, self.half_depth = (front + back) / 2, (front - back) / 2

    def at(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Half width, middle in y and half depth at `z`."""
        columns = (self.half_width, self.middle, self.half_depth)
        width, middle, depth = (np.interp(z, self.z, column).astype(np.float32) for column in columns)
        return width, middle, depth

    def ratio(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """0 in the middle, 1 on the outline, which is an ellipse with fuller corners."""
        width, middle, depth = self.at(z)
        u, v = (x / width) ** 2, ((y - middle) / depth) ** 2
        total = u + v
        return np.asarray(np.sqrt(total - np.float32(0.52) * u * v / (total + np.float32(1e-9))), np.float32)

    def outside_mm(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Distance from the outline along the ray from the middle, mm; negative inside."""
        _, middle, _ = self.at(z)
        ratio = self.ratio(x, y, z) + np.float32(1e-6)
        return np.asarray(np.hypot(x, y - middle) * (1 - 1 / ratio), np.float32)

    def point(self, angle: NDArray[np.float64], z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x, y on the outline at `angle` (0 at the back, pi/2 at the right, pi at the front) and `z`."""
        width, middle, depth = (np.asarray(part, np.float64) for part in self.at(z.astype(np.float32)))
        x, y = np.sin(angle) * width, -np.cos(angle) * depth
        ratio = self.ratio(x.astype(np.float32), (y + middle).astype(np.float32), z.astype(np.float32))
        return x / ratio, y / ratio + middle


@dataclass(frozen=True)
class Build:
    """How one person differs in shape from the reference person.

    Attributes
    ----------
    sex : str
    girth : float
        Factor on the width and depth of the abdomen.
    chest : float
        Factor on the width of the rib cage.
    hips : float
        Factor on the width of the pelvis.
    belly : float
        How far the front of the abdomen bulges beyond the reference, as a factor on its depth.
    lordosis : float
        Factor on the curvature of the spine: a newborn's is nearly straight.
    """

    sex: str
    girth: float = 1.0
    chest: float = 1.0
    hips: float = 1.0
    belly: float = 1.0
    lordosis: float = 1.0


@dataclass(frozen=True)
class Arm:
    """One arm in the body frame, mm: joints shoulder, elbow, wrist, end of the hand, and the radius of its muscles there."""

    joints: NDArray[np.float64]
    radii: NDArray[np.float64]

    def field(self) -> Tubes:
        """Surface of the muscles."""
        line = np.concatenate([self.joints[:1] + (self.joints[:1] - self.joints[1:2]) * 0.05, self.joints])
        middle = line[1:-1] + 0.45 * np.diff(line[1:], axis=0)
        points = np.concatenate([line[:2], middle[:1], line[2:3], middle[1:2], line[3:4], middle[2:3], line[4:]])
        r = self.radii
        radii = np.array([r[0] * 0.9, r[0], 0.95 * r[0], r[1], 0.96 * r[1], r[2], 1.1 * r[2], 0.55 * r[2]])
        return Tubes([(points, radii)])


class Body:
    """The person without organs."""

    def __init__(self, build: Build, arms: tuple[Arm, ...], frame: BodyFrame) -> None:
        self.build, self.arms, self.frame = build, arms, frame

        def widen(row: tuple[float, ...], wall: bool) -> tuple[float, ...]:
            z, width, front, back = row
            abdomen = float(np.clip(1 - abs(z - 20) / 170, 0, 1))
            factor = build.hips if z < -60 else 1 + (build.girth - 1) * max(abdomen, 0.35)
            factor = factor if z < 150 else build.chest
            return z, width * factor, front * (1 + (build.belly - 1) * abdomen), back

        self.fascia = Profile(tuple(widen(row, True) for row in _FASCIA))
        self.cavity = Profile(tuple(widen(row, False) for row in _CAVITY))
        self.cage = Profile(tuple((z, w * build.chest, f, b) for z, w, f, b in _CAGE))
        leg = np.asarray(_LEG, np.float64)
        self._leg = leg[np.argsort(leg[:, 0])].T

    def diaphragm_mm(self, x: Floats, y: Floats) -> Floats:
        """Height of the drawn diaphragm at (x, y), mm: two domes, the right one higher, low at the back and the sides."""
        level = np.full((1, 1, 1), 150.0, np.float32)
        ratio = np.minimum(self.cage.ratio(x, y, level), np.float32(1.0))
        rim = 122 + np.float32(0.30) * (y + 80)
        peak = 202 + 7 * np.tanh(x / 40) - 10 * np.exp(-((x / 28) ** 2))
        return np.asarray(rim + (peak - rim) * (1 - ratio**3), np.float32)

    def paint_distance(self, canvas: Canvas) -> Shells:
        """Distance from the muscle surface, mm, and relative thickness of the fat for all voxels."""
        shells = Shells(canvas)
        arms = [(arm.field(), float(arm.radii.mean())) for arm in self.arms]
        depth = max(4, int(6e6 / (canvas.shape[1] * canvas.shape[2])))
        for first in range(0, canvas.shape[0], depth):
            k = slice(first, min(first + depth, canvas.shape[0]))
            where = (k, slice(None), slice(None))
            x, y, z = canvas.coordinates(where)
            sx, sy = canvas.frame.scale(z.ravel().astype(np.float64))
            scale = np.sqrt(sx * sy).astype(np.float32)[:, None, None]
            distance, thickness = self._trunk(x, y, z)
            distance = distance * scale
            for arm, radius in arms:
                box = arm.box(2.2)
                zb = canvas.z[k]
                if zb[-1] < box[2][0] or zb[0] > box[2][1]:
                    continue
                # as if the arm were as thick as a thigh, so that muscles that are thinner than drawn are so in proportion
                value = (arm(*canvas.coordinates(where, body_frame=True)) - 1) * np.float32(1.8 * radius)
                nearer = value / ARM_FAT < distance / thickness
                distance = np.where(nearer, value, distance)
                thickness = np.where(nearer, ARM_FAT, thickness)
            shells.set(k, distance, thickness)
        return shells

    def _trunk(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Distance from trunk, legs and head, mm of the reference frame, and relative thickness of the fat."""
        heights, thick = np.asarray(_FAT, np.float64).T
        relative = np.interp(z, heights, thick).astype(np.float32)
        distance = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), 600.0, np.float32)
        trunk = np.flatnonzero((z.ravel() > -300) & (z.ravel() < 600))
        if trunk.size:
            k = slice(int(trunk[0]), int(trunk[-1]) + 1)
            end = np.maximum(y[k] ** 2 / 170 - 212 - z[k], z[k] - 566)
            distance[k] = np.maximum(self.fascia.outside_mm(x[k], y[k], z[k]), end)
        legs = np.flatnonzero(z.ravel() < -100)
        if legs.size:
            k = slice(int(legs[0]), int(legs[-1]) + 1)
            np.minimum(distance[k], self._legs(x[k], y[k], z[k]), out=distance[k])
        head = np.flatnonzero(z.ravel() > 470)
        if head.size:
            k = slice(int(head[0]), int(head[-1]) + 1)
            np.minimum(distance[k], _head(x[k], y[k], z[k]), out=distance[k])
        # more fat on flanks, back of the loin and buttocks than in the middle of the back and the front of the chest
        behind = np.clip(-y / 90, -1, 1)
        side = np.clip(np.abs(x) / 140, 0, 1)
        low = np.clip(1 - np.abs(z + 60) / 260, 0, 1)
        shape = 1 + low * (0.45 * behind * (0.4 + side) - 0.25 * (np.abs(x) < 25) * (behind > 0.6))
        return distance, np.asarray(relative * shape, np.float32)

    def _legs(self, x: Floats, y: Floats, z: Floats) -> Floats:
        heights, cx, cy, radius = self._leg
        centre = np.interp(z, heights, cx).astype(np.float32)
        hips = np.interp(z, [-500, -200], [1.0, self.build.hips]).astype(np.float32)
        middle, r = np.interp(z, heights, cy).astype(np.float32), np.interp(z, heights, radius).astype(np.float32)
        across = np.abs(x) - centre * hips
        leg = np.hypot(across, (y - middle) / np.float32(1.05)) - r
        # the leg ends above the sole; the foot reaches forward
        leg = np.maximum(leg, -1033 - z)
        foot = np.maximum(np.hypot(across / 0.86, np.maximum(np.abs(y - 62) - 78, 0)) - 37, np.abs(z + 1004) - 29)
        slope = np.maximum(foot, (z + 1024) + (y - 150) * np.float32(0.30) - 12)
        return np.asarray(np.minimum(leg, slope), np.float32)


def _head(x: Floats, y: Floats, z: Floats) -> Floats:
    """Distance from the muscles and skin of scalp and face, mm."""
    cranium = (np.sqrt((x / 76) ** 2 + ((y + 2) / 95) ** 2 + ((z - 628) / 89) ** 2) - 1) * 84
    face = (np.sqrt((x / 62) ** 2 + ((y - 38) / 62) ** 2 + ((z - 566) / 70) ** 2) - 1) * 62
    jaw = (np.sqrt((x / 52) ** 2 + ((y - 44) / 50) ** 2 + ((z - 532) / 36) ** 2) - 1) * 42
    nose = (np.sqrt((x / 15) ** 2 + ((y - 96) / 24) ** 2 + ((z - 582) / 22) ** 2) - 1) * 16
    return np.asarray(np.minimum(np.minimum(cranium, face), np.minimum(jaw, nose)), np.float32)
