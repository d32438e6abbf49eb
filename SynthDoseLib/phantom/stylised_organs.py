"""Organs of the stylised adult: shapes at their places, in the order in which they take their room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .stylised_body import Body
from .stylised_canvas import Box, Canvas, Field, Floats, box_of, ellipsoid, rotation_to, tube, tubes
from .stylised_reference import TISSUE_INDEX, density_of
from .stylised_skeleton import canal_y, share_inside, spine_y

Jitter = Callable[[str], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Maps an organ name to its shift, mm (3,), and the factors on its size along x, y and z (3,)."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Placement:
    """What the organs' placing needs: canvas, body, masses to reach, and how this person's organs vary."""

    canvas: Canvas
    body: Body
    masses_g: dict[str, float]
    jitter: Jitter
    asked_g: dict[str, float] = field(default_factory=dict)

    def layers(self, name: str, tissue: str, share: float = 1.0, gas_ml: float = 0.0) -> list[tuple[str, int]]:
        """Voxels with the organ's mass, or with the share of it that is in view, around some gas; keeps what was asked."""
        mass = self.masses_g[name] * share
        self.asked_g[name] = mass
        gas = self.canvas.count(gas_ml, 1.0)
        mass -= gas * self.canvas.voxel_volume_ml * density_of("gas")
        layer = (tissue, self.canvas.count(mass, density_of(tissue)))
        return [("gas", gas), layer] if gas else [layer]

    def sunk_mm(self, side: int) -> float:
        """How far the organs under the right (1) or left (-1) dome of the diaphragm follow it."""
        return float(np.clip(0.8 * self.canvas.dome_mm[side], -35, 12))

    def line(self, name: str, points: ArrayLike, radii: ArrayLike) -> tuple[Field, NDArray[np.float64]]:
        """Tube with the organ's jitter, and its points."""
        shift, size = self.jitter(name)
        array = np.asarray(points, np.float64)
        middle = array.mean(axis=0)
        moved = middle + (array - middle) * size + shift
        return tube(moved, np.asarray(radii, np.float64)), moved

    def solid(
        self, name: str, centre: Sequence[float], half: Sequence[float], direction: ArrayLike = (0.0, 0.0, 1.0)
    ) -> tuple[Field, Box]:
        """Ellipsoid with the organ's jitter whose third axis is `direction`, and a box with room to grow."""
        shift, size = self.jitter(name)
        middle, axes = np.asarray(centre, np.float64) + shift, np.asarray(half, np.float64) * size
        reach = 1.7 * float(axes.max()) + 8
        return ellipsoid(middle, axes, rotation_to(direction, (0.0, 1.0, 0.0))), box_of(middle, reach)


def place_cord(p: Placement) -> None:
    """The spinal cord; before the vertebrae, which lie around it."""
    canvas = p.canvas
    cord = share_inside((62, 540), canvas)
    if cord:

        def canal(x: Floats, y: Floats, z: Floats) -> Floats:
            return np.hypot(x, y - canal_y(z)) / 6

        canvas.claim("spinal_cord", ((-20, 20), (-110, 30), (62, 545)), canal, p.layers("spinal_cord", "nerve", cord))


