"""Organs of head, neck and chest of a stylised person, in the reference frame, in the order in which they take their room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .people_body import Body
from .people_canvas import Box, Canvas, Field, Floats, Layer
from .people_shapes import Tubes, box_around, ellipsoid, mirror_box, mirrored, smallest, tube
from .people_skeleton import canal_y, spine_y

Jitter = Callable[[str], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Maps an organ to its shift, mm (3,), and the factors on its size along x, y and z (3,)."""

HEART_CENTRE = (-26.0, 52.0, 222.0)


@dataclass
class Placement:
    """What the placing of organs needs: canvas, body, masses to reach, how this person's organs vary, and gas volumes."""

    canvas: Canvas
    body: Body
    masses_g: dict[str, float]
    jitter: Jitter
    gas_ml: dict[str, float]
    dome_mm: dict[int, float] = field(default_factory=lambda: {1: 0.0, -1: 0.0})
    brain_level: float = 1.0

    def solid(self, label: str, tissue: str, *, share: float = 1.0, of: str = "") -> list[Layer]:
        """One layer with the mass of an organ, or with a share of a paired organ's mass."""
        return [self.canvas.layer(label, tissue, self.masses_g[of or label] * share)]

    def hollow(self, organ: str, contents: str, wall: str, gas: float = 0.0) -> list[Layer]:
        """Gas, contents and wall of a hollow organ, from the inside outwards."""
        canvas = self.canvas
        return [
            canvas.gas(f"{organ}_contents", gas),
            canvas.layer(f"{organ}_contents", contents, self.masses_g[f"{organ}_contents"]),
            canvas.layer(f"{organ}_wall", wall, self.masses_g[f"{organ}_wall"]),
        ]

    def ellipsoid(
        self, name: str, centre: tuple[float, ...], half: tuple[float, ...], direction: ArrayLike = (0.0, 0.0, 1.0)
    ) -> tuple[Field, Box]:
        """Ellipsoid with the organ's jitter, and a box with room to grow."""
        shift, size = self.jitter(name)
        middle, axes = np.asarray(centre, np.float64) + shift, np.asarray(half, np.float64) * size
        return ellipsoid(middle, axes, direction), box_around(tuple(middle), 1.8 * float(axes.max()) + 8)

    def tube(self, name: str, points: ArrayLike, radii: ArrayLike) -> Tubes:
        """Tube with the organ's jitter."""
        shift, size = self.jitter(name)
        array = np.asarray(points, np.float64)
        middle = array.mean(axis=0)
        return tube(middle + (array - middle) * size + shift, radii)

    def sunk_mm(self, side: int) -> float:
        """How far the organs under the right (1) or left (-1) dome of the diaphragm follow it."""
        return float(np.clip(0.85 * self.dome_mm[side], -45, 60))


