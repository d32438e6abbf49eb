"""Bones of a stylised person, in the reference frame except those of the arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .people_body import Arm, Body
from .people_canvas import Box, Canvas, Field, Floats
from .people_reference import BoneParts
from .people_shapes import Tubes, box_around, ellipsoid, mirror_box, mirrored, plate, smallest, tube

# middles of the vertebrae (L5 to C1) along z, and of their bodies along y: lordosis, kyphosis, lordosis
VERTEBRAE_Z = np.array(
    [-34, 0, 36, 71, 104, 135, 160, 184, 208, 232, 256, 280, 304, 328, 352, 375, 397, 417, 434, 451, 468, 485, 502, 519.0]
)
_VERTEBRAE_Y = np.array(
    [4, 11, 11, 3, -7, -18, -32, -42, -50, -56, -60, -62, -62, -60, -56, -50, -44, -38, -32, -27, -23, -20, -18, -17.0]
)
_MEAN_Y = -30.0
_EDGES = (VERTEBRAE_Z[1:] + VERTEBRAE_Z[:-1]) / 2
_HALF_WIDTH = np.interp(VERTEBRAE_Z, [-34, 0, 140, 300, 400, 520], [27, 25.5, 20, 16, 14, 12.5])
_HALF_DEPTH = np.interp(VERTEBRAE_Z, [-34, 0, 140, 300, 400, 520], [18, 17.5, 16, 14, 10.5, 8.5])
_HALF_HEIGHT = np.interp(VERTEBRAE_Z, [0, 140, 300, 400, 520], [17.5, 12.5, 11.8, 9.5, 8.4])
DISC = 0.80  # share of the height between two vertebrae that is bone

# per rib, T1 first: how far it falls from back to front, and how far round it reaches
_RIB_DROP = (34, 56, 72, 86, 98, 108, 114, 114, 110, 100, 78, 46)
_RIB_REACH = (0.84, 0.83, 0.81, 0.79, 0.77, 0.75, 0.72, 0.67, 0.61, 0.52, 0.38, 0.25)
_HEAD_CENTRE = (0.0, -4.0, 628.0)
_REGIONS = {"cervical_spine": (407.0, 530.0), "thoracic_spine": (119.0, 407.0), "lumbar_spine": (-52.0, 119.0)}


@dataclass(frozen=True)
class Bone:
    """One bone: its label, its region in `bone_parts`, its share of the region, where it may be, and its shape."""

    label: str
    region: str
    share: float
    box: Box
    field: Field
    body_frame: bool = False


def spine_y(z: Floats, lordosis: float = 1.0) -> Floats:
    """y of the middle of the vertebral bodies at `z`."""
    return np.asarray(_MEAN_Y + lordosis * (np.interp(z, VERTEBRAE_Z, _VERTEBRAE_Y) - _MEAN_Y), np.float32)


def canal_y(z: Floats, lordosis: float = 1.0) -> Floats:
    """y of the middle of the spinal canal at `z`."""
    return np.asarray(spine_y(z, lordosis) - np.interp(z, [0, 140, 400], [29, 26, 20]), np.float32)


def _vertebrae(lordosis: float) -> Field:
    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        which = np.searchsorted(_EDGES, z)
        rise = (z - VERTEBRAE_Z[which]).astype(np.float32)
        u = np.abs(rise) / _HALF_HEIGHT[which].astype(np.float32)  # 1 halfway through the disc
        width, depth = _HALF_WIDTH[which].astype(np.float32), _HALF_DEPTH[which].astype(np.float32)
        waist = 1 - np.float32(0.10) * (1 - np.minimum(u / DISC, 1) ** 2)  # the body is narrower halfway up
        back, behind = y - spine_y(z, lordosis), y - canal_y(z, lordosis)
        side = np.abs(x)
        # the canal indents the back of the body
        body = np.maximum(
            np.sqrt((x / (width * waist)) ** 2 + (np.maximum(back, -1.15 * back) / (depth * waist)) ** 2), u / DISC
        )
        radius = np.hypot(x / 1.15, behind * 1.05)
        pedicle = np.maximum(np.abs(radius - 13.5) / 3.4, np.abs(rise - 3) / 8.5)
        lamina = np.maximum(np.abs(radius - 13.5) / 3.2, np.where(behind < -4, u / 0.80, np.inf))
        length = np.interp(VERTEBRAE_Z, [0, 120, 300, 420, 510], [19, 19, 17, 13, 9])[which].astype(np.float32)
        slope = np.interp(VERTEBRAE_Z, [60, 160, 340, 420], [0.15, 0.9, 0.9, 0.4])[which].astype(np.float32)
        tip = behind + 15 + length
        spinous = np.maximum(np.abs(x) / (3.4 + 0.7 * (tip < 6)), np.abs(tip - length / 2) / (0.62 * length))
        spinous = np.maximum(spinous, np.abs(rise + slope * (-behind - 14) * 0.6) / 8.0)
        reach = np.interp(VERTEBRAE_Z, [0, 130, 300, 420, 510], [42, 30, 31, 27, 22])[which].astype(np.float32)
        transverse = np.maximum(np.abs(behind + 2 + 0.32 * (side - 14)) / 4.4, np.abs(rise - 3) / 5.5)
        transverse = np.maximum(transverse, np.where(side > 11, side / reach, np.inf))
        facet = np.sqrt(((side - 17) / 6.5) ** 2 + ((behind + 9) / 6) ** 2 + (np.maximum(np.abs(rise) - 9, 0) / 6) ** 2)
        return np.asarray(
            np.minimum(np.minimum(np.minimum(body, pedicle), np.minimum(lamina, facet)), np.minimum(spinous, transverse)),
            np.float32,
        )

    return field


def rib_lines(body: Body) -> list[NDArray[np.float64]]:
    """Points (n, 3) along the right ribs, 1 to 12, from the spine to their front ends."""
    lines = []
    for number, (drop, reach) in enumerate(zip(_RIB_DROP, _RIB_REACH, strict=True)):
        top = VERTEBRAE_Z[16 - number]
        angle = 0.15 * np.pi + (reach - 0.15) * np.pi * np.linspace(0, 1, 20)
        z = top + 4 - drop * np.linspace(0, 1, 20) ** 0.9
        x, y = body.cage.point(angle, z)
        level = np.array([top], np.float32)
        start = float(spine_y(level, body.build.lordosis)[0])
        head = np.array([[16.0, start - 12, top + 4], [30.0, min(start - 24, y[0] + 8), top + 6]])
        lines.append(np.concatenate([head, np.stack([x, y, z], axis=-1)]))
    return lines


def _cartilage_lines(ribs: list[NDArray[np.float64]], body: Body) -> list[tuple[NDArray[np.float64], float]]:
    """From the ends of the ribs 1 to 10 to the breastbone, or to the cartilage above."""
    lines: list[tuple[NDArray[np.float64], float]] = []
    for number, rib in enumerate(ribs[:10]):
        end, before = rib[-1], rib[-3]
        z = float(np.interp(number, [0, 1, 6, 7, 9], [356, 338, 212, 190, 150]))
        z = z if number < 7 else end[2] + 26
        _, middle, depth = body.cage.at(np.array([z], np.float32))
        front = float(middle[0] + depth[0])
        goal = np.array([17.0 if number < 7 else max(24.0, end[0] - 34), front - (2 if number < 7 else 5), z])
        bend = end + 0.4 * (end - before)
        lines.append((np.stack([end, 0.5 * (bend + goal) + np.array([0, 2.0, -6.0]), goal]), 5.0))
    return lines


def _sternum(body: Body) -> Field:
    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        _, middle, depth = body.cage.at(z)
        width = np.interp(z, [180, 200, 215, 240, 300, 335, 340, 365], [5, 8, 17, 18, 15, 18, 24, 28]).astype(np.float32)
        return np.maximum(np.maximum(np.abs(x) / width, np.abs(y - middle - depth) / 5.5), np.abs(z - 274) / 93)

    return field


def _sacrum(body: Body) -> Field:
    hips = body.build.hips

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        down = np.clip((-50 - z) / 95, 0, 1.2)
        straight = 0.4 + 0.6 * body.build.lordosis
        centre = -18 - (60 * np.sin(np.clip(down, 0, 1) * 1.45) - 22 * np.clip(down - 0.72, 0, 1)) * straight
        width, depth = (56 - 44 * np.minimum(down, 1)) * hips, 20 - 13 * np.minimum(down, 1)
        wing = (np.abs(x) / width) ** 2
        solid = np.maximum(np.sqrt(wing + ((y - centre + 7 * wing) / depth) ** 2), np.abs(z + 99) / 49)
        # holes for the nerves, and the canal
        holes = np.hypot(np.abs(x) - (24 - 10 * down), np.abs((z + 66) % 20 - 10) * 1.0) < 4.0
        canal = np.hypot(x / 1.5, y - centre + 9) < 5.0 - 3 * down
        return np.where((holes & (np.abs(z + 95) < 38)) | canal, 3.0, solid).astype(np.float32)

    return field


def _hip(body: Body) -> Field:
    """Right hip bone: bent wing with a thick crest, acetabulum, pubis and ischium around the obturator hole."""
    h = body.build.hips
    wing = plate((93 * h, -16, -58), (0.80, -0.52, 0.30), (62, 60), 3.4, bend=(0.0035, 0.002), rim=4.2)
    joint = plate((48 * h, -62, -72), (0.85, 0.45, -0.15), (24, 38), 8.0)
    block = ellipsoid((88 * h, 0, -132), (30, 31, 33))
    socket = ellipsoid((92 * h, 5, -143), (27.5, 26.5, 26.5))
    rings = Tubes(
        [
            ([(76 * h, 24, -132), (50 * h, 44, -140), (22, 54, -154), (7, 52, -166)], [10, 7, 8, 9]),
            ([(90 * h, -20, -148), (76 * h, -34, -176), (64 * h, -32, -200)], [14, 12.5, 12.5]),
            ([(64 * h, -26, -204), (40 * h, 6, -196), (12, 44, -176)], [9, 5.5, 7]),
            ([(78 * h, -18, -110), (62 * h, -44, -98), (50 * h, -62, -88)], [13, 11, 11]),
        ]
    )

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        value = np.minimum(np.minimum(wing(x, y, z), joint(x, y, z)), np.minimum(rings(x, y, z), block(x, y, z)))
        value = np.where(x < 5, np.inf, value)
        return np.where(socket(x, y, z) < 1, np.inf, value).astype(np.float32)

    return field


def _femur(body: Body) -> Field:
    h = body.build.hips
    return smallest(
        ellipsoid((92 * h, 5, -143), (23.5, 23.5, 23.5)),
        Tubes(
            [
                ([(94 * h, 4, -146), (114 * h, -2, -164), (130 * h, -8, -180)], [14, 14.5, 17]),
                ([(134 * h, -12, -156), (134 * h, -10, -176), (130 * h, -6, -210)], [11, 15, 14]),
                ([(130 * h, -4, -205), (118 * h, 6, -330), (103 * h, 4, -450), (92, 0, -510)], [14.5, 13, 13.5, 18]),
                ([(74, -6, -532), (88, -2, -528), (104, -6, -532)], [21, 22, 21]),
            ]
        ),
    )


def _legs() -> list[tuple[str, str, float, Field, Box]]:
    """Label, region, share of one side, field and box of the bones below the knee, right side."""
    tibia = Tubes(
        [
            ([(74, -4, -574), (88, 0, -572), (102, -4, -574)], [17, 18, 17]),
            ([(88, 2, -585), (85, 6, -640), (83, 2, -760), (82, -8, -900), (82, -12, -952)], [19, 14, 11.5, 10, 15]),
        ]
    )
    fibula = tube([(112, -14, -592), (110, -16, -640), (107, -16, -800), (104, -16, -960)], [9, 6, 5.5, 9])
    patella = ellipsoid((89, 32, -532), (20, 9, 20))
    foot = Tubes(
        [
            ([(86, -42, -1010), (87, -18, -1000), (88, 8, -990)], [17, 18, 17]),
            ([(86, -12, -976), (84, 10, -978), (82, 40, -984)], [17, 17, 15]),
            *[
                ([(76 + 8 * n, 42, -988), (72 + 9 * n, 88, -1006), (68 + 11 * n, 128 - 5 * n, -1016)], [9, 6, 6])
                for n in range(5)
            ],
        ]
    )
    region = "tibiae_fibulae_patellae"
    return [
        ("tibia", region, 0.40, tibia, tibia.box()),
        ("fibula", region, 0.075, fibula, fibula.box()),
        ("patella", region, 0.025, patella, box_around((89, 32, -532), 34)),
        ("foot_bones", "ankles_and_feet", 0.5, foot, foot.box(1.4)),
    ]


def _scapula() -> Field:
    return smallest(
        plate((92, -88, 314), (0.36, -0.92, 0.10), (43, 72), 2.4, bend=(-0.0035, -0.001), rim=3.0),
        Tubes(
            [([(66, -101, 345), (104, -95, 372), (136, -60, 396)], [4.5, 6, 7]), ([(122, -62, 372), (128, -36, 378)], [9, 7])]
        ),
        ellipsoid((126, -62, 366), (11, 14, 19)),
    )


def _cranium(brain_level: float, skull_mm: float) -> Field:
    """Shell around the brain, base, and bones of the face; `brain_level` scales it to the brain that was placed."""
    outer = ellipsoid(_HEAD_CENTRE, np.array([66.5, 85.5, 78.5]) * brain_level)
    face = Tubes(
        [
            ([(-44, 66, 584), (-30, 78, 600), (0, 84, 604), (30, 78, 600), (44, 66, 584)], [4.5, 5, 6, 5, 4.5]),
            ([(-44, 66, 584), (-46, 62, 568), (-28, 78, 556), (0, 88, 550), (28, 78, 556), (46, 62, 568), (44, 66, 584)],
             [6, 8, 8, 8, 8, 8, 6]),
            ([(-46, 62, 570), (-63, 36, 572), (-64, 8, 574)], [6, 4, 4.5]),
            ([(46, 62, 570), (63, 36, 572), (64, 8, 574)], [6, 4, 4.5]),
            ([(-24, 62, 552), (-24, 40, 552)], [7, 6]),
            ([(24, 62, 552), (24, 40, 552)], [7, 6]),
            ([(0, 88, 598), (0, 94, 588)], [5, 4]),
            ([(0, 80, 590), (0, 50, 575)], [2.5, 2.5]),
            ([(-58, -6, 562), (-58, -10, 548)], [11, 7]),
            ([(58, -6, 562), (58, -10, 548)], [11, 7]),
        ]
    )  # fmt: skip

    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        shell = np.abs(outer(x, y, z) - 1 - 0.045) * 78 / (0.5 * skull_mm)
        base = np.where(z < 566, 0.4 * np.clip((566 - z) / 20, 0, 3), 0)
        return np.minimum(shell + base, face(x, y, z))

    return field


def _arm_bones(arm: Arm, side: str) -> list[Bone]:
    """Humerus, radius, ulna and bones of the hand, in the body frame."""
    shoulder, elbow, wrist, tip = arm.joints
    r = arm.radii
    along = (elbow - shoulder) / np.linalg.norm(elbow - shoulder)
    across = np.cross(wrist - elbow, [0.0, 1.0, 0.0])
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    head = shoulder - along * 0.12 * r[0]
    shaft = 0.29 * r[0]
    humerus = Tubes(
        [
            ([head, shoulder + along * 0.8 * r[0]], [0.56 * r[0], 0.36 * r[0]]),
            ([shoulder + along * 0.6 * r[0], shoulder + 0.5 * (elbow - shoulder), elbow - along * 0.6 * r[1]],
             [shaft * 1.15, shaft, shaft]),
            ([elbow - across * 0.5 * r[1], elbow + across * 0.5 * r[1]], [0.36 * r[1], 0.36 * r[1]]),
        ]
    )  # fmt: skip
    way = wrist - elbow
    radius = tube([elbow + across * 0.32 * r[1] + 0.05 * way,
                   elbow + across * 0.35 * r[1] + 0.5 * way, wrist + across * 0.22 * r[2]],
                  [0.22 * r[1], 0.17 * r[1], 0.40 * r[2]])  # fmt: skip
    ulna = tube([elbow - across * 0.25 * r[1] - 0.04 * way,
                 elbow - across * 0.32 * r[1] + 0.5 * way, wrist - across * 0.36 * r[2]],
                [0.30 * r[1], 0.17 * r[1], 0.22 * r[2]])  # fmt: skip
    hand = tip - wrist
    fan = np.cross(hand, across)
    fan = fan / max(float(np.linalg.norm(fan)), 1e-6)
    rays = [
        ([wrist + 0.15 * hand, wrist + 0.5 * hand + fan * n * 0.34 * r[2], wrist + 0.95 * hand + fan * n * 0.40 * r[2]],
         [0.3 * r[2], 0.16 * r[2], 0.12 * r[2]])
        for n in (-1.0, -0.33, 0.33, 1.0)
    ]  # fmt: skip
    bones = Tubes([([wrist, wrist + 0.2 * hand], [0.55 * r[2], 0.55 * r[2]]), *rays])
    return [
        Bone(f"humerus_{side}", "humeri", 0.5, humerus.box(), humerus, True),
        Bone(f"radius_{side}", "ulnae_and_radii", 0.23, radius.box(), radius, True),
        Bone(f"ulna_{side}", "ulnae_and_radii", 0.27, ulna.box(), ulna, True),
        Bone(f"hand_bones_{side}", "wrists_and_hands", 0.5, bones.box(1.2), bones, True),
    ]


def bones(body: Body, brain_level: float) -> list[Bone]:
    """All bones, in the order in which they take their room."""
    spine = _vertebrae(body.build.lordosis)
    listed = [Bone(name, name, 1.0, ((-48, 48), (-150, 60), span), spine) for name, span in _REGIONS.items()]
    listed.append(Bone("sacrum", "sacrum", 1.0, ((-80, 80), (-130, 25), (-165, -45)), _sacrum(body)))
    hip, femur, scapula = _hip(body), _femur(body), _scapula()
    for side, name in ((1, "right"), (-1, "left")):
        sided: Sequence[tuple[str, str, float, Field, Box]] = [
            ("femur", "femora", 0.5, femur, ((55, 165), (-45, 45), (-556, -110))),
            ("hip", "pelvis", 0.5, hip, ((4, 170), (-110, 90), (-232, 20))),
            ("scapula", "scapulae", 0.5, scapula, ((40, 170), (-140, -15), (225, 420))),
            *_legs(),
        ]
        listed += [Bone(f"{label}_{name}", region, share, mirror_box(box, side), mirrored(field, side))
                   for label, region, share, field, box in sided]  # fmt: skip
        clavicle = tube([(16, 52, 366), (52, 50, 374), (88, 18, 388), (132, -44, 399)], [8.5, 6.5, 6, 7])
        listed.append(Bone(f"clavicula_{name}", "clavicles", 0.5, mirror_box(clavicle.box(), side), mirrored(clavicle, side)))
    for arm, name in zip(body.arms, ("right", "left"), strict=True):
        listed += _arm_bones(arm, name)
    lines = rib_lines(body)
    both = lines + [line * np.array([-1.0, 1.0, 1.0]) for line in lines]
    ribs = Tubes([(line, 3.9) for line in both], flat=0.6)
    listed.append(Bone("ribs", "ribs", 1.0, ribs.box(1.3), ribs))
    listed.append(Bone("sternum", "sternum", 1.0, ((-38, 38), (10, 150), (176, 372)), _sternum(body)))
    listed.append(Bone("skull", "cranium", 1.0, ((-92, 92), (-118, 116), (526, 736)), _cranium(brain_level, 6.5)))
    jaw = tube(
        [(-52, 14, 562), (-49, 34, 532), (-34, 66, 519), (0, 88, 514), (34, 66, 519), (49, 34, 532), (52, 14, 562)],
        [6, 8, 9, 10, 9, 8, 6],
    )
    listed.append(Bone("mandible", "mandible", 1.0, jaw.box(), jaw))
    return listed


def place_bones(
    canvas: Canvas, body: Body, parts: dict[str, BoneParts], masses_g: dict[str, float], brain_level: float
) -> None:
    """Paint the bones: medullary cavity and spongiosa inside, cortical bone around them."""
    for bone in bones(body, brain_level):
        part = parts[bone.region]
        mass = masses_g[bone.region] * bone.share
        core = (part.medullary_g * mass / part.total_g, part.spongiosa_g * mass / part.total_g)
        cortical = mass - sum(core)
        canvas.claim(
            bone.box,
            bone.field,
            [
                canvas.layer(bone.label, "medullary_cavity", core[0]),
                canvas.layer(bone.label, f"spongiosa_{bone.region}", core[1]),
                canvas.layer(bone.label, "cortical_bone", cortical),
            ],
            body_frame=bone.body_frame,
        )


def place_cartilage(canvas: Canvas, body: Body, disc_ml: float, costal_g: float) -> None:
    """Discs between the vertebrae and cartilage from the ribs to the breastbone."""
    lordosis = body.build.lordosis

    def disc(x: Floats, y: Floats, z: Floats) -> Floats:
        which = np.searchsorted(_EDGES, z)
        nearest = np.abs(z - np.concatenate([[-52.0], _EDGES])[np.clip(np.searchsorted(VERTEBRAE_Z, z), 0, len(_EDGES))])
        width, depth = _HALF_WIDTH[which].astype(np.float32), _HALF_DEPTH[which].astype(np.float32)
        flat = np.sqrt((x / width) ** 2 + ((y - spine_y(z, lordosis)) / depth) ** 2)
        return np.maximum(flat, nearest / ((1 - DISC) * 1.25 * _HALF_HEIGHT[which].astype(np.float32)))

    canvas.claim(((-40, 40), (-120, 60), (-56, 500)), disc, [canvas.layer("intervertebral_discs", "cartilage", disc_ml * 1.1)])
    half = _cartilage_lines(rib_lines(body), body)
    mirror = np.array([-1.0, 1.0, 1.0])
    cartilage = Tubes([*half, *((line * mirror, radius) for line, radius in half)], flat=0.7)
    canvas.claim(cartilage.box(1.3), cartilage, [canvas.layer("costal_cartilages", "cartilage", costal_g)])