def place_chest(p: Placement) -> None:
    """Heart, vessels, airways, oesophagus, thyroid and lungs."""
    canvas, body = p.canvas, p.body
    shape, box = p.solid("heart", (-26, 56, 226), (50, 50, 68), (-0.66, 0.50, -0.46))
    number = p.layers("heart", "blood")[0][1]
    wall = round(0.4 * number)
    chest = body.cage.ratio(canvas.x, canvas.y, canvas.z) < 0.93
    canvas.claim("heart", box, shape, [("blood", number - wall), ("myocardium", wall)], within=chest)

    _place_airways(p)
    arch = [(2, 40, 262), (14, 42, 290), (12, 24, 318), (-6, 2, 330), (-20, -22, 324), (-28, -34, 290), (-28, -34, 230),
            (-22, -22, 180), (-16, 2, 142), (-14, 20, 100), (-12, 30, 55), (-8, 34, 8)]  # fmt: skip
    shape, points = p.line("aorta", arch, [15, 15, 14, 13, 12.5, 12, 11.5, 11, 10, 9.5, 9, 8])
    canvas.claim("aorta", box_of(points, 40), shape, p.layers("aorta", "blood"), within=None)
    vessels: list[tuple[ArrayLike, ArrayLike]] = [
        ([(18, 34, 205), (20, 20, 165), (18, 30, 120), (18, 33, 60), (16, 30, 10)], [13, 13, 12, 11, 11]),
        ([(-8, 34, 4), (-42, 34, -64), (-66, 34, -110), (-90, 58, -165)], [6, 5.5, 5, 5]),
        ([(-8, 30, 2), (38, 34, -64), (64, 34, -110), (88, 58, -165)], [6, 5.5, 5, 5]),
        ([(16, 30, 10), (46, 26, -62), (62, 24, -105), (80, 50, -165)], [9, 7.5, 6.5, 6]),
        ([(16, 30, 8), (-30, 24, -62), (-60, 22, -105), (-82, 50, -165)], [9, 7.5, 6.5, 6]),
        ([(26, 34, 262), (28, 30, 300), (26, 32, 345)], [11, 10, 9]),
        ([(-22, 46, 268), (-34, 24, 292), (-52, 8, 296)], [13, 11, 8]),
        ([(-10, 22, 296), (20, 12, 294), (48, 4, 290)], [11, 9, 8]),
    ]
    tree = tubes(vessels)
    where = canvas.slices(((-110, 110), (-20, 90), (-180, 360)))
    inside = np.flatnonzero(canvas.free[where])
    x, y, z = (array[where].ravel()[inside] for array in (canvas.x, canvas.y, canvas.z))
    blood = np.unravel_index(inside[tree(x, y, z) < 1], canvas.free[where].shape)
    canvas.tissues[where][blood] = TISSUE_INDEX["blood"]
    canvas.free[where][blood] = False

    _place_lungs(p)


def _place_airways(p: Placement) -> None:
    canvas = p.canvas
    share = share_inside((296, 470), canvas)
    if share:
        bronchi = [
            ([(0, 12, 472), (0, 9, 430), (0, -7, 380), (0, -17, 336)], [9, 9, 9, 9.5]),
            ([(0, -17, 336), (18, -23, 318), (42, -28, 302)], [9, 7.5, 6]),
            ([(0, -17, 336), (-20, -23, 316), (-44, -28, 298)], [9, 7, 5.5]),
        ]
        layers = p.layers("trachea", "gland", share, gas_ml=36.0 * share)
        canvas.claim("trachea", ((-60, 60), (-60, 30), (280, 480)), tubes(bronchi), layers)
    throat = tubes([([(0, 12, 474), (0, 12, 500), (0, 18, 545), (0, 44, 566), (0, 76, 566)], [9, 8, 9, 11, 8])])
    air = p.canvas.count(40.0 * share_inside((474, 580), canvas), 1.0)
    canvas.claim("", ((-30, 30), (-20, 100), (474, 590)), throat, [("gas", air)])
    share = share_inside((158, 470), canvas)
    if share:
        line = [(-2, -5, 475), (-5, -9, 440), (-6, -22, 385), (-7, -32, 330), (-6, -31, 270), (-6, -22, 220),
                (-14, -6, 188), (-32, 16, 160)]  # fmt: skip
        shape, points = p.line("esophagus", line, [6.5, 6.5, 7, 7, 7, 7, 7, 8])
        canvas.claim("esophagus", box_of(points, 22), shape, p.layers("esophagus", "gland", share))
    if share_inside((425, 472), canvas) > 0.9:
        lobes = tubes(
            [
                ([(16, 20, 428), (20, 14, 446), (18, 10, 466)], [9, 9.5, 6]),
                ([(-16, 20, 428), (-20, 14, 446), (-18, 10, 466)], [9, 9.5, 6]),
                ([(14, 23, 433), (0, 26, 434), (-14, 23, 433)], [4.5, 4, 4.5]),
            ]
        )
        canvas.claim("thyroid_gland", ((-42, 42), (-22, 42), (408, 486)), lobes, p.layers("thyroid_gland", "thyroid"))


