"""What an organ is expected to be: its tissue, density, CT number, mass, number of parts and place along the body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache

from SynthDoseLib.core import Material, SynthDoseError
from SynthDoseLib.physics import get_material

from .people_reference import SEXES, anatomy_rows, mass_factor, reference_height_cm, reference_mass, require_sex

ADULT_AGE_Y = 20.0  # from here on the reference person does not change
MEMBERS = {
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "heart": (
        "heart_myocardium", "heart_atrium_left", "heart_ventricle_left", "heart_atrium_right", "heart_ventricle_right",
    ),
}  # fmt: skip
"""Organs that some segmenters give in parts; the parts together are compared with the reference."""


@dataclass(frozen=True)
class PatientFacts:
    """What is known about a person and decides which organ masses are expected.

    Attributes
    ----------
    sex : str
        "female", "male" or "" if not known.
    age_y : float or None
    height_m : float or None
    weight_kg : float or None

    Raises
    ------
    SynthDoseError
        If the sex is another word, or a number is not one of a person.
    """

    sex: str = ""
    age_y: float | None = None
    height_m: float | None = None
    weight_kg: float | None = None

    def __post_init__(self) -> None:
        if self.sex:
            require_sex(self.sex)
        for name, lowest, highest, unit in (
            ("age_y", 0.0, 120.0, "years"),
            ("height_m", 0.3, 2.5, "m"),
            ("weight_kg", 0.5, 400.0, "kg"),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                raise SynthDoseError(f"A person's {name} has to be from {lowest:g} to {highest:g} {unit}; found {value:g}.")


@dataclass(frozen=True)
class OrganExpectation:
    """One row of ``Resources/anatomy/organ_expectations.csv``.

    Attributes
    ----------
    pattern : str
        Organ name; ``*`` stands for any text.
    material : Material
        Of the reference person, with the organ's reference density.
    hu_low, hu_high, hu_contrast : float
        Limits of the organ's mean CT number; the last one with contrast agent.
    pieces : int
        Connected parts, 0 for any number.
    solid : bool
        Without air and cavities of its own.
    compact : bool
        A scan that shows a part of it is meant to show all of it.
    level : float or None
        Height of its middle, per cent of the stature.
    reference : tuple of (str, float)
        Organs of `reference_mass` that make it up, and how much of each.
    mass_low, mass_high : float
        Limits on the mass over the reference one.
    """

    pattern: str
    material: Material
    hu_low: float
    hu_high: float
    hu_contrast: float
    pieces: int
    solid: bool
    compact: bool
    level: float | None
    reference: tuple[tuple[str, float], ...]
    mass_low: float
    mass_high: float


@dataclass(frozen=True)
class MassRange:
    """Reference mass of an organ and the limits around it, g."""

    low_g: float
    reference_g: float
    high_g: float


@cache
def organ_expectations() -> tuple[OrganExpectation, ...]:
    """All rows, in the order of the table; the first that fits a name counts.

    Raises
    ------
    SynthDoseError
        If the table is not the one its sidecar describes.
    """
    return tuple(_parse(row) for row in anatomy_rows("organ_expectations"))


def _parse(row: dict[str, str]) -> OrganExpectation:
    tissue = get_material(row["material"])
    return OrganExpectation(
        pattern=row["organ"],
        material=replace(tissue, density_g_cm3=float(row["density_g_cm3"])),
        hu_low=float(row["hu_low"]),
        hu_high=float(row["hu_high"]),
        hu_contrast=float(row["hu_contrast"]),
        pieces=int(row["pieces"]),
        solid=row["solid"] == "1",
        compact=row["compact"] == "1",
        level=float(row["level"]) if row["level"] else None,
        reference=tuple(_share(part) for part in row["reference"].split("+")) if row["reference"] else (),
        mass_low=float(row["mass_low"] or 0),
        mass_high=float(row["mass_high"] or 0),
    )


def _share(text: str) -> tuple[str, float]:
    organ, _, share = text.partition("*")
    return organ, float(share or 1.0)


@cache
def expectation_of(organ: str) -> OrganExpectation | None:
    """What is expected of an organ; None for one that the table does not know.

    Examples
    --------
    >>> expectation_of("kidney_left").material.density_g_cm3
    1.05
    """
    return next((row for row in organ_expectations() if fnmatchcase(organ, row.pattern)), None)


def side_of(organ: str) -> str:
    """Side that an organ's name says: "left", "right" or "".

    Examples
    --------
    >>> side_of("rib_left_3"), side_of("liver")
    ('left', '')
    """
    words = organ.split("_")
    return "left" if "left" in words else "right" if "right" in words else ""


def expected_mass_g(organ: str, person: PatientFacts) -> MassRange | None:
    """Reference mass of an organ for a person, and its limits.

    Parameters
    ----------
    organ : str
    person : PatientFacts
        Without a sex the limits span both, without an age it is an adult; height and weight scale the mass by `mass_factor`,
        as they do that of a stylised person.

    Returns
    -------
    MassRange or None
        None if there is no reference for the organ. Of children some are estimates, see `reference_mass`.

    Examples
    --------
    >>> expected_mass_g("liver", PatientFacts("male")).reference_g
    1800.0
    >>> expected_mass_g("kidney_left", PatientFacts("female", age_y=5)).reference_g
    55.0
    """
    expected = expectation_of(organ)
    if expected is None or not expected.reference:
        return None
    age_y = ADULT_AGE_Y if person.age_y is None else min(person.age_y, ADULT_AGE_Y)
    found = []
    for sex in (person.sex,) if person.sex else SEXES:
        height = 1.0 if person.height_m is None else 100 * person.height_m / reference_height_cm(sex, age_y)
        weight = None if person.weight_kg is None else 1000 * person.weight_kg / reference_mass("total_body", sex, age_y).mass_g
        build = height**2 if weight is None else weight
        try:
            found.append(
                sum(
                    share * reference_mass(name, sex, age_y).mass_g * mass_factor(name, height, build)
                    for name, share in expected.reference
                )
            )
        except SynthDoseError:
            continue  # an organ that this sex does not have
    if not found:
        return None
    return MassRange(min(found) * expected.mass_low, sum(found) / len(found), max(found) * expected.mass_high)
