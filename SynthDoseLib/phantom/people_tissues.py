"""Tissues of stylised people: density, composition and how they look on CT."""

from __future__ import annotations

from dataclasses import dataclass

from .people_reference import CORTICAL_DENSITY, LUNG_DENSITY, between_ages, bone_parts


@dataclass(frozen=True)
class PersonTissue:
    """A tissue of a stylised person.

    Attributes
    ----------
    name : str
    density_g_cm3 : float
        ICRP Publication 110; bone and lung of children are estimated.
    hu : float
        Typical unenhanced CT number at 120 kV, HU; chosen here.
    texture_hu : float
        Standard deviation of what is not noise (vessels, fat between fibres, trabeculae, bubbles in stool), HU.
    material : str
        Composition, a name that `SynthDoseLib.physics.get_material` knows.
    """

    name: str
    density_g_cm3: float
    hu: float
    texture_hu: float
    material: str


_SOFT: tuple[tuple[str, float, float, float, str], ...] = (
    ("fat", 0.95, -103.0, 8.0, "adipose_tissue"),
    ("muscle", 1.05, 52.0, 9.0, "muscle_tissue"),
    ("skin", 1.09, 30.0, 8.0, "skin"),
    ("brain", 1.05, 36.0, 4.0, "brain"),
    ("nerve", 1.03, 34.0, 3.0, "brain"),
    ("csf", 1.03, 8.0, 3.0, "lymph"),
    ("eye", 1.05, 18.0, 6.0, "eyes"),
    ("salivary_gland", 1.03, 25.0, 12.0, "gallbladder_pituitary_gland_trachea_thymus_tonsils_ureters"),
    ("thyroid", 1.04, 95.0, 6.0, "thyroid"),
    ("thymus", 1.03, 20.0, 15.0, "gallbladder_pituitary_gland_trachea_thymus_tonsils_ureters"),
    ("esophagus", 1.03, 40.0, 6.0, "oesophagus"),
    ("airway_wall", 1.03, 40.0, 8.0, "gallbladder_pituitary_gland_trachea_thymus_tonsils_ureters"),
    ("myocardium", 1.05, 48.0, 3.0, "heart"),
    ("blood", 1.06, 43.0, 2.0, "blood"),
    ("liver", 1.05, 57.0, 3.0, "liver"),
    ("gallbladder_wall", 1.03, 38.0, 3.0, "gallbladder_pituitary_gland_trachea_thymus_tonsils_ureters"),
    ("bile", 1.03, 8.0, 2.0, "gastro_intestinal_tract_contents"),
    ("spleen", 1.04, 48.0, 3.0, "spleen"),
    ("kidney", 1.05, 34.0, 4.0, "kidneys"),
    ("adrenal", 1.03, 26.0, 4.0, "adrenals"),
    ("pancreas", 1.05, 36.0, 12.0, "pancreas"),
    ("stomach_wall", 1.04, 42.0, 6.0, "stomach"),
    ("small_bowel_wall", 1.04, 40.0, 8.0, "small_intestine"),
    ("colon_wall", 1.04, 42.0, 8.0, "large_intestine"),
    ("gut_contents", 1.04, 22.0, 12.0, "gastro_intestinal_tract_contents"),
    ("stool", 1.04, 20.0, 60.0, "gastro_intestinal_tract_contents"),
    ("urinary_bladder_wall", 1.04, 35.0, 3.0, "urinary_bladder"),
    ("urine", 1.04, 7.0, 2.0, "urine"),
    ("prostate", 1.03, 40.0, 4.0, "prostate"),
    ("uterus", 1.03, 50.0, 6.0, "uterus"),
    ("ovary", 1.04, 25.0, 8.0, "ovaries"),
    ("testis", 1.04, 35.0, 4.0, "testes"),
    ("breast_gland", 1.02, 25.0, 20.0, "breast"),
    ("cartilage", 1.10, 90.0, 15.0, "cartilage"),
    ("medullary_cavity", 0.98, -40.0, 25.0, "humeri_and_femora_upper_halves_medullary_cavity"),
)
_ONE_SEX_ONLY = {"prostate": "am", "testes": "am", "uterus": "af", "ovaries": "af"}
# regions of `people_skeleton`: bones of the tables whose spongiosa they hold
BONE_REGIONS: dict[str, tuple[str, ...]] = {
    "cranium": ("cranium",), "mandible": ("mandible",), "cervical_spine": ("cervical_spine",),
    "thoracic_spine": ("thoracic_spine",), "lumbar_spine": ("lumbar_spine",), "sacrum": ("sacrum",), "pelvis": ("pelvis",),
    "ribs": ("ribs",), "sternum": ("sternum",), "scapulae": ("scapulae",), "clavicles": ("clavicles",),
    "humeri": ("humeri_upper_half", "humeri_lower_half"), "ulnae_and_radii": ("ulnae_and_radii",),
    "wrists_and_hands": ("wrists_and_hands",), "femora": ("femora_upper_half", "femora_lower_half"),
    "tibiae_fibulae_patellae": ("tibiae_fibulae_patellae",), "ankles_and_feet": ("ankles_and_feet",),
}  # fmt: skip
_SPONGIOSA_NAMES = {
    "humeri": "humeri_upper_half", "femora": "femora_upper_half", "ulnae_and_radii": "lower_arm_bones",
    "wrists_and_hands": "hand_bones", "tibiae_fibulae_patellae": "lower_leg_bones", "ankles_and_feet": "foot_bones",
}  # fmt: skip


