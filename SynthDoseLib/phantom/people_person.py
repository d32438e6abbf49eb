"""A stylised person as a value: who it is, and its voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import get_material

from .people_reference import TargetMass, require_sex
from .people_tissues import PersonTissue

ARM_POSES = ("down", "up")
_SIDES = ("left", "right")
_BONES = (
    "skull", "mandible", "cervical_spine", "thoracic_spine", "lumbar_spine", "sacrum", "ribs", "sternum",
    *(f"{bone}_{side}" for bone in ("clavicula", "scapula", "humerus", "radius", "ulna", "hand_bones", "hip",
                                    "femur", "patella",
                                    "tibia", "fibula", "foot_bones") for side in _SIDES),
)  # fmt: skip
ORGAN_GROUPS: dict[str, tuple[str, ...]] = {
    "skeleton": _BONES,
    "heart": ("heart_wall", "heart_contents"),
    **{organ: (f"{organ}_wall", f"{organ}_contents") for organ in ("stomach", "colon", "gallbladder", "urinary_bladder")},
    "trachea": ("trachea_wall",),
    "small_bowel": ("small_bowel_wall", "small_bowel_contents", "duodenum_wall", "duodenum_contents"),
    **{organ: (organ,) for organ in (
        "brain", "spinal_cord", "thyroid_gland", "thymus", "esophagus", "aorta", "inferior_vena_cava",
        "pulmonary_artery",
        "liver", "spleen", "pancreas", "prostate", "uterus",
        *(f"{organ}_{side}" for organ in ("lung", "kidney", "adrenal_gland", "breast", "eye", "parotid_gland",
                                          "testis", "ovary")
          for side in _SIDES))},
}  # fmt: skip
"""Labels of a stylised person that make up what segmentations usually call an organ."""


@dataclass(frozen=True)
class PersonPlan:
    """Who is to be built.

    Attributes
    ----------
    sex : str
        "female" or "male".
    age_y : float
        0 to 100; from 20 on an adult.
    height_cm, weight_kg : float
        Those of the reference person of that age if not given.
    arms : str
        "down" or "up".
    breath : float
        0 (after expiration) to 1 (after deep inspiration); 0.35 is quiet breathing.
    variation : float
        How much organs differ in place, shape and mass: 0 the reference person, 1 the spread of healthy people, up to 1.5.
    seed : int
        Of that variation.

    Raises
    ------
    SynthDoseError
        If a value is none of these.
    """

    sex: str = "male"
    age_y: float = 30.0
    height_cm: float | None = None
    weight_kg: float | None = None
    arms: str = "down"
    breath: float = 0.35
    variation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_sex(self.sex)
        if self.arms not in ARM_POSES:
            raise SynthDoseError(f"arms has to be {' or '.join(ARM_POSES)}; found '{self.arms}'.")
        for name, highest in (("age_y", 100.0), ("breath", 1.0), ("variation", 1.5), ("seed", math.inf)):
            value = getattr(self, name)
            if not 0 <= value <= highest:
                allowed = "0 or more" if math.isinf(highest) else f"from 0 to {highest:g}"
                raise SynthDoseError(f"{name} has to be {allowed}; found {value}.")


@dataclass(frozen=True, eq=False)
class StylisedPerson:
    """A person made of labelled voxels.

    Attributes
    ----------
    labels : LabelMap
        One organ per voxel, canonical names; 0 is cerebrospinal fluid, air in the body and the air around it.
    tissues : ndarray of uint8, (nk, nj, ni)
        Place in `tissue_table`; 0 is air outside the body.
    tissue_table : tuple of PersonTissue
    targets : dict of str to TargetMass
        Mass asked per label that lies wholly in the field of view, g, and whether a table gives it.
    plan : PersonPlan
        With height and weight as built.
    landmarks_mm : dict of str to float
        z (RAS) of sole, knee, crotch, the middle of L4, neck, chin and vertex: to cut a field of view.
    """

    labels: LabelMap
    tissues: NDArray[np.uint8]
    tissue_table: tuple[PersonTissue, ...]
    targets: dict[str, TargetMass]
    plan: PersonPlan
    landmarks_mm: dict[str, float]

    @property
    def grid(self) -> VoxelGrid:
        """Where the voxels are."""
        return self.labels.grid

    @property
    def density_g_cm3(self) -> NDArray[np.float32]:
        """Density per voxel (nk, nj, ni), g/cm3; 0 outside the body."""
        return np.array([tissue.density_g_cm3 for tissue in self.tissue_table], np.float32)[self.tissues]

    def mass_g(self) -> dict[str, float]:
        """Mass per label, g: what the voxels weigh, to compare with `targets`."""
        counts = np.bincount(
            self.labels.labels.ravel().astype(np.int64) * 256 + self.tissues.ravel(),
            minlength=256 * (1 + max(organ.index for organ in self.labels.organs)),
        ).reshape(-1, 256)
        density = np.array([tissue.density_g_cm3 for tissue in self.tissue_table])
        masses = counts[:, : len(density)] @ density * self.grid.voxel_volume_ml
        return {organ.name: float(masses[organ.index]) for organ in self.labels.organs}

    def total_mass_g(self) -> float:
        """Mass of all that lies in the field of view, g."""
        counts = np.bincount(self.tissues.ravel(), minlength=len(self.tissue_table))
        return float(
            sum(t.density_g_cm3 * n for t, n in zip(self.tissue_table, counts, strict=True)) * self.grid.voxel_volume_ml
        )

    def phantom(self) -> VoxelPhantom:
        """The same as a phantom for dose calculation: reference compositions, densities of the tissues."""
        used = np.flatnonzero(np.bincount(self.tissues.ravel(), minlength=len(self.tissue_table)))
        place = np.zeros(256, np.uint8)
        materials = []
        for number, index in enumerate(used.tolist()):
            place[index] = number
            tissue = self.tissue_table[index]
            materials.append(
                replace(get_material(tissue.material), name=tissue.name, density_g_cm3=max(tissue.density_g_cm3, 1e-3))
            )
        notes = ("Stylised person of SynthDose: not a patient.",)
        return VoxelPhantom(self.grid, place[self.tissues], self.density_g_cm3, tuple(materials), self.labels, notes)

    def cropped(self, lowest_mm: float, highest_mm: float, *, margin_mm: float, behind_mm: float = 0.0) -> StylisedPerson:
        """Keep the slices between two heights, RAS mm, and of them the body with a margin of air, larger by `behind_mm` behind.

        Labels that are cut or gone lose their target mass; those that are gone leave the list of organs.
        """
        nk = self.grid.shape[0]
        z = self.grid.to_ras(np.stack([np.zeros(nk), np.zeros(nk), np.arange(nk)], axis=-1))[:, 2]
        kept = np.flatnonzero((z >= lowest_mm) & (z <= highest_mm))
        pieces = [slice(int(kept[0]), int(kept[-1]) + 1)]
        body = self.tissues[pieces[0]] > 0
        for axis, after_mm in ((1, margin_mm + behind_mm), (2, margin_mm)):
            spacing = self.grid.spacing_mm[2 - axis]
            inside = np.flatnonzero(body.any(axis=(0, 3 - axis)))
            first, last = inside[0] - int(np.ceil(margin_mm / spacing)), inside[-1] + 1 + int(np.ceil(after_mm / spacing))
            pieces.append(slice(max(0, int(first)), min(self.grid.shape[axis], int(last))))
        where = (pieces[0], pieces[1], pieces[2])
        values = np.ascontiguousarray(self.labels.labels[where])
        before, after = (np.bincount(array.ravel(), minlength=256) for array in (self.labels.labels, values))
        organs = tuple(organ for organ in self.labels.organs if after[organ.index])
        whole = {organ.name for organ in organs if after[organ.index] == before[organ.index]}
        nk, nj, ni = values.shape
        grid = self.grid.crop((where[0].start, where[1].start, where[2].start), (nk, nj, ni))
        return replace(
            self,
            labels=LabelMap(grid, values, organs),
            tissues=np.ascontiguousarray(self.tissues[where]),
            targets={name: target for name, target in self.targets.items() if name in whole},
        )

    def merged(self, groups: Mapping[str, tuple[str, ...]]) -> LabelMap:
        """Label map with the labels of each group together; labels in no group become background."""
        table = np.zeros(1 + max(organ.index for organ in self.labels.organs), np.uint16)
        for number, members in enumerate(groups.values(), start=1):
            for organ in self.labels.organs:
                if organ.name in members:
                    table[organ.index] = number
        organs = tuple(Organ(number, name) for number, name in enumerate(groups, start=1))
        return LabelMap(self.grid, table[self.labels.labels], organs)