def place_head(p: Placement) -> None:
    """Brain, eyes and cord; before the bones, which lie around them."""
    canvas = p.canvas
    cerebrum = ellipsoid((0, -4, 632), (64.5, 83, 66))
    cerebellum = ellipsoid((0, -46, 588), (46, 32, 24))
    stem = tube([(0, -14, 596), (0, -17, 570), (0, -18, 548)], [15, 12, 9])

    def brain(x: Floats, y: Floats, z: Floats) -> Floats:
        # flat below, where the base of the skull rises to the front
        floor = (578 + 14 * np.clip((y + 20) / 40, 0, 1) - z) / 60 + 1
        return np.minimum(np.maximum(cerebrum(x, y, z), floor), np.minimum(cerebellum(x, y, z), stem(x, y, z)))

    level = canvas.claim(((-84, 84), (-112, 104), (540, 720)), brain, p.solid("brain", "brain"))
    p.brain_level = float(np.clip(level, 0.85, 1.12))
    inner = ellipsoid((0, -4, 628), np.array([66.5, 85.5, 78.5]) * p.brain_level)

    def around(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        return (inner(x, y, z) < 1.0) & (z > 566 + 16 * np.clip((y + 20) / 40, 0, 1))

    canvas.fill(((-80, 80), (-104, 100), (540, 715)), around, "", "csf")
    for side, name in ((1, "right"), (-1, "left")):
        eye, box = ellipsoid((32.0 * side, 74, 586), (12.2, 12.2, 12.2)), box_around((32.0 * side, 74, 586), 20)
        canvas.claim(box, eye, p.solid(f"eye_{name}", "eye", share=0.5, of="eyes"))

    def canal(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.asarray(np.hypot(x / 1.15, y - canal_y(z, p.body.build.lordosis)) / 6, np.float32)

    canvas.claim(((-20, 20), (-110, 40), (62, 545)), canal, p.solid("spinal_cord", "nerve"))

    def thecal(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        return canal(x, y, z) < 9.2 / 6

    canvas.fill(((-20, 20), (-110, 40), (-60, 545)), thecal, "", "csf")


def place_throat(p: Placement) -> None:
    """Air, tongue and salivary glands; after the bones."""
    canvas = p.canvas
    throat = Tubes(
        [
            ([(0, 10, 474), (0, 10, 500), (0, 14, 545), (0, 32, 568)], [8, 8, 9, 10]),
            ([(9, 40, 574), (9, 84, 568)], [5, 5]),
            ([(-9, 40, 574), (-9, 84, 568)], [5, 5]),
        ]
    )
    sinuses = smallest(
        *(ellipsoid((28.0 * side, 58, 570), (11, 15, 12)) for side in (1, -1)),
        ellipsoid((0, 46, 584), (12, 12, 9)),
        *(ellipsoid((12.0 * side, 82, 612), (9, 6, 8)) for side in (1, -1)),
    )
    canvas.fill(
        ((-45, 45), (-20, 110), (470, 625)), lambda x, y, z: np.minimum(throat(x, y, z), sinuses(x, y, z)) < 1, "", "air"
    )
    tongue, box = ellipsoid((0, 52, 538), (20, 30, 18)), box_around((0, 52, 538), 50)
    canvas.claim(box, tongue, p.solid("tongue", "muscle"))
    for side, name in ((1, "right"), (-1, "left")):
        parotid = mirrored(ellipsoid((60, 6, 546), (10, 17, 27)), side)
        canvas.claim(mirror_box(box_around((60, 6, 546), 46), side), parotid,
                     p.solid(f"parotid_gland_{name}", "salivary_gland", share=0.33, of="salivary_glands"))  # fmt: skip
        below = mirrored(ellipsoid((28, 44, 514), (8, 16, 12)), side)
        canvas.claim(mirror_box(box_around((28, 44, 514), 34), side), below,
                     p.solid(f"submandibular_gland_{name}", "salivary_gland", share=0.17, of="salivary_glands"))  # fmt: skip


def place_chest(p: Placement) -> None:
    """Airways, heart, great vessels, oesophagus, thyroid, thymus and lungs."""
    _place_airways(p)
    _place_heart(p)
    _place_vessels(p)
    canvas = p.canvas
    line = [(-2, -8, 475), (-5, -12, 440), (-6, -24, 385), (-7, -32, 330), (-6, -30, 270), (-6, -20, 220), (-14, -6, 188),
            (-34, 14, 160)]  # fmt: skip
    gullet = p.tube("esophagus", line, [6.5, 6.5, 7, 7, 7, 7, 7, 8])
    canvas.claim(
        gullet.box(2.2), gullet, [canvas.gas("", p.gas_ml["esophagus"]), *p.solid("esophagus", "esophagus")], one_piece=True
    )
    lobes = Tubes(
        [
            ([(17, 19, 426), (20, 13, 446), (18, 9, 466)], [8, 9, 6]),
            ([(-17, 19, 426), (-20, 13, 446), (-18, 9, 466)], [8, 9, 6]),
            ([(14, 22, 432), (0, 25, 433), (-14, 22, 432)], [4, 3.5, 4]),
        ]
    )
    canvas.claim(lobes.box(2.2), lobes, p.solid("thyroid_gland", "thyroid"), one_piece=True)
    thymus = smallest(
        ellipsoid((9, 42, 318), (10, 8, 34), (-0.15, 0.25, 1)), ellipsoid((-9, 42, 316), (10, 8, 36), (0.15, 0.25, 1))
    )
    box, cage = ((-45.0, 45.0), (5.0, 80.0), (240.0, 400.0)), _inside_cage(p.body, 0.90)
    canvas.claim(box, thymus, p.solid("thymus", "thymus"), within=cage, one_piece=True)
    _place_lungs(p)


def _inside_cage(body: Body, ratio: float) -> Callable[[Floats, Floats, Floats], NDArray[np.bool_]]:
    return lambda x, y, z: body.cage.ratio(x, y, z) < ratio


def _place_airways(p: Placement) -> None:
    canvas = p.canvas
    windpipe = Tubes(
        [
            ([(0, 11, 474), (0, 7, 430), (0, -7, 380), (0, -17, 336)], [9, 9, 9, 9.5]),
            ([(0, -17, 336), (18, -23, 316), (44, -28, 296)], [9, 7, 6]),
            ([(0, -17, 336), (-20, -23, 314), (-46, -30, 290)], [9, 6.5, 5.5]),
        ]
    )
    canvas.claim(windpipe.box(1.9), windpipe, [canvas.gas("", p.gas_ml["trachea"]), *p.solid("trachea_wall", "airway_wall")])


def _place_heart(p: Placement) -> None:
    """Four chambers in a wall that is thickest around the left ventricle."""
    canvas = p.canvas
    shift, size = p.jitter("heart")
    shift = shift + np.array([0, 0, 0.35 * p.sunk_mm(-1)])
    axis = np.array([-0.68, 0.52, -0.52])
    axis /= np.linalg.norm(axis)
    base = np.asarray(HEART_CENTRE) + shift

    def at(along: float, right: float, up: float) -> NDArray[np.float64]:
        side = np.cross(axis, (0.0, 0.0, 1.0))
        side /= np.linalg.norm(side)
        return base + along * axis - right * side + up * np.cross(side, axis)

    whole = smallest(
        ellipsoid(at(8, 0, 0), np.array([46, 44, 60]) * size, axis),
        ellipsoid(at(-30, 14, 4), np.array([40, 40, 34]) * size, axis),
    )
    chambers = smallest(
        ellipsoid(at(14, -17, -6), np.array([19, 19, 40]) * size, axis),  # left ventricle
        ellipsoid(at(12, 21, 8), np.array([14, 24, 40]) * size, axis),  # right ventricle
        ellipsoid(at(-40, -20, -12), np.array([25, 20, 17]) * size, axis),
        ellipsoid(at(-34, 24, 12), np.array([21, 25, 20]) * size, axis),
    )
    blood, wall = p.masses_g["heart_contents"], p.masses_g["heart_wall"]
    numbers = canvas.count(blood, "blood") + canvas.count(wall, "myocardium")
    box = box_around(tuple(base), 135)
    level = _level(canvas, box, whole, numbers)

    def inside(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.where(whole(x, y, z) <= level, chambers(x, y, z), np.inf).astype(np.float32)

    canvas.claim(box, inside, [canvas.layer("heart_contents", "blood", blood), canvas.layer("heart_wall", "myocardium", wall)])


def _level(canvas: Canvas, box: Box, field_: Field, voxels: int) -> float:
    """Value of a field below which there are so many free voxels, with a hair's room."""
    where = canvas.slices(box)
    values = np.broadcast_to(field_(*canvas.coordinates(where)), canvas.tissues[where].shape)
    free = values[canvas.tissues[where] == 0]
    return float(np.partition(free, min(voxels, free.size - 1))[min(voxels, free.size - 1)])


def _place_vessels(p: Placement) -> None:
    canvas, lordosis = p.canvas, p.body.build.lordosis
    front = {z: float(spine_y(np.array([z], np.float32), lordosis)[0]) for z in (290, 230, 180, 142, 100, 55, 8)}
    arch = [(2, 36, 262), (13, 40, 290), (11, 22, 318), (-6, 2, 330), (-20, -20, 322), (-25, front[290] + 24, 290),
            (-24, front[230] + 24, 230), (-18, front[180] + 24, 180), (-12, front[142] + 28, 142), (-9, front[100] + 28, 100),
            (-8, front[55] + 27, 55), (-7, front[8] + 26, 8)]  # fmt: skip
    aorta = p.tube("aorta", arch, [14.5, 15, 14, 13, 12.5, 12, 11.5, 11, 10, 9.5, 9, 8])
    vessels = p.masses_g["blood_vessels_trunk"]
    canvas.claim(aorta.box(1.8), aorta, [canvas.layer("aorta", "blood", 0.5 * vessels)], one_piece=True)
    cava = tube([(20, 30, 205), (22, 22, 170), (20, front[142] + 28, 142), (17, front[100] + 27, 100), (16, front[55] + 25, 55),
                 (14, front[8] + 24, 10)], [12, 12, 11.5, 11, 10, 9.5])  # fmt: skip
    canvas.claim(cava.box(1.8), cava, [canvas.layer("inferior_vena_cava", "blood", 0.26 * vessels)])
    upper = tube([(24, 28, 262), (27, 28, 300), (24, 30, 342)], [10, 10, 9])
    canvas.claim(upper.box(1.9), upper, [canvas.layer("superior_vena_cava", "blood", 0.08 * vessels)])
    lung = Tubes(
        [
            ([(-20, 44, 268), (-30, 24, 290), (-50, 4, 296)], [12, 11, 8]),
            ([(-12, 24, 294), (20, 6, 294), (50, -4, 288)], [10.5, 9, 8]),
        ]
    )
    canvas.claim(lung.box(1.9), lung, [canvas.layer("pulmonary_artery", "blood", 0.16 * vessels)], one_piece=True)
    others = Tubes(
        [
            ([(-7, front[8] + 26, 6), (-40, 32, -64), (-66, 32, -110), (-90, 52, -170), (-88, 44, -260)], [6, 5.5, 5, 5, 4.5]),
            ([(-7, front[8] + 26, 4), (36, 32, -64), (64, 32, -110), (88, 52, -170), (86, 44, -260)], [6, 5.5, 5, 5, 4.5]),
            ([(14, front[8] + 24, 10), (46, 24, -62), (62, 22, -105), (78, 46, -170), (76, 36, -260)], [8, 7, 6.5, 6, 5]),
            ([(14, front[8] + 24, 6), (-30, 22, -62), (-60, 20, -105), (-80, 46, -170), (-78, 36, -260)], [8, 7, 6.5, 6, 5]),
            ([(10, 20, 326), (16, 16, 352), (22, 6, 420), (24, 2, 500)], [6, 5, 4, 4]),
            ([(-8, 4, 332), (-16, 8, 360), (-22, 4, 420), (-24, 2, 500)], [5, 4.5, 4, 4]),
            ([(24, 30, 342), (34, 26, 380), (32, 6, 430), (32, 2, 500)], [8, 7, 6, 5]),
            ([(24, 30, 340), (-20, 32, 362), (-34, 26, 380), (-32, 6, 430), (-32, 2, 500)], [8, 7, 7, 6, 5]),
            ([(24, 40, 84), (30, 46, 100), (46, 44, 132)], [7, 6.5, 6]),
            ([(24, 40, 84), (-10, 38, 96), (-60, 10, 110)], [5.5, 5, 4.5]),
        ]
    )
    canvas.fill(others.box(1.2), lambda x, y, z: others(x, y, z) < 1, "", "blood")


def _lung(p: Placement, side: int) -> Field:
    body, lordosis = p.body, p.body.build.lordosis
    hearts_pouch = ellipsoid(np.asarray(HEART_CENTRE) + np.array([0, 0, 4 + 0.35 * p.sunk_mm(-1)]), (66, 60, 64))

    def lung(x: Floats, y: Floats, z: Floats) -> Floats:
        height = body.diaphragm_mm(x, y) - z
        ratio = body.cage.ratio(x, y, z)
        behind = y - spine_y(z, lordosis)
        hollow = 16.0 + 0.75 * np.clip(-behind - 12, 0, 25)
        medial = np.where(behind < 0, hollow, np.interp(z, [180, 250, 330, 400], [18, 14, 15, 20])).astype(np.float32)
        medial = medial + 4 * (side < 0) + 12 * np.exp(-(((z - 298) / 40) ** 2)) * np.exp(-(((y + 5) / 45) ** 2))
        outside = (ratio > 0.925) | (z > 424) | (x * side < medial) | (hearts_pouch(x, y, z) < 0.92)
        return np.where(outside, np.inf, 1 + height / 60).astype(np.float32)

    return lung


def _place_lungs(p: Placement) -> None:
    """Vessels branch from the hilum; the lungs fill the rib cage down to where their volumes end: there the dome stands."""
    canvas = p.canvas
    for name, side, share in (("right", 1, 0.539), ("left", -1, 0.461)):
        field_ = _lung(p, side)
        box = mirror_box(((0.0, 190.0 * p.body.build.chest), (-130.0, 140.0), (-20.0, 440.0)), side)
        mass = p.masses_g["lungs"] * share
        tree = _branches(p, side)

        def vessels(x: Floats, y: Floats, z: Floats, lung: Field = field_, tree: Tubes = tree) -> Floats:
            return np.where(np.isfinite(lung(x, y, z)) & (lung(x, y, z) < 1.2), tree(x, y, z), np.inf).astype(np.float32)

        where = canvas.slices(tree.box(1.0))
        found = (vessels(*canvas.coordinates(where)) < 1) & (canvas.tissues[where] == 0)
        blood = min(0.10 * mass, float(found.sum()) * canvas.voxel_volume_ml * canvas.tissue_table["blood"][1])
        canvas.claim(tree.box(1.0), vessels, [canvas.layer(f"lung_{name}", "blood", blood)], one_piece=True)
        level = canvas.claim(box, field_, [canvas.layer(f"lung_{name}", "lung", mass - blood)], one_piece=True)
        p.dome_mm[side] = 60 * (1 - level)


def _branches(p: Placement, side: int) -> Tubes:
    hilum = np.array([46.0 * side, -14.0, 292.0])
    lines: list[tuple[ArrayLike, ArrayLike]] = []
    shift, _ = p.jitter(f"lung vessels {side}")
    for number in range(16):
        turn = number * 2.4 + shift[0]
        rise = -1.0 + 2.0 * (number + 0.5) / 16
        direction = np.array([0.55 * side + 0.45 * np.cos(turn) * side, 0.9 * np.sin(turn), 1.5 * rise])
        middle, end = hilum + 34 * direction, hilum + 78 * direction + np.array([0, 0, 8.0 * np.sin(5 * turn)])
        lines.append(([hilum, middle, end], [5.0, 3.2, 1.6]))
        for fork in (-1, 1):
            lines.append(([middle, middle + 30 * direction + fork * np.array([4.0, 16.0, 12.0 * np.cos(turn)])], [2.6, 1.3]))
    return Tubes(lines)