def _place_lungs(p: Placement) -> None:
    """The lungs fill the rib cage from the top down to where their volumes end: there the diaphragm stands."""
    canvas, body = p.canvas, p.body

    def lung(side: int) -> Field:
        def field(x: Floats, y: Floats, z: Floats) -> Floats:
            height = body.diaphragm_mm(x, y, z) - z
            ratio = body.cage.ratio(x, y, z)
            behind = y - spine_y(z)
            medial = np.where(
                behind < 0, 17.0 + 0.8 * np.clip(-behind - 12, 0, 25), np.interp(z, [180, 250, 330, 400], [20, 16, 17, 22])
            )
            medial += 5 * (side < 0) + 10 * np.exp(-(((z - 300) / 45) ** 2)) * (behind > 0)
            cup = np.sqrt(((x + 26) / 66) ** 2 + ((y - 56) / 62) ** 2 + ((z - 226) / 66) ** 2)
            outside = (ratio > 0.925) | (z > 424) | (x * side < medial) | (cup < 0.93)
            return np.where(outside, np.inf, 1 + height / 60).astype(np.float32)

        return field

    for name, side in (("lung_right", 1), ("lung_left", -1)):
        edge = (0.0, 190.0) if side > 0 else (-190.0, 0.0)
        box = (edge, (-130.0, 140.0), (60.0, 440.0))
        level = canvas.claim(name, box, lung(side), p.layers(name, "lung"))
        canvas.dome_mm[side] = 60 * (1 - level)
    _paint_mediastinum(canvas, body)


def _paint_mediastinum(canvas: Canvas, body: Body) -> None:
    """Fat between the lungs and, below them, in the abdominal cavity; muscle of the diaphragm between both."""
    where = canvas.slices(((-190, 190), (-130, 150), (-205, 440)))
    x, y, z = canvas.x[where], canvas.y[where], canvas.z[where]
    lung_base = body.diaphragm_mm(x, y, z) + np.where(x > 0, canvas.dome_mm[1], canvas.dome_mm[-1]).astype(np.float32)
    free = canvas.free[where]
    fat = TISSUE_INDEX["fat"]
    tissues = canvas.tissues[where]
    ratio = body.cage.ratio(x, y, z)
    front = y > spine_y(z) - 6
    tissues[free & (z > lung_base) & (ratio < 0.86) & front & (z < 400)] = fat
    cavity = np.where(z > 110, ratio < 0.90, body.cavity.ratio(x, y, z) < 1) & (z < lung_base - 3.0)
    side = np.abs(x)
    width = np.interp(np.clip(z, -160, 110), [-160, -60, 0, 110], [1, 25, 24, 8]).astype(np.float32)
    centre = np.interp(np.clip(z, -160, 110), [-160, -60, 0, 110], [80, 66, 46, 28]).astype(np.float32)
    psoas = ((side - centre) / width) ** 2 + ((y - np.where(z < -40, 24, 12)) / 24) ** 2 < 1
    back = (y < spine_y(z) - 2) & (side < 30) & (z > -52) | (y < -34) & (side < 66) & (z < 150) & (z > -40)
    cavity &= ~(psoas & (z < 108)) & ~back
    tissues[free & cavity] = fat
    p_abdomen = np.zeros(canvas.shape, bool)
    p_abdomen[where] = free & cavity
    canvas.abdomen = p_abdomen


def place_abdomen(p: Placement) -> None:
    """Liver, spleen, kidneys and the organs of digestion and of the pelvis."""
    canvas = p.canvas
    room = canvas.abdomen
    _place_upper_abdomen(p, room)
    if share_inside((-200, 60), canvas) == 1.0:
        _place_pelvis(p, room)
    _place_bowel(p, room)


def _kidney(p: Placement, name: str, centre: tuple[float, float, float], side: int) -> tuple[Field, Box]:
    shift, size = p.jitter(name)
    middle, half = np.asarray(centre) + shift, np.array([25.0, 25.0, 55.0]) * size
    body = ellipsoid(middle, half, rotation_to((-0.20 * side, -0.14, 1.0), (0.0, 1.0, 0.0)))
    hilum = ellipsoid(middle + np.array([-20.0 * side, 9.0, 0.0]), (15, 10, 15))

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.asarray(body(x, y, z) + 0.9 * np.exp(-(hilum(x, y, z) ** 2)), np.float32)

    return field, box_of(middle, 82)