def person_tissues(sex: str, age_y: float, *, lung_density_g_cm3: float | None = None) -> tuple[PersonTissue, ...]:
    """Tissues of a person in the order of their index; the first is the air around the body.

    Parameters
    ----------
    sex : str
    age_y : float
        Bone of children is less dense, their lungs are denser: both estimated.
    lung_density_g_cm3 : float, optional
        That of quiet breathing at this age if not given.

    References
    ----------
    ICRP Publication 110 (2009): densities and media of the adult reference computational phantoms.
    """
    set_ = "am" if sex == "male" else "af"
    lung = between_ages(LUNG_DENSITY, age_y) if lung_density_g_cm3 is None else lung_density_g_cm3
    cortical = between_ages(CORTICAL_DENSITY, age_y)
    tissues = [PersonTissue("surrounding_air", 0.0, -1000.0, 0.0, "air")]
    for name, density, hu, texture, medium in _SOFT:
        tissues.append(PersonTissue(name, density, hu, texture, f"icrp110_{_ONE_SEX_ONLY.get(medium, set_)}_{medium}"))
    tissues.append(PersonTissue("lung", lung, (lung - 1.031) / 0.00103, 30.0, f"icrp110_{set_}_lung_tissue"))
    tissues += [PersonTissue(name, 0.0012, -990.0, 5.0, "air") for name in ("gas", "air")]
    tissues.append(
        PersonTissue("cortical_bone", cortical, (cortical - 1.017) / 0.000592, 110.0, f"icrp110_{set_}_mineral_bone")
    )
    softness = cortical / CORTICAL_DENSITY[-1]
    for region, bones in BONE_REGIONS.items():
        parts = [bone_parts(sex)[bone] for bone in bones]
        mass = sum(part.spongiosa_g for part in parts)
        density = mass / sum(part.spongiosa_g / part.spongiosa_g_cm3 for part in parts)
        density = 1.03 + (density - 1.03) * (0.6 + 0.4 * (softness - 0.86) / 0.14)
        medium = f"icrp110_{set_}_{_SPONGIOSA_NAMES.get(region, region)}_spongiosa"
        hu = max(110.0, (density - 1.017) / 0.000592 + 25)
        tissues.append(PersonTissue(f"spongiosa_{region}", density, hu, 45.0, medium))
    return tuple(tissues)
