"""Organs of abdomen and pelvis of a stylised person, breasts and testes, in the reference frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .people_canvas import Floats
from .people_chest import Placement
from .people_shapes import Tubes, box_around, ellipsoid, mirror_box, mirrored, tube
from .people_skeleton import spine_y

Mask = NDArray[np.bool_]


def abdominal_room(p: Placement, x: Floats, y: Floats, z: Floats) -> Mask:
    """Whether a place lies in the abdominal cavity or the pelvis: under the diaphragm, before spine, psoas and loin."""
    body, lordosis = p.body, p.body.build.lordosis
    dome = body.diaphragm_mm(x, y) + np.where(x > 0, p.dome_mm[1], p.dome_mm[-1]).astype(np.float32)
    # within the ribs above, within the abdominal wall below
    upper = np.clip((z - 85) / 55, 0, 1)
    inside = upper * body.cage.ratio(x, y, z) / 0.90 + (1 - upper) * body.cavity.ratio(x, y, z) < 1
    side, level = np.abs(x), np.clip(z, -160, 110)
    width = np.interp(level, [-160, -60, 0, 60, 110], [1, 24, 24, 16, 6]).astype(np.float32)
    centre = np.interp(level, [-160, -60, 0, 60, 110], [82, 64, 46, 36, 26]).astype(np.float32)
    psoas = (((side - centre) / width) ** 2 + ((y - _psoas_y(z, lordosis)) / 25) ** 2 < 1) & (z < 108)
    spine = spine_y(z, lordosis)
    back = (y < spine - 2) & (side < 32) & (z > -52)
    loin = (((side - 54) / 36) ** 2 + ((y + 47) / 19) ** 2 < 1) & (z < 130) & (z > -45)
    return np.asarray(inside & (z < dome - 3.0) & ~psoas & ~back & ~loin)


def _psoas_y(z: Floats, lordosis: float) -> Floats:
    return np.asarray(np.where(z < -40, 24, spine_y(z, lordosis) - 1), np.float32)


def place_abdomen(p: Placement) -> None:
    """Kidneys, spleen, pancreas, liver, stomach, organs of the pelvis and bowel; then fat in what is left of the cavity."""
    _place_crura(p)
    _place_upper_abdomen(p)
    _place_pelvis(p)
    _place_bowel(p)


def _place_crura(p: Placement) -> None:
    """The crura of the diaphragm beside the aorta, which are muscle between fat."""
    lordosis = p.body.build.lordosis
    tops = [float(spine_y(np.array([z], np.float32), lordosis)[0]) for z in (150, 110, 70)]
    crura = Tubes(
        [([(20 * s, tops[0] + 18, 150), (18 * s, tops[1] + 20, 110), (16 * s, tops[2] + 18, 70)], [6, 5, 3.5]) for s in (1, -1)]
    )
    p.canvas.fill(crura.box(1.0), lambda x, y, z: crura(x, y, z) < 1, "skeletal_muscle", "muscle")


def _kidney(p: Placement, name: str, centre: tuple[float, float, float], side: int) -> None:
    shift, size = p.jitter(name)
    middle, half = np.asarray(centre) + shift, np.array([26.5, 27.0, 55.0]) * size
    body = ellipsoid(middle, half, (-0.22 * side, -0.16, 1.0))
    hilum = ellipsoid(middle + np.array([-22.0 * side, 11.0, 0.0]), (17, 11, 17))

    def kidney(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.asarray(body(x, y, z) + 1.1 * np.exp(-(hilum(x, y, z) ** 2)), np.float32)

    def room(x: Floats, y: Floats, z: Floats) -> Mask:
        return abdominal_room(p, x, y, z)

    p.canvas.claim(
        box_around(tuple(middle), 84), kidney, p.solid(name, "kidney", share=0.5, of="kidneys"), within=room, one_piece=True
    )


def _place_upper_abdomen(p: Placement) -> None:
    canvas = p.canvas

    def room(x: Floats, y: Floats, z: Floats) -> Mask:
        return abdominal_room(p, x, y, z)

    follow = {side: float(np.clip(0.5 * p.dome_mm[side], -22, 25)) for side in (1, -1)}
    _kidney(p, "kidney_right", (70.0, -14.0, 62.0 + follow[1]), 1)
    _kidney(p, "kidney_left", (-70.0, -17.0, 78.0 + follow[-1]), -1)
    for name, centre, lean in (
        ("adrenal_gland_right", (36.0, -4.0, 122.0 + follow[1]), 0.5),
        ("adrenal_gland_left", (-40.0, 2.0, 130.0 + follow[-1]), -0.5),
    ):
        shape, box = p.ellipsoid(name, centre, (4.0, 12, 19), (lean, -0.2, 1.0))
        canvas.claim(box, shape, p.solid(name, "adrenal", share=0.5, of="adrenal_glands"), within=room, one_piece=True)
    sunk = p.sunk_mm(1)
    shape, box = p.ellipsoid("gallbladder", (58, 80, 78 + 0.7 * sunk), (16, 16, 36), (-0.25, -0.65, 0.72))
    layers = p.hollow("gallbladder", "bile", "gallbladder_wall")
    canvas.claim(box, shape, layers, within=room, shell=True, one_piece=True)

    # a thin tube among large organs: it takes its room before they do
    line = [(20, 70, 82), (46, 62, 84), (56, 50, 60), (48, 42, 36), (20, 44, 30), (-12, 48, 38), (-26, 58, 52)]
    duodenum = tube(line, 11.5)
    layers = p.hollow("duodenum", "gut_contents", "small_bowel_wall")
    canvas.claim(duodenum.box(2.4), duodenum, layers, within=room, one_piece=True)

    left = p.sunk_mm(-1)
    shift, size = p.jitter("spleen")
    middle = np.array([-116.0, -22.0, 132.0 + left]) + shift
    bulk = ellipsoid(middle, np.array([33.0, 44.0, 56.0]) * size, (-0.25, 0.50, -1.0))
    hollow = ellipsoid(middle + np.array([44.0, 22.0, -6.0]), (40, 44, 60))

    def spleen(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.maximum(bulk(x, y, z), 1.75 - hollow(x, y, z))

    canvas.claim(box_around(tuple(middle), 100), spleen, p.solid("spleen", "spleen"), within=room, one_piece=True)

    line = [(30, 54, 60), (24, 56, 76), (6, 56, 84), (-24, 44, 94), (-58, 20, 106), (-86, 2, 116)]
    shape = p.tube("pancreas", line, [19, 16, 12.5, 13, 12.5, 10])
    canvas.claim(shape.box(2.2), shape, p.solid("pancreas", "pancreas"), within=room, one_piece=True)
    _place_liver(p, sunk)

    axis = [(-60, -4, 168 + left), (-68, 22, 148 + left), (-64, 54, 122 + 0.7 * left), (-46, 78, 96 + 0.3 * left),
            (-14, 86, 84), (16, 72, 84)]  # fmt: skip
    shape = p.tube("stomach", axis, [33, 36, 33, 27, 20, 13])
    layers = p.hollow("stomach", "gut_contents", "stomach_wall", p.gas_ml["stomach"])
    canvas.claim(shape.box(2.2), shape, layers, within=room, rising=2, shell=True, one_piece=True)


def _place_liver(p: Placement, sunk: float) -> None:
    shift, size = p.jitter("liver")
    shift = shift + np.array([0, 0, sunk])
    bulk = ellipsoid(np.array([62, 26, 128]) + shift, np.array([114, 108, 108]) * size)
    normal = np.array([-0.58, 0.14, -0.80])
    normal /= np.linalg.norm(normal)
    anchor = np.array([28, 50, 92]) + shift

    def liver(x: Floats, y: Floats, z: Floats) -> Floats:
        below = (x - anchor[0]) * normal[0] + (y - anchor[1]) * normal[1] + (z - anchor[2]) * normal[2]
        # the left lobe thins out in front of the stomach; the spine and the great vessels indent the right one
        oblique = 0.73 * (8 + shift[0] - x) + 0.68 * (22 + shift[1] - y)
        behind = np.minimum(oblique, 12 + shift[0] - x)
        fissure = 0.10 * np.exp(-(((x + 2 - shift[0]) / 4.0) ** 2)) * (y < 75)
        parts = (bulk(x, y, z), 1 + below / 75, 1 + behind / 75)
        # a high norm instead of the maximum rounds the edges
        total = sum(np.maximum(part, np.float32(0)) ** 12 for part in parts)
        return np.asarray(total ** np.float32(1 / 12) + fissure, np.float32)

    def room(x: Floats, y: Floats, z: Floats) -> Mask:
        return abdominal_room(p, x, y, z)

    box = ((-140.0, 175.0), (-100.0, 145.0), (-60.0, 300.0))
    p.canvas.claim(box, liver, p.solid("liver", "liver"), within=room, one_piece=True)


def _place_pelvis(p: Placement) -> None:
    canvas, female = p.canvas, p.body.build.sex == "female"

    def room(x: Floats, y: Floats, z: Floats) -> Mask:
        return abdominal_room(p, x, y, z)

    shape, box = p.ellipsoid("urinary_bladder", (1, 44, -128), (45, 34, 36))
    layers = p.hollow("urinary_bladder", "urine", "urinary_bladder_wall")
    canvas.claim(box, shape, layers, within=room, shell=True, one_piece=True)
    if female:
        shape, box = p.ellipsoid("uterus", (3, 4, -112), (25, 18, 38), (0.05, 0.75, 0.6))
        canvas.claim(box, shape, p.solid("uterus", "uterus"), within=room, one_piece=True)
        for side, name in ((1, "right"), (-1, "left")):
            shape, box = p.ellipsoid(f"ovary_{name}", (48.0 * side, 8, -98), (8, 9, 14))
            canvas.claim(box, shape, p.solid(f"ovary_{name}", "ovary", share=0.5, of="ovaries"), within=room)
        return
    shape, box = p.ellipsoid("prostate", (0, 14, -178), (19, 13, 14))
    canvas.claim(box, shape, p.solid("prostate", "prostate"), within=room)


def place_testes(p: Placement) -> None:
    """Testes in a scrotum that hangs before the thighs; they may lie outside the drawn muscle surface."""
    for side, name in ((1, "right"), (-1, "left")):
        shape = ellipsoid((17.0 * side, 64, -236), (13, 14, 21))
        p.canvas.claim(
            box_around((17.0 * side, 64, -236), 46), shape, p.solid(f"testis_{name}", "testis", share=0.5, of="testes")
        )


def _place_bowel(p: Placement) -> None:
    canvas = p.canvas

    def room(x: Floats, y: Floats, z: Floats) -> Mask:
        return abdominal_room(p, x, y, z)

    small = Tubes([(line, 12.0) for line in _bowel_loops(p)])
    frame = [(92, 46, -76), (102, 30, -40), (110, 8, 10), (108, 2, 44), (102, 36, 52), (66, 92, 30), (10, 100, 8),
             (-50, 94, 28), (-94, 58, 70), (-116, 22, 98), (-120, -4, 62), (-116, -10, 20), (-110, 4, -30),
             (-96, 34, -66), (-62, 50, -84), (-34, 26, -76), (-8, 0, -92), (2, -36, -108), (0, -42, -142),
             (0, -28, -190)]  # fmt: skip
    radii = np.array([27, 26, 24, 21, 20, 19, 18, 18, 18, 17, 15, 14, 14, 14, 14, 14, 15, 17, 18, 11.0])
    shift, size = p.jitter("colon")
    points = np.asarray(frame, np.float64)
    line = points.mean(axis=0) + (points - points.mean(axis=0)) * size + shift
    # pouches: the radius swells and narrows along the way
    fine = _refine(np.column_stack([line, radii]), 4)
    fine[:, 3] *= 1 + 0.13 * np.sin(np.arange(len(fine)) * 2.1 + shift[0])
    colon = Tubes([(fine[:, :3], fine[:, 3])])
    layers = p.hollow("colon", "stool", "colon_wall", p.gas_ml["colon"])
    canvas.claim(colon.box(2.2), colon, layers, within=room, rising=2, shell=True, one_piece=True)
    canvas.claim(small.box(2.2), small, p.hollow("small_bowel", "gut_contents", "small_bowel_wall", p.gas_ml["small_bowel"]),
                 within=room, rising=2)  # fmt: skip


def _refine(points: NDArray[np.float64], per_piece: int) -> NDArray[np.float64]:
    t = np.linspace(0, len(points) - 1, (len(points) - 1) * per_piece + 1)
    return np.column_stack([np.interp(t, np.arange(len(points)), column) for column in points.T])


def _bowel_loops(p: Placement) -> list[NDArray[np.float64]]:
    """Winding lines in three layers through the middle and lower abdomen."""
    shift, _ = p.jitter("bowel loops")
    lines = []
    for layer, (y, bottom, top, reach) in enumerate(
        ((84.0, -86.0, 22.0, 82.0), (58.0, -92.0, 14.0, 80.0), (34.0, -70.0, -8.0, 52.0))
    ):
        points = []
        rows = np.linspace(top, bottom, max(2, round((top - bottom) / 27) + 1))
        for row, z in enumerate(rows):
            width = reach * (1 - 0.25 * max(0.0, (-40 - z) / 60))
            for x in np.linspace(-width, width, 9) * (1 if (row + layer) % 2 == 0 else -1):
                wave = np.sin(x / 13 + 1.7 * row + shift[0])
                points.append((x, y + 8 * np.cos(x / 17 + row + shift[1]), z + 8 * wave))
        lines.append(np.asarray(points))
    return lines


def place_breasts(p: Placement) -> None:
    """Gland with fat around it, on the muscles of the chest."""
    canvas = p.canvas
    female = p.body.build.sex == "female"
    half = (54.0, 40.0, 54.0) if female else (26.0, 9.0, 22.0)
    chest = p.body.build.chest
    for side, name in ((1, "right"), (-1, "left")):
        mass = 0.5 * p.masses_g["breasts"]
        centre = (78.0 * chest, 108.0 if female else 104.0, 252.0 if female else 258.0)
        bulk = mirrored(ellipsoid(centre, half), side)

        def breast(x: Floats, y: Floats, z: Floats, bulk: object = bulk) -> Floats:
            outside = p.body.fascia.outside_mm(x, y, z)
            return np.where(outside > 0.5, bulk(x, y, z), np.inf).astype(np.float32)  # type: ignore[operator]

        layers = [canvas.layer(f"breast_{name}", "breast_gland", 0.4 * mass), canvas.layer(f"breast_{name}", "fat", 0.6 * mass)]
        canvas.claim(mirror_box(box_around(centre, 100), side), breast, layers)


def paint_inner_fat(p: Placement) -> None:
    """Fat between the organs: mediastinum, pericardium, abdominal cavity, and between the great muscles."""
    canvas, body, lordosis = p.canvas, p.body, p.body.build.lordosis

    def chest(x: Floats, y: Floats, z: Floats) -> Mask:
        dome = body.diaphragm_mm(x, y) + np.where(x > 0, p.dome_mm[1], p.dome_mm[-1]).astype(np.float32)
        return np.asarray((z > dome) & (body.cage.ratio(x, y, z) < 0.90) & (y > spine_y(z, lordosis) - 8) & (z < 404))

    canvas.fill(((-190, 190), (-130, 150), (60, 410)), chest, "torso_fat", "fat")
    canvas.fill(((-190, 190), (-130, 170), (-205, 310)), lambda x, y, z: abdominal_room(p, x, y, z), "torso_fat", "fat")
