"""Fat between the muscles, by which a reader of a CT tells them apart; reference frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .people_body import Body
from .people_canvas import Box, Canvas, Field, Floats
from .people_skeleton import spine_y

HALF_THICKNESS_MM = 1.7
FAR = 99.0


def paint_fat_planes(canvas: Canvas, body: Body, leanness: float = 1.0) -> None:
    """Put fat along the surfaces that part the muscles of thigh, buttock, back, loin, belly and chest.

    `leanness` scales the planes' thickness: less in lean people.
    """
    planes: tuple[tuple[Box, Field], ...] = (
        (((-190, 190), (-110, 110), (-520, -190)), _thigh(body)),
        (((-110, 110), (-70, 60), (-900, -580)), _calf),
        (((-190, 190), (-130, -2), (-225, -40)), _buttock(body)),
        (((-90, 90), (-125, 10), (-60, 330)), _back(body)),
        (((-130, 130), (-60, 75), (-160, 108)), _loin(body)),
        (((-170, 170), (20, 170), (215, 372)), _chest(body)),
        (((-190, 190), (-60, 180), (-110, 110)), _belly(body)),
    )
    limit = HALF_THICKNESS_MM * leanness

    for box, distance in planes:

        def near(x: Floats, y: Floats, z: Floats, distance: Field = distance) -> NDArray[np.bool_]:
            return distance(x, y, z) < limit

        canvas.fill(box, near, "torso_fat", "fat")


def _thigh(body: Body) -> Field:
    """Planes that run outwards from the femur, and a sheath around the hamstrings."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        drop = np.clip((-150 - z) / 300, 0, 1)
        across = np.abs(x) - (104 - 8 * drop) * body.build.hips
        radius = np.hypot(across, y - 2)
        angle = np.arctan2(y - 2, across) + 0.25 * np.sin(z / 90) + 0.3 * np.sin(radius / 16)
        nearest = np.full(radius.shape, FAR, np.float32)
        for at in (-2.5, -1.3, 0.1, 2.2):
            turn = np.abs((angle - at + np.pi) % (2 * np.pi) - np.pi)
            np.minimum(nearest, np.where((radius > 24) & (radius < 74), radius * turn, FAR), out=nearest)
        return nearest

    return distance


def _calf(x: Floats, y: Floats, z: Floats) -> Floats:
    across = np.abs(x) - 88
    radius = np.hypot(across, y + 12)
    plane = np.abs(y + 26 + 0.25 * across)
    return np.asarray(np.where(radius < 44, plane, FAR) + np.clip(z + 650, 0, 90) / 40, np.float32)


def _buttock(body: Body) -> Field:
    """Between the large gluteal muscle and those under it, and between these."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        outside = body.fascia.outside_mm(x, y, z)
        under = np.abs(outside + 28 - 0.05 * (z + 120))
        deeper = np.where((y > -70) & (z > -130), np.abs(outside + 46), FAR)
        return np.where(np.abs(x) > 14, np.minimum(under, deeper), FAR).astype(np.float32)

    return distance


def _back(body: Body) -> Field:
    """Around the long muscles beside the spine, and between their strands."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        size = np.interp(z, [-60, 60, 200, 330], [0.85, 1.0, 0.75, 0.5]).astype(np.float32)
        centre = spine_y(z, body.build.lordosis) - np.interp(z, [-60, 60, 200, 330], [58, 58, 42, 38]).astype(np.float32)
        across = np.abs(x) - 36 * size
        ratio = np.sqrt((across / 34) ** 2 + ((y - centre) / 25) ** 2) / size
        sheath = np.abs(ratio - 1) * 28 * size
        strand = np.where(ratio < 0.9, np.abs(across + 0.35 * (y - centre) + 5 * np.sin(z / 35)) * 1.6, FAR)
        return np.asarray(np.minimum(sheath, strand), np.float32)

    return distance


def _loin(body: Body) -> Field:
    """Around psoas, iliacus and the square muscle of the loin."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        centre = np.interp(z, [-160, -60, 0, 108], [88, 66, 46, 28]).astype(np.float32)
        size = np.interp(z, [-160, -60, 40, 108], [22, 26, 22, 11]).astype(np.float32)
        middle = np.where(z < -40, 22, spine_y(z, body.build.lordosis) - 1)
        psoas = np.abs(np.hypot(np.abs(x) - centre, y - middle) - size)
        square = np.abs(np.sqrt(((np.abs(x) - 58) / 30) ** 2 + ((y + 44) / 13) ** 2) - 1) * 15
        return np.asarray(np.minimum(psoas, np.where((z > -30) & (z < 110), square, FAR)), np.float32)

    return distance


def _belly(body: Body) -> Field:
    """Between the three flat muscles of the flank, beside the straight ones in front, and between these."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        outside = body.fascia.outside_mm(x, y, z)
        flank = np.minimum(np.abs(outside + 5.5), np.abs(outside + 11.5))
        flank = np.where((np.abs(x) > 72) & (outside > -16) & (outside < -2), flank + 0.8, FAR)
        straight = np.where((y > 60) & (outside > -16) & (outside < -1), np.minimum(np.abs(np.abs(x) - 74), np.abs(x)), FAR)
        return np.asarray(np.minimum(flank, straight), np.float32)

    return distance


def _chest(body: Body) -> Field:
    """Between the ribs and the chest muscles, and between these."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.where(np.abs(x) > 24, np.abs(-body.fascia.outside_mm(x, y, z) - 9), FAR).astype(np.float32)

    return distance