def _place_upper_abdomen(p: Placement, room: Mask) -> None:
    canvas = p.canvas
    for name, centre, side in (("kidney_right", (70.0, -6.0, 66.0), 1), ("kidney_left", (-72.0, -9.0, 80.0), -1)):
        shape, box = _kidney(p, name, centre, side)
        canvas.claim(name, box, shape, p.layers(name, "kidney"), within=room)
    for name, centre, lean in (("adrenal_gland_right", (37, 4, 122), 0.5), ("adrenal_gland_left", (-40, 12, 128), -0.5)):
        shape, box = p.solid(name, centre, (5.5, 11, 18), (lean, -0.2, 1.0))
        canvas.claim(name, box, shape, p.layers(name, "adrenal"), within=room)

    shape, box = p.solid("gallbladder", (62, 80, 80), (17, 17, 36), (-0.25, -0.65, 0.72))
    canvas.claim("gallbladder", box, shape, p.layers("gallbladder", "bile"), within=room)

    shape, box = p.solid("spleen", (-112, -14, 126 + p.sunk_mm(-1)), (23, 36, 50), (-0.25, 0.45, -1.0))
    canvas.claim("spleen", box, shape, p.layers("spleen", "spleen"), within=room)

    line = [(30, 58, 62), (24, 60, 78), (6, 58, 86), (-24, 46, 96), (-58, 22, 110), (-84, 6, 118)]
    shape, points = p.line("pancreas", line, [19, 17, 13, 14, 13, 11])
    canvas.claim("pancreas", box_of(points, 36), shape, p.layers("pancreas", "pancreas"), within=room)

    shift, size = p.jitter("liver")
    shift = shift + np.array([0, 0, p.sunk_mm(1)])
    bulk = ellipsoid(np.array([62, 30, 128]) + shift, np.array([112, 102, 104]) * size)
    normal = np.array([-0.60, 0.10, -0.79])
    normal /= np.linalg.norm(normal)
    anchor = np.array([28, 50, 92]) + shift

    def liver(x: Floats, y: Floats, z: Floats) -> Floats:
        below = (x - anchor[0]) * normal[0] + (y - anchor[1]) * normal[1] + (z - anchor[2]) * normal[2]
        # the left lobe thins out in front of the stomach; the spine and the great vessels indent the right one
        oblique = (0.73 * (8 + shift[0] - x) + 0.68 * (22 + shift[1] - y)).astype(np.float32)
        behind = np.minimum(oblique, 12 + shift[0] - x)
        parts = (bulk(x, y, z), 1 + below / 75, 1 + behind / 75)
        # a high norm instead of the maximum rounds the edges
        total = sum(np.maximum(part, np.float32(0)) ** 12 for part in parts)
        return np.asarray(total ** np.float32(1 / 12), np.float32)

    canvas.claim("liver", ((-130, 170), (-95, 140), (-10, 245)), liver, p.layers("liver", "liver"), within=room)

    sunk = p.sunk_mm(-1)
    axis: list[tuple[float, float, float]] = [
        (-62, 0, 166 + sunk),
        (-66, 26, 146 + sunk),
        (-62, 56, 120 + 0.7 * sunk),
        (-44, 78, 96 + 0.3 * sunk),
        (-14, 84, 84),
        (14, 72, 84),
    ]
    shape, points = p.line("stomach", axis, [32, 34, 31, 26, 19, 12])
    layers = p.layers("stomach", "stomach", gas_ml=30.0)

    def front_first(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.asarray(np.float32(0.15) * np.abs(z - 120) - y, np.float32)

    canvas.claim("stomach", box_of(points, 70), shape, layers, within=room, inner=front_first)


def _place_pelvis(p: Placement, room: Mask) -> None:
    canvas = p.canvas
    lower = 6 if p.body.build.sex == "female" else 0
    shape, box = p.solid("urinary_bladder", (2, 42, -126 - lower), (44, 36, 37))
    canvas.claim("urinary_bladder", box, shape, p.layers("urinary_bladder", "urine"), within=room)
    if "prostate" in p.masses_g:
        shape, box = p.solid("prostate", (0, 14, -176), (19, 13, 14))
        canvas.claim("prostate", box, shape, p.layers("prostate", "gland"), within=room)
    if "uterus" in p.masses_g:
        shape, box = p.solid("uterus", (3, 4, -112), (24, 17, 38), (0.05, 0.75, 0.6))
        canvas.claim("uterus", box, shape, p.layers("uterus", "gland"), within=room)


def _place_bowel(p: Placement, room: Mask) -> None:
    canvas = p.canvas
    duodenum = [(18, 70, 82), (46, 62, 84), (56, 50, 60), (48, 44, 38), (20, 54, 32), (-10, 58, 40), (-24, 62, 52)]
    shape, points = p.line("duodenum", duodenum, [12, 12, 12, 12, 11, 11, 11])
    canvas.claim("duodenum", box_of(points, 32), shape, p.layers("duodenum", "bowel"), within=room)

    frame = [(94, 44, -74), (104, 28, -40), (112, 8, 10), (112, 4, 40), (104, 40, 46), (66, 88, 30), (10, 96, 10),
             (-50, 92, 28), (-96, 58, 66), (-118, 24, 92), (-122, 0, 62), (-120, -10, 20), (-114, 6, -30),
             (-98, 34, -66), (-62, 50, -84), (-34, 26, -74), (-8, 0, -90), (2, -32, -104), (0, -36, -140),
             (0, -24, -186)]  # fmt: skip
    radii = [26, 25, 22, 20, 19, 18, 17, 17, 17, 16, 14, 13, 13, 13, 13, 13, 14, 16, 17, 11]
    shape, points = p.line("colon", frame, radii)
    layers = p.layers("colon", "bowel", gas_ml=170.0)
    shift, _ = p.jitter("colon gas")

    def gas_first(x: Floats, y: Floats, z: Floats) -> Floats:
        segments = np.sin((x + shift[0] * 9) / 24) + np.sin((z + shift[2] * 9) / 19)
        return np.asarray(-y / 60 - np.clip(segments, -1, 0.8), np.float32)

    canvas.claim("colon", box_of(points, 48), shape, layers, within=room, inner=gas_first)

    loops = [([x, y, z]) for x, y, z in _bowel_loops()]
    shape, points = p.line("small_bowel", loops, np.full(len(loops), 12.0))
    canvas.claim("small_bowel", box_of(points, 40), shape, p.layers("small_bowel", "bowel"), within=room)


def _bowel_loops() -> NDArray[np.float64]:
    """Points of a line that winds through the middle of the abdomen in rows."""
    points = []
    for layer, y in enumerate((82.0, 54.0)):
        for row, z in enumerate(np.linspace(20, -84, 5) if layer == 0 else np.linspace(-84, 8, 4)):
            reach = 84 - (10 if z < -60 else 0) - layer * 8
            across = np.linspace(-reach, reach, 9) * (1 if row % 2 == 0 else -1)
            for x in across:
                points.append((x, y + 7 * np.cos(x / 17), z + 8 * np.sin(x / 13 + row)))
    return np.asarray(points)


def place_head(p: Placement) -> None:
    """The brain; before the skull, which lies around it."""
    if "brain" in p.masses_g and share_inside((560, 700), p.canvas) == 1.0:
        shape = ellipsoid((0, -4, 628), (66, 85, 64))
        p.canvas.claim("brain", ((-80, 80), (-110, 100), (540, 715)), shape, p.layers("brain", "brain"))
        where = p.canvas.slices(((-75, 75), (-100, 90), (540, 715)))
        skull = ellipsoid((0, -4, 628), (67, 86, 79))
        around = p.canvas.free[where] & (skull(p.canvas.x[where], p.canvas.y[where], p.canvas.z[where]) < 1)
        p.canvas.tissues[where][around] = TISSUE_INDEX["csf"]
