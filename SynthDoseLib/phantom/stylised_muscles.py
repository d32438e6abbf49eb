"""Fat between the muscles, by which a reader of a CT tells them apart."""

from __future__ import annotations

import numpy as np

from .stylised_body import Body
from .stylised_canvas import Box, Canvas, Field, Floats
from .stylised_reference import TISSUE_INDEX
from .stylised_skeleton import spine_y

HALF_THICKNESS_MM = 1.9


def paint_fat_planes(canvas: Canvas, body: Body) -> None:
    """Turn muscle into fat along the surfaces that part the muscles of thigh, buttock, back, loin and chest."""
    planes: tuple[tuple[Box, Field], ...] = (
        (((-190, 190), (-110, 110), (-500, -190)), _thigh(body)),
        (((-190, 190), (-130, -6), (-215, -40)), _buttock(body)),
        (((-80, 80), (-115, 10), (-60, 330)), _back),
        (((-130, 130), (-40, 75), (-160, 108)), _loin),
        (((-170, 170), (20, 150), (225, 370)), _chest(body)),
    )
    for box, distance in planes:
        where = canvas.slices(box)
        x, y, z = canvas.x[where], canvas.y[where], canvas.z[where]
        (x0, x1), (y0, y1), (z0, z1) = box
        tissues = canvas.tissues[where]
        muscle = (tissues == TISSUE_INDEX["muscle"]) & (x > x0) & (x < x1) & (y > y0) & (y < y1) & (z > z0) & (z < z1)
        flat = np.flatnonzero(muscle)
        chosen = flat[distance(x.ravel()[flat], y.ravel()[flat], z.ravel()[flat]) < HALF_THICKNESS_MM]
        tissues[np.unravel_index(chosen, tissues.shape)] = TISSUE_INDEX["fat"]


def _thigh(body: Body) -> Field:
    """Planes that run outwards from the femur, and a sheath around the hamstrings."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        drop = np.clip((-150 - z) / 300, 0, 1)
        across = np.abs(x) - (104 - 2 * drop) * body.hips
        ahead = y - 2
        radius = np.hypot(across, ahead)
        angle = np.arctan2(ahead, across) + 0.25 * np.sin(z / 90) + 0.3 * np.sin(radius / 16)
        nearest = np.full_like(x, 99)
        for at in (-2.5, -1.3, 0.1, 2.2):
            turn = np.abs((angle - at + np.pi) % (2 * np.pi) - np.pi)
            np.minimum(nearest, np.where(radius > 26, radius * turn, 99), out=nearest)
        return nearest

    return distance


def _buttock(body: Body) -> Field:
    """Between the large gluteal muscle and those under it."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        under = np.abs(body.fascia.outside_mm(x, y, z) + 27 - 0.05 * (z + 120))
        return np.where(np.abs(x) > 14, under, 99).astype(np.float32)

    return distance


def _back(x: Floats, y: Floats, z: Floats) -> Floats:
    """Around the long muscles beside the spine."""
    size = np.interp(z, [-60, 60, 200, 330], [0.8, 1.0, 0.75, 0.5]).astype(np.float32)
    centre = spine_y(z) - np.interp(z, [-60, 60, 200, 330], [58, 60, 42, 38]).astype(np.float32)
    ratio = np.sqrt(((np.abs(x) - 36 * size) / 33) ** 2 + ((y - centre) / 27) ** 2) / size
    return np.asarray(np.abs(ratio - 1) * 29 * size, np.float32)


def _loin(x: Floats, y: Floats, z: Floats) -> Floats:
    """Around psoas and iliacus."""
    centre = np.interp(z, [-160, -60, 0, 108], [88, 66, 46, 28]).astype(np.float32)
    size = np.interp(z, [-160, -60, 40, 108], [22, 25, 20, 10]).astype(np.float32)
    ratio = np.hypot(np.abs(x) - centre, y - np.where(z < -40, 24, 12))
    return np.asarray(np.abs(ratio - size), np.float32)


def _chest(body: Body) -> Field:
    """Between the ribs and the chest muscles, and between these."""

    def distance(x: Floats, y: Floats, z: Floats) -> Floats:
        depth = -body.fascia.outside_mm(x, y, z)
        return np.where(np.abs(x) > 24, np.abs(depth - 9), 99).astype(np.float32)

    return distance
