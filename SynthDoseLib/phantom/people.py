"""Stylised people from newborn to adult: smooth organs at their places, each with the mass that was asked."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid

from .people_abdomen import paint_inner_fat, place_abdomen, place_breasts, place_testes
from .people_body import Arm, Body, Build
from .people_canvas import BodyFrame, Canvas, Shells
from .people_chest import Placement, place_chest, place_head, place_throat
from .people_muscles import paint_fat_planes
from .people_person import PersonPlan, StylisedPerson
from .people_reference import (
    LUNG_DENSITY,
    SEXES,
    BoneParts,
    TargetMass,
    between_ages,
    bone_parts,
    organ_targets,
    reference_height_cm,
    reference_mass,
)
from .people_skeleton import place_bones, place_cartilage
from .people_tissues import BONE_REGIONS, PersonTissue, person_tissues

TissueChange = Callable[[tuple[PersonTissue, ...]], tuple[PersonTissue, ...]]
# shares of the height by age: leg to the crotch, knee, neck, head (vertex to chin)
_LEG = (0.330, 0.375, 0.425, 0.455, 0.472, 0.4727)
_NECK = (0.0225, 0.033, 0.041, 0.045, 0.0497, 0.054)
_HEAD = (0.250, 0.217, 0.179, 0.1485, 0.1275, 0.1222)
_WIDTH = (0.36, 0.49, 0.60, 0.70, 0.87, 1.0)
_DEPTH = (0.43, 0.58, 0.65, 0.71, 0.85, 1.0)
_LORDOSIS = (0.35, 0.7, 0.9, 1.0, 1.0, 1.0)
_LANDMARKS = (-1040.0, -560.0, -208.0, 410.0, 505.0, 720.0)  # sole, knee, crotch, neck, chin, vertex
_FEMALE_WIDTH = (1.0, 1.0, 1.0, 1.0, 0.96, 0.93)


def stylised_person(
    plan: PersonPlan,
    *,
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    margin_mm: float = 15.0,
    adapt_tissues: TissueChange | None = None,
) -> StylisedPerson:
    """Build a person whose organ masses are those of the tables for the age and sex, at the height and weight asked.

    Parameters
    ----------
    plan : PersonPlan
    spacing_mm : tuple of 3 float
        Voxel size along i, j, k, from 0.5 to 8 mm.
    margin_mm : float
        Air around the body, mm.
    adapt_tissues : callable, optional
        Changes densities or CT numbers of the tissues before anything is painted; names and order have to stay.

    Returns
    -------
    StylisedPerson
        On an axial grid whose axes run to the left, back and head, as in DICOM.

    Raises
    ------
    SynthDoseError
        If an argument is outside what is allowed, or such a person cannot be.

    Notes
    -----
    An organ is a smooth function of the position; it receives the free voxels with the smallest values, as many as its
    mass asks for, in an order of precedence. So no voxel belongs to two organs, and the mass is right to half a voxel.
    Muscle, fat and skin are laid around the rest until the body weighs what was asked.
    """
    maker = _Maker(plan)
    if len(spacing_mm) != 3 or not all(0.5 <= s <= 8.0 for s in spacing_mm):
        raise SynthDoseError(f"spacing_mm has to be three sizes from 0.5 to 8 mm; found {spacing_mm}.")
    return maker.build(spacing_mm, margin_mm, adapt_tissues)


class _Maker:
    """One person under construction: sizes first, then the canvas."""

    def __init__(self, plan: PersonPlan) -> None:
        age = plan.age_y
        self.reference_height_cm = reference_height_cm(plan.sex, age)
        self.reference_weight_kg = reference_mass("total_body", plan.sex, age).mass_g / 1000
        self.height_mm = 10 * (plan.height_cm if plan.height_cm is not None else self.reference_height_cm)
        self.stature = self.height_mm / 10 / self.reference_height_cm
        weight = plan.weight_kg if plan.weight_kg is not None else self.reference_weight_kg * self.stature**2
        self.weight_kg = weight
        self.plan = plan
        self.targets = organ_targets(plan.sex, age, self.height_mm / 10, weight)
        self._vary_masses()
        heaviness = weight / self.reference_weight_kg / self.stature**2
        self.heaviness = heaviness
        self.frame = self._frame()
        fat_g = 0.75 * max(0.04 * weight * 1000, weight * 1000 - self._lean_g())
        self.fat_mm = fat_g / 0.95 / (np.sqrt(self.height_mm / 10 * weight / 3600) * 1e4) * 10
        slim = heaviness**0.25 * np.exp(0.03 * self._normal("girth"))
        self.build_of_body = Build(
            plan.sex,
            girth=float(np.clip(heaviness**0.22 * slim**0.3, 0.85, 1.35)),
            chest=float((0.96 if plan.sex == "female" else 1.0) * np.exp(0.025 * self._normal("chest"))),
            hips=1.06 if plan.sex == "female" and age > 12 else 1.0,
            belly=float(np.clip(heaviness**0.45 + between_ages((0.06, 0.06, 0.03, 0.0, 0.0, 0.0), age), 0.85, 1.5)),
            lordosis=between_ages(_LORDOSIS, age),
        )
        self.arms = self._arms()
        self.body = Body(self.build_of_body, self.arms, self.frame)

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, SEXES.index(self.plan.sex), zlib.crc32(name.encode())])

    def _normals(self, name: str, number: int) -> NDArray[np.float64]:
        return np.clip(self._random(name).standard_normal(number), -2, 2) * self.plan.variation

    def _normal(self, name: str) -> float:
        return float(self._normals(name, 1)[0])

    def jitter(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift, mm of the reference frame, and size factors of an organ."""
        shift = self._normals(f"place {name}", 3) * np.array([2.5, 2.5, 4.0])
        return shift, np.exp(0.05 * self._normals(f"shape {name}", 3))

    def _vary_masses(self) -> None:
        spread = {"urinary_bladder_contents": 0.5, "gallbladder_contents": 0.4, "stomach_contents": 0.4, "spleen": 0.2,
                  "colon_contents": 0.25, "small_bowel_contents": 0.2, "skin": 0.0, "skeleton": 0.05}  # fmt: skip
        for name, target in self.targets.items():
            factor = float(np.exp(spread.get(name, 0.08) * self._normal(f"mass {name}")))
            self.targets[name] = TargetMass(target.mass_g * factor, target.estimated, target.source)

    def _lean_g(self) -> float:
        left_out = {"cartilage_trunk", "lungs"}
        return (
            sum(target.mass_g for name, target in self.targets.items() if name not in left_out) + self.targets["lungs"].mass_g
        )

    def _frame(self) -> BodyFrame:
        plan, height = self.plan, self.height_mm
        age = plan.age_y
        # a tall person is tall in the legs: the head hardly changes
        tall = self.stature
        head = between_ages(_HEAD, age) * (1 + 0.5 * (1 / tall - 1))
        neck, leg = between_ages(_NECK, age), between_ages(_LEG, age) * (1 + 0.1 * (tall - 1))
        heights = np.array([0.0, 0.577 * leg, leg, 1 - head - neck, 1 - head, 1.0]) * height
        crotch = heights[2]
        trunk = (heights[3] - crotch) / (_LANDMARKS[3] - _LANDMARKS[2])
        zero = crotch - _LANDMARKS[2] * trunk  # the middle of L4
        wide = (tall**0.5) * self.heaviness**0.22
        sx = between_ages(_WIDTH, age) * wide * np.exp(0.03 * self._normal("width"))
        if plan.sex == "female":
            sx *= between_ages(_FEMALE_WIDTH, age)
        sy = between_ages(_DEPTH, age) * wide * np.exp(0.03 * self._normal("depth"))
        if plan.sex == "female":
            sy *= between_ages(_FEMALE_WIDTH, age)
        self.leg_scale = between_ages((0.30, 0.44, 0.57, 0.70, 0.88, 1.0), age) * wide * (0.96 if plan.sex == "female" else 1.0)
        self.arm_scale = between_ages((0.33, 0.46, 0.57, 0.69, 0.87, 1.0), age) * wide * (0.88 if plan.sex == "female" else 1.0)
        brain = (self.targets["brain"].mass_g / 1450.0) ** (1 / 3)
        neck_scale = 0.6 * sx + 0.4 * brain
        widths = [(-500, self.leg_scale), (-230, sx), (405, sx), (450, neck_scale), (520, brain), (720, brain)]
        depths = [(-500, self.leg_scale), (-230, sy), (405, sy), (450, neck_scale), (520, brain), (720, brain)]
        return BodyFrame(list(zip(_LANDMARKS, (heights - zero).tolist(), strict=True)), widths, depths)

    def _arms(self) -> tuple[Arm, ...]:
        height, scale = self.height_mm, self.arm_scale
        radii = np.array([42.0, 34.0, 23.0]) * scale
        young = between_ages((0.94, 0.96, 1.0, 1.0, 1.0, 1.0), self.plan.age_y)
        upper, fore, hand = (share * height * young for share in (0.172, 0.142, 0.104))
        arms = []
        up = self.plan.arms == "up"
        chest = self.build_of_body.chest
        shoulder = self.frame.point(150 * chest, -40, 392) if up else self.frame.point(155 * chest, -34, 374)
        if up:
            splay = 0.55 + 0.1 * self._normal("splay")
            first = np.array([splay, 0.12, 1.0])
            second = np.array([-0.55, 0.30, 0.85])
            elbow = shoulder + upper * first / np.linalg.norm(first)
            wrist = elbow + fore * second / np.linalg.norm(second)
            end = wrist + hand * second / np.linalg.norm(second)
        else:
            elbow = self._beside(shoulder, upper, radii[1], -30.0)
            wrist = self._beside(elbow, fore, radii[2], -6.0)
            end = wrist + np.array([0.0, 0.15, -0.99]) * hand
        joints = np.stack([shoulder, elbow, wrist, end])
        for side in (1.0, -1.0):
            arms.append(Arm(joints * np.array([side, 1.0, 1.0]), radii))
        return tuple(arms)

    def _beside(self, start: NDArray[np.float64], length: float, radius: float, y: float) -> NDArray[np.float64]:
        """End of a limb of a length that hangs from `start` beside the trunk without touching it."""
        z = start[2] - 0.97 * length
        level = self.frame.z_to_reference(np.array([z]))
        sx, sy = self.frame.scale(level)
        rough = Body(self.build_of_body, (), self.frame)
        half = float(rough.fascia.at(level.astype(np.float32))[0][0] * sx[0])
        x = max(start[0], half + 3.2 * self.fat_mm + radius + 6.0)
        end = np.array([x, y * sy[0], z])
        return start + (end - start) * (length / np.linalg.norm(end - start))

    def bone_masses(self) -> tuple[dict[str, BoneParts], dict[str, float], bool]:
        """Adult parts per region, mass per region of this person, g, and whether that is estimated."""
        sex, age = self.plan.sex, self.plan.age_y
        adult = bone_parts(sex)
        parts = {}
        for region, names in BONE_REGIONS.items():
            own = [adult[name] for name in names]
            spongiosa = sum(p.spongiosa_g for p in own)
            density = spongiosa / sum(p.spongiosa_g / p.spongiosa_g_cm3 for p in own)
            parts[region] = BoneParts(sum(p.cortical_g for p in own), spongiosa, sum(p.medullary_g for p in own), density)
        total = sum(part.total_g for part in parts.values())
        target = total * self.targets["skeleton"].mass_g / reference_mass("skeleton", sex, 20).mass_g
        factors = {region: 1.0 if age >= 20 else self._growth(region) for region in parts}
        raw = {region: part.total_g * factors[region] for region, part in parts.items()}
        scale = target / sum(raw.values())
        return parts, {region: mass * scale for region, mass in raw.items()}, age < 20

    def _growth(self, region: str) -> float:
        """Volume of a region relative to the reference man's."""
        if region in ("humeri", "ulnae_and_radii", "wrists_and_hands"):
            return self.height_mm / 1760 * self.arm_scale**2
        level = {"cranium": 620, "mandible": 530, "cervical_spine": 460, "femora": -400, "tibiae_fibulae_patellae": -750,
                 "ankles_and_feet": -1000}.get(region, 200)  # fmt: skip
        z = np.array([level - 5.0, level + 5.0])
        sx, sy = self.frame.scale(z)
        return float(np.diff(self.frame.z_to_body(z))[0] / 10 * sx[0] * sy[0])

    def grid(self, spacing_mm: tuple[float, float, float], margin_mm: float) -> VoxelGrid:
        """Axial grid around the person."""
        spacing = np.asarray(spacing_mm, np.float64)
        fat = 6.0 * self.fat_mm + 12.0
        joints = np.concatenate([arm.joints for arm in self.arms])
        head = self.frame.scale(np.array([620.0]))[0][0]
        trunk_x, trunk_y = (float(s[0]) for s in self.frame.scale(np.array([0.0])))
        side = max(joints[:, 0].max() + 50 * self.arm_scale + fat, 185 * 1.4 * trunk_x + fat, 90 * head) + margin_mm
        front = (
            max(136 * self.build_of_body.belly * trunk_y + fat + 55 * trunk_y, 135 * head, 160 * self.leg_scale + 10)
            + margin_mm
        )
        back = max(126 * trunk_y + fat, 115 * head, 70 * self.leg_scale + fat) + margin_mm
        bottom, top = self.frame.z_to_body(np.array([_LANDMARKS[0], _LANDMARKS[-1]]))
        top = max(top, joints[:, 2].max() + 25) if self.plan.arms == "up" else top
        low, high = np.array([-side, -back, bottom - margin_mm]), np.array([side, front, top + margin_mm])
        count = np.ceil((high - low) / spacing).astype(int)
        directions = np.diag([-1.0, -1.0, 1.0])
        origin = (low + high) / 2 - directions @ (spacing * (count - 1) / 2)
        shape = (int(count[2]), int(count[1]), int(count[0]))
        return VoxelGrid.from_spacing(shape, (spacing[0], spacing[1], spacing[2]), origin, directions)

    def build(
        self, spacing_mm: tuple[float, float, float], margin_mm: float, adapt_tissues: TissueChange | None
    ) -> StylisedPerson:
        """Paint everything, from the inside outwards."""
        plan = self.plan
        lung = between_ages(LUNG_DENSITY, plan.age_y) * float(np.exp(-0.75 * (plan.breath - 0.35)))
        tissues = person_tissues(plan.sex, plan.age_y, lung_density_g_cm3=lung)
        if adapt_tissues is not None:
            tissues = adapt_tissues(tissues)
        grid = self.grid(spacing_mm, margin_mm)
        nk, nj, ni = grid.shape
        origin, step = grid.ijk_to_ras[:3, 3], grid.ijk_to_ras[:3, :3].diagonal()
        axes = tuple(origin[n] + step[n] * np.arange(count) for n, count in enumerate((ni, nj, nk)))
        canvas = Canvas(self.frame, axes, {t.name: (n, t.density_g_cm3) for n, t in enumerate(tissues)})
        parts, bones, bones_estimated = self.bone_masses()
        masses = {name: target.mass_g for name, target in self.targets.items()}
        volume = self.weight_kg / 73.0
        gas = {name: ml * volume for name, ml in (("trachea", 45.0), ("esophagus", 4.0), ("stomach", 50.0), ("colon", 190.0),
                                                  ("small_bowel", 60.0))}  # fmt: skip
        placement = Placement(canvas, self.body, masses, self.jitter, gas)
        shells = self.body.paint_distance(canvas)
        place_head(placement)
        place_bones(canvas, self.body, parts, bones, placement.brain_level)
        cartilage = self.targets["cartilage_trunk"].mass_g
        place_cartilage(canvas, self.body, 0.55 * cartilage / 1.1, 0.45 * cartilage)
        place_throat(placement)
        place_chest(placement)
        place_abdomen(placement)
        if plan.sex == "male":
            place_testes(placement)
        place_breasts(placement)
        paint_inner_fat(placement)
        paint_fat_planes(canvas, self.body, float(np.clip(self.fat_mm / 7, 0.3, 1.3)))
        self._cover(canvas, shells)
        estimated = {name: target for name, target in self.targets.items()}
        return self._finished(canvas, grid, tissues, estimated, bones_estimated, margin_mm)

    def _cover(self, canvas: Canvas, shells: Shells) -> None:
        """Lay muscle, fat and skin around the rest until the body has its weight."""
        density = np.array([d for _, d in canvas.tissue_table.values()])
        counts = np.bincount(canvas.tissues.ravel(), minlength=density.size)
        inner_g = float(counts @ density) * canvas.voxel_volume_ml
        weight_g = self.weight_kg * 1000
        skin_g, muscle_g = self.targets["skin"].mass_g, self.targets["skeletal_muscle"].mass_g
        label = canvas.names.index("skeletal_muscle") + 1
        already_g = float(np.count_nonzero(canvas.labels == label)) * canvas.tissue_table["muscle"][1] * canvas.voxel_volume_ml
        rest_g = weight_g - inner_g - skin_g
        muscle_g = min(muscle_g - already_g, rest_g - 0.03 * weight_g)
        if muscle_g < 0.5 * self.targets["skeletal_muscle"].mass_g:
            raise SynthDoseError(
                f"A {self.plan.sex} of {self.plan.age_y:g} years, {self.height_mm / 10:.0f} cm and {self.weight_kg:.1f} kg "
                f"cannot be built: organs, bones and skin alone weigh {(inner_g + skin_g) / 1000:.1f} kg. Ask a higher weight."
            )
        asked = canvas.asked_g
        level = shells.take(canvas.layer("skeletal_muscle", "muscle", muscle_g))
        asked["skeletal_muscle"] = muscle_g + already_g
        fat_g = rest_g - muscle_g
        fat = shells.take(canvas.layer("subcutaneous_fat", "fat", fat_g), base_mm=level, relative=True)
        shells.take(canvas.layer("skin", "skin", skin_g), base_mm=level, fat_mm=fat)
        self.levels_mm = (level, fat)

    def _finished(
        self,
        canvas: Canvas,
        grid: VoxelGrid,
        tissues: tuple[PersonTissue, ...],
        sources: Mapping[str, TargetMass],
        bones_estimated: bool,
        margin_mm: float,
    ) -> StylisedPerson:
        pieces = []
        for axis, spacing in zip(range(3), grid.spacing_mm[::-1], strict=True):
            others = tuple(n for n in range(3) if n != axis)
            body = np.flatnonzero(canvas.tissues.any(axis=others))
            extra = int(np.ceil(margin_mm / spacing))
            pieces.append(slice(max(0, int(body[0]) - extra), min(grid.shape[axis], int(body[-1]) + 1 + extra)))
        where = (pieces[0], pieces[1], pieces[2])
        shape = canvas.tissues[where].shape
        cropped = grid.crop((pieces[0].start, pieces[1].start, pieces[2].start), (shape[0], shape[1], shape[2]))
        organs = tuple(Organ(n, name) for n, name in enumerate(canvas.names, start=1))
        labels = LabelMap(cropped, canvas.labels[where].astype(np.uint16), organs)
        targets = {}
        for name, mass in canvas.asked_g.items():
            origin = sources.get(_SOURCE_OF.get(name, name))
            known = origin or TargetMass(
                mass, bones_estimated, "estimated: shared by region" if bones_estimated else "ICRP 110"
            )
            estimated = known.estimated or name in ("subcutaneous_fat", "skeletal_muscle")
            targets[name] = TargetMass(mass, estimated, known.source)
        plan = PersonPlan(
            self.plan.sex, self.plan.age_y, self.height_mm / 10, self.weight_kg, self.plan.arms, self.plan.breath,
            self.plan.variation, self.plan.seed,
        )  # fmt: skip
        names = ("sole", "knee", "crotch", "l4", "neck", "chin", "vertex")
        levels = np.array([*_LANDMARKS[:3], 0.0, *_LANDMARKS[3:]])
        landmarks = dict(zip(names, self.frame.z_to_body(levels).tolist(), strict=True))
        return StylisedPerson(labels, np.ascontiguousarray(canvas.tissues[where]), tissues, targets, plan, landmarks)


_SOURCE_OF = {
    **{
        f"{organ}_{side}": f"{organ}s"
        for organ in ("kidney", "eye", "breast", "adrenal_gland", "lung")
        for side in ("left", "right")
    },
    **{f"ovary_{side}": "ovaries" for side in ("left", "right")},
    **{f"testis_{side}": "testes" for side in ("left", "right")},
    **{f"{gland}_gland_{side}": "salivary_glands" for gland in ("parotid", "submandibular") for side in ("left", "right")},
    "aorta": "blood_vessels_trunk",
    "inferior_vena_cava": "blood_vessels_trunk",
    "superior_vena_cava": "blood_vessels_trunk",
    "pulmonary_artery": "blood_vessels_trunk",
    "intervertebral_discs": "cartilage_trunk",
    "costal_cartilages": "cartilage_trunk",
}
