"""Bones of the stylised adult: lines and solids whose sizes the reference masses settle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .stylised_body import Body
from .stylised_canvas import Box, Canvas, Field, Floats, box_of, ellipsoid, rotation_to, tubes
from .stylised_reference import CORTICAL_SHARE, density_of

# middles of the vertebrae (L5 to C1) along z, and of their bodies along y: lordosis, kyphosis, lordosis
_VERTEBRAE_Z = np.array(
    [-34, 0, 36, 71, 104, 135, 160, 184, 208, 232, 256, 280, 304, 328, 352, 375, 397, 417, 434, 451, 468, 485, 502, 519.0]
)
_VERTEBRAE_Y = np.array(
    [7, 13, 12, 4, -7, -18, -32, -42, -50, -56, -60, -62, -62, -60, -56, -50, -44, -38, -32, -27, -23, -20, -18, -17.0]
)
_HALF_WIDTH = np.interp(_VERTEBRAE_Z, [0, 140, 300, 400, 520], [25, 21, 17, 15, 13])
_HALF_DEPTH = np.interp(_VERTEBRAE_Z, [0, 140, 300, 400, 520], [17.5, 16, 14, 11, 9])

# per rib, T1 first: how far it falls from back to front, and how far round it reaches
_RIB_DROP = (34, 56, 72, 86, 98, 108, 116, 116, 112, 102, 78, 46)
_RIB_REACH = (0.84, 0.84, 0.82, 0.80, 0.78, 0.76, 0.73, 0.68, 0.62, 0.52, 0.38, 0.25)


@dataclass(frozen=True)
class Bone:
    """One bone or group of bones: reference mass, where it may be, its shape, and its extent along z."""

    name: str
    box: Box
    field: Field
    extent: tuple[float, float]


def spine_y(z: Floats) -> Floats:
    """y of the middle of the vertebral bodies at `z`."""
    return np.asarray(np.interp(z, _VERTEBRAE_Z, _VERTEBRAE_Y), np.float32)


def canal_y(z: Floats) -> Floats:
    """y of the middle of the spinal canal at `z`."""
    return np.asarray(spine_y(z) - np.interp(z, [0, 140, 400], [27, 25, 20]), np.float32)


def _vertebrae(x: Floats, y: Floats, z: Floats) -> Floats:
    edges = (_VERTEBRAE_Z[1:] + _VERTEBRAE_Z[:-1]) / 2
    which = np.searchsorted(edges, z)
    height = np.interp(_VERTEBRAE_Z, [0, 140, 300, 400, 520], [17.5, 12.5, 11.8, 9.5, 8.4])[which].astype(np.float32)
    u = np.abs(z - _VERTEBRAE_Z[which].astype(np.float32)) / height  # 1 halfway through the disc
    width, depth = _HALF_WIDTH[which].astype(np.float32), _HALF_DEPTH[which].astype(np.float32)
    back = y - spine_y(z)
    body = np.maximum(np.sqrt((x / width) ** 2 + (back / depth) ** 2), u / 0.84)
    canal = y - canal_y(z)
    radius = np.hypot(x, canal * 1.1)
    arch = np.maximum(np.abs(radius - 12.5) / 3.6, u / 0.66)
    spinous = np.maximum(np.maximum(np.abs(x) / 4.0, u / 0.55), np.abs(canal + 26) / 15)
    transverse = np.maximum(np.maximum(np.abs(canal + 1) / 5.5, u / 0.42), (np.abs(x) - 22) / 13)
    transverse = np.where(np.abs(x) > 10, transverse, np.inf)
    return np.minimum(np.minimum(body, arch), np.minimum(spinous, transverse)).astype(np.float32)


def rib_lines(body: Body) -> list[NDArray[np.float64]]:
    """Points (n, 3) along the right ribs, 1 to 12, from the spine to their front ends."""
    lines = []
    for number, (drop, reach) in enumerate(zip(_RIB_DROP, _RIB_REACH, strict=True)):
        top = _VERTEBRAE_Z[16 - number]
        angle = 0.15 * np.pi + (reach - 0.15) * np.pi * np.linspace(0, 1, 26)
        z = top + 4 - drop * np.linspace(0, 1, 26) ** 0.9
        x, y = body.cage.point(angle, z)
        head = np.array([[17.0, float(np.interp(top, _VERTEBRAE_Z, _VERTEBRAE_Y)) - 14, top + 4]])
        lines.append(np.concatenate([head, np.stack([x, y, z], axis=-1)]))
    return lines


def _mirror(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points * np.array([-1.0, 1.0, 1.0])


def _both_sides(field: Field) -> Field:
    return lambda x, y, z: field(np.abs(x), y, z)


def _plate(centre: tuple[float, float, float], normal: tuple[float, float, float], half: tuple[float, float, float]) -> Field:
    """Flat ellipsoid: `half` along the other direction, upwards, and along `normal`."""
    return ellipsoid(centre, half, rotation_to(normal))


def _smallest(*fields: Field) -> Field:
    def field(x: Floats, y: Floats, z: Floats) -> Floats:
        return np.asarray(np.minimum.reduce([part(x, y, z) for part in fields]), np.float32)

    return field


def bones(body: Body) -> list[Bone]:
    """Bones from the skull to the thighs, in the order in which they are placed."""
    hips = body.hips
    ribs = rib_lines(body)
    rib_radii = [np.full(len(line), 5.4) for line in ribs]
    both = [(line, radius) for line, radius in zip(ribs, rib_radii, strict=True)]
    both += [(_mirror(line), radius) for line, radius in both]
    chest = body.build.chest

    femur = _both_sides(
        _smallest(
            ellipsoid((90 * hips, 4, -142), (23.5, 23.5, 23.5)),
            tubes([([(90 * hips, 4, -142), (114 * hips, -2, -160), (134 * hips, -8, -172)], [14, 15, 17])]),
            tubes([([(134 * hips, -8, -172), (130 * hips, -4, -220), (118 * hips, 6, -440)], [17, 15.5, 13.5])]),
        )
    )
    socket = ellipsoid((90 * hips, 4, -142), (26, 26, 26))
    rings = tubes(
        [
            ([(84 * hips, 18, -134), (50 * hips, 44, -142), (10, 52, -160), (5, 50, -172)], [12, 8, 9, 9]),
            ([(92 * hips, -14, -150), (78 * hips, -32, -180), (64 * hips, -34, -196)], [16, 14, 13]),
            ([(64 * hips, -34, -198), (36 * hips, 4, -192), (8, 44, -178)], [9, 6, 8]),
        ]
    )
    wing = _plate((91 * hips, -12, -62), (0.74, -0.56, 0.38), (60, 58, 7.5))
    block = ellipsoid((92 * hips, 0, -126), (27, 30, 36))

    def pelvis(x: Floats, y: Floats, z: Floats) -> Floats:
        x = np.abs(x)
        value = np.minimum(np.minimum(wing(x, y, z), rings(x, y, z)), np.maximum(block(x, y, z), 1.4 - 0.5 * (x > 84 * hips)))
        return np.where(socket(x, y, z) < 1, np.inf, value).astype(np.float32)

    scapula = _both_sides(
        _smallest(
            _plate((98, -101, 315), (0.34, -0.93, 0.12), (44, 70, 6.0)),
            tubes([([(70, -112, 345), (112, -100, 374), (136, -66, 402)], [6, 7, 9])]),
            ellipsoid((122, -62, 370), (15, 15, 19)),
        )
    )
    clavicle = _both_sides(tubes([([(16, 50, 368), (60, 44, 380), (102, 4, 396), (134, -42, 402)], [9, 7, 6.6, 8])]))
    humerus = _both_sides(
        _smallest(
            ellipsoid((146, -50, 380), (22, 22, 22)),
            tubes([([(149, -48, 384), (158, -34, 440), (160, -18, 540), (157, -4, 600)], [16, 12.5, 11.5, 11])]),
        )
    )
    front = body.cage

    def sternum(x: Floats, y: Floats, z: Floats) -> Floats:
        _, middle, depth = front.at(z)
        width = np.interp(z, [190, 215, 300, 335, 365], [7, 17, 15, 20, 24])
        plate = np.maximum(np.abs(x) / width, np.abs(y - middle - depth) / 5.0)
        return np.asarray(np.maximum(plate, np.abs(z - 278) / 88), np.float32)

    def sacrum(x: Floats, y: Floats, z: Floats) -> Floats:
        down = np.clip((-50 - z) / 95, 0, 1.2)
        centre = -16 - 62 * np.sin(np.clip(down, 0, 1) * 1.45) + 22 * np.clip(down - 0.75, 0, 1)
        width = (54 - 42 * down) * hips
        depth = 19 - 12 * down
        return np.asarray(np.maximum(np.sqrt((x / width) ** 2 + ((y - centre) / depth) ** 2), np.abs(z + 98) / 48), np.float32)

    def cranium(x: Floats, y: Floats, z: Floats) -> Floats:
        radius = np.sqrt((x / 69) ** 2 + ((y + 4) / 88) ** 2 + ((z - 628) / 81) ** 2)
        shell = np.abs(radius - 1) / 0.05
        face = np.maximum(np.abs(np.sqrt((x / 52) ** 2 + ((y - 44) / 46) ** 2) - 1) / 0.10, np.abs(z - 572) / 24)
        return np.minimum(shell, np.where(y > 44, face, np.inf)).astype(np.float32)

    mandible = tubes([([(-50, 22, 560), (-46, 40, 528), (-26, 80, 516), (0, 92, 514), (26, 80, 516), (46, 40, 528),
                        (50, 22, 560)], [9, 11, 11, 12, 11, 11, 9])])  # fmt: skip
    spine_box = ((-60.0, 60.0), (-130.0, 60.0))
    chest_x = 175.0 * chest
    return [
        Bone("lumbar_spine", (*spine_box, (-52.0, 119.0)), _vertebrae, (-52, 119)),
        Bone("thoracic_spine", (*spine_box, (119.0, 407.0)), _vertebrae, (119, 407)),
        Bone("cervical_spine", (*spine_box, (407.0, 530.0)), _vertebrae, (407, 530)),
        Bone("sacrum", ((-80, 80), (-120, 25), (-165, -45)), sacrum, (-150, -50)),
        Bone("femora_upper_half", ((-185, 185), (-70, 70), (-480, -100)), femur, (-395, -118)),
        Bone("pelvis", ((-175, 175), (-110, 90), (-235, 20)), pelvis, (-215, -4)),
        Bone("ribs", ((-chest_x, chest_x), (-125, 145), (40, 425)), tubes(both), (50, 407)),
        Bone("sternum", ((-35, 35), (10, 150), (185, 370)), sternum, (190, 366)),
        Bone("scapulae", ((-185, 185), (-140, -20), (230, 420)), scapula, (245, 405)),
        Bone("clavicles", ((-165, 165), (-75, 75), (350, 425)), clavicle, (358, 412)),
        Bone("humeri_upper_half", ((-200, 200), (-90, 40), (340, 640)), humerus, (364, 540)),
        Bone("cranium", ((-85, 85), (-110, 110), (530, 730)), cranium, (545, 714)),
        Bone("mandible", box_of([(-50, 22, 510), (50, 92, 560)], 18), mandible, (505, 566)),
    ]


def share_inside(extent: tuple[float, float], canvas: Canvas, *, whole_below: float = 0.03) -> float:
    """Share of an extent along z that the canvas covers; small missing rests count as nothing missing."""
    bottom, top = float(canvas.z.min()), float(canvas.z.max())
    low, high = extent
    share = max(0.0, min(high, top) - max(low, bottom)) / (high - low)
    return 1.0 if share > 1 - whole_below else share if share > whole_below else 0.0


def place_skeleton(canvas: Canvas, body: Body, masses_g: dict[str, float]) -> dict[str, float]:
    """Paint the bones; return the mass of each that lies on the canvas, g."""
    placed = {}
    for bone in bones(body):
        share = share_inside(bone.extent, canvas)
        if bone.name not in masses_g or share == 0:
            continue
        mass = masses_g[bone.name] * share
        mean = CORTICAL_SHARE * density_of("cortical") + (1 - CORTICAL_SHARE) * density_of("spongiosa")
        number = canvas.count(mass, mean)
        core = round(number * (1 - CORTICAL_SHARE))
        canvas.claim("skeleton", bone.box, bone.field, [("spongiosa", core), ("cortical", number - core)])
        placed[bone.name] = mass
    return placed
