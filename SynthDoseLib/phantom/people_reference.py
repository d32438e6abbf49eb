"""What a person of an age, a sex, a height and a weight weighs organ by organ: from tables, and estimated where they end."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from SynthDoseLib.core import SynthDoseError, resource_path

SEXES = ("female", "male")
AGES_Y = (0.0, 1.0, 5.0, 10.0, 15.0, 20.0)
"""Ages of the reference persons, years; 20 stands for the adult."""

HEIGHTS_CM: Mapping[str, tuple[float, ...]] = {
    "male": (51.0, 76.0, 109.0, 138.0, 167.0, 176.0),
    "female": (51.0, 76.0, 109.0, 138.0, 161.0, 163.0),
}
"""Heights of the reference persons, ICRP Publication 89 (2002)."""

# Children have no row in the tables at hand for these: share of the adult's mass at `AGES_Y`, rounded, chosen here after
# the well-known course of growth of the organ (the brain is nearly grown at 5, glands of the sexes wait for puberty).
_SHARES: Mapping[str, tuple[float, ...]] = {
    "brain": (0.26, 0.66, 0.88, 0.95, 0.985, 1.0),
    "eyes": (0.40, 0.50, 0.75, 0.82, 0.90, 1.0),
    "tongue": (0.06, 0.16, 0.30, 0.48, 0.80, 1.0),
    "salivary_glands": (0.07, 0.25, 0.40, 0.52, 0.85, 1.0),
    "adrenal_glands": (0.43, 0.29, 0.36, 0.50, 0.72, 1.0),
    "spinal_cord": (0.15, 0.35, 0.55, 0.70, 0.90, 1.0),
    "prostate": (0.05, 0.06, 0.07, 0.10, 0.25, 1.0),
}
_BREAST_SHARES = {"female": (0.001, 0.002, 0.004, 0.03, 0.5, 1.0), "male": (0.04, 0.1, 0.2, 0.35, 0.7, 1.0)}
_SKELETON_SHARES = (0.106, 0.117, 0.128, 0.140, 0.140, 1.0)  # of the body's mass; the adult's is in the table
# grows like an organ of the table, or like a power of the body's mass
DUODENUM_SHARE = 0.07  # of the small bowel, which the tables give as one; chosen here
_LIKE = {"colon_wall": "small_bowel_wall", "colon_contents": "small_bowel_contents"}
_POWERS = {"urinary_bladder_wall": 0.85, "urinary_bladder_contents": 0.85}

CORTICAL_DENSITY = (1.65, 1.70, 1.77, 1.83, 1.89, 1.92)  # g/cm3; adult: ICRP 110, children estimated
LUNG_DENSITY = (0.50, 0.42, 0.36, 0.32, 0.30, 0.29)  # g/cm3, quiet breathing; chosen here between inflated and collapsed


def require_sex(sex: str) -> None:
    """Raise `SynthDoseError` unless `sex` is "female" or "male"."""
    if sex not in SEXES:
        raise SynthDoseError(f"'{sex}' is not a sex of a reference person. Allowed: {' or '.join(SEXES)}.")


@dataclass(frozen=True)
class TargetMass:
    """What an organ should weigh.

    Attributes
    ----------
    mass_g : float
    estimated : bool
        True if no table gives it for this sex and age.
    source : str
    """

    mass_g: float
    estimated: bool
    source: str


@dataclass(frozen=True)
class BoneParts:
    """Parts of the bones of one region, adult: masses, g, and the density of the spongiosa, g/cm3."""

    cortical_g: float
    spongiosa_g: float
    medullary_g: float
    spongiosa_g_cm3: float

    @property
    def total_g(self) -> float:
        """Mass of all parts, g."""
        return self.cortical_g + self.spongiosa_g + self.medullary_g


def anatomy_rows(name: str) -> list[dict[str, str]]:
    """Rows of ``Resources/anatomy/NAME.csv`` after the check against its sidecar."""
    content = resource_path("anatomy", f"{name}.csv").read_bytes().replace(b"\r\n", b"\n")
    sidecar = json.loads(resource_path("anatomy", f"{name}.json").read_text(encoding="utf-8"))
    if hashlib.sha256(content).hexdigest() != sidecar["sha256"]:
        raise SynthDoseError(f"Resources/anatomy/{name}.csv was changed or damaged. Install SynthDose again.")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


@cache
def _table() -> dict[tuple[str, str], dict[float, tuple[float, str]]]:
    """(organ, sex) to age to (mass, source)."""
    table: dict[tuple[str, str], dict[float, tuple[float, str]]] = {}
    for row in anatomy_rows("people_masses"):
        for sex in SEXES if row["sex"] == "both" else (row["sex"],):
            table.setdefault((row["organ"], sex), {})[float(row["age_y"])] = (float(row["mass_g"]), row["source"])
    return table


@cache
def bone_parts(sex: str) -> dict[str, BoneParts]:
    """Bones of the adult reference person, ICRP Publication 110, by region."""
    return {
        row["bone"]: BoneParts(*(float(row[k]) for k in ("cortical_g", "spongiosa_g", "medullary_cavity_g", "spongiosa_g_cm3")))
        for row in anatomy_rows("people_bones")
        if row["sex"] == sex
    }


def between_ages(values: tuple[float, ...], age_y: float) -> float:
    """Interpolate values at `AGES_Y` along the age; beyond 20 the last one holds."""
    for first, last, low, high in zip(AGES_Y[:-1], AGES_Y[1:], values[:-1], values[1:], strict=True):
        if age_y <= last:
            return low + (high - low) * max(0.0, age_y - first) / (last - first)
    return values[-1]


def reference_mass(organ: str, sex: str, age_y: float) -> TargetMass:
    """Mass of an organ of the reference person of an age, g.

    Parameters
    ----------
    organ : str
        "liver", "stomach_wall", "kidneys", "skeleton", "total_body" …
    sex : str
    age_y : float
        0 or more, years; from 20 on an adult.

    Returns
    -------
    TargetMass
        From the tables if both neighbouring ages are in them (linear in between), otherwise estimated.

    Raises
    ------
    SynthDoseError
        If no table has the organ for this sex.

    References
    ----------
    ICRP Publication 89 (2002) and 110 (2009); see ``Resources/anatomy/people_masses.json``.

    Examples
    --------
    >>> reference_mass("liver", "male", 5).mass_g, reference_mass("pancreas", "male", 5).estimated
    (570.0, True)
    """
    require_sex(sex)
    known = _table().get((organ, sex))
    if not known:
        raise SynthDoseError(f"No table has the mass of '{organ}' for a {sex}.")
    nodes = [_node(organ, sex, age) for age in AGES_Y]
    near = [n for n, first, last in zip(pairwise(nodes), AGES_Y, AGES_Y[1:], strict=False) if first <= age_y <= last]
    exact = [node for age, node in zip(AGES_Y, nodes, strict=True) if age == age_y]
    mass = between_ages(tuple(node.mass_g for node in nodes), age_y)
    deciding = exact or (list(near[0]) if near else [nodes[-1]])
    estimated = any(node.estimated for node in deciding)
    source = next((node.source for node in deciding if node.estimated), deciding[0].source)
    if not exact and age_y < AGES_Y[-1] and not estimated:
        source += ", interpolated"
    return TargetMass(mass, estimated, source)


@cache
def _node(organ: str, sex: str, age_y: float) -> TargetMass:
    known = _table()[organ, sex]
    if age_y in known:
        return TargetMass(known[age_y][0], False, known[age_y][1])
    adult = known[20.0][0]
    place = AGES_Y.index(age_y)
    body = _table()["total_body", sex]
    if organ == "skeleton":
        return TargetMass(_SKELETON_SHARES[place] * body[age_y][0], True, "estimated: share of the body's mass")
    shares = _BREAST_SHARES[sex] if organ == "breasts" else _SHARES.get(organ)
    if shares is not None:
        return TargetMass(shares[place] * adult, True, "estimated: share of the adult's mass by age")
    if organ in _LIKE:
        model = _table()[_LIKE[organ], sex]
        return TargetMass(adult * model[age_y][0] / model[20.0][0], True, f"estimated: grows like {_LIKE[organ]}")
    power = _POWERS.get(organ, 1.0)
    ratio = body[age_y][0] / body[20.0][0]
    return TargetMass(adult * ratio**power, True, f"estimated: adult's mass times body-mass ratio to the power {power:g}")


def reference_height_cm(sex: str, age_y: float) -> float:
    """Height of the reference person, cm (length of a newborn); linear between the ages of the table.

    Examples
    --------
    >>> reference_height_cm("female", 10), reference_height_cm("male", 40)
    (138.0, 176.0)
    """
    return between_ages(HEIGHTS_CM[sex], age_y)


def mass_factor(organ: str, height: float, build: float) -> float:
    """Factor on the mass of an organ of the reference person.

    Organs and skeleton go with the square of the height. Skin goes with the body surface, muscle also follows the weight a
    little, brain and eyes hardly follow the height.

    Parameters
    ----------
    organ : str
        As for `reference_mass`.
    height, build : float
        Height and weight over those of the reference person.

    Examples
    --------
    >>> round(mass_factor("liver", 1.1, 1.0), 2), round(mass_factor("skin", 1.0, 1.44), 2)
    (1.21, 1.2)
    """
    if organ == "skin":
        return math.sqrt(height * build)  # body surface, Mosteller
    if organ == "skeletal_muscle":
        return float(height**1.2 * build**0.4)
    return float(height ** (0.3 if organ in ("brain", "eyes") else 2))


def organ_targets(sex: str, age_y: float, height_cm: float, weight_kg: float) -> dict[str, TargetMass]:
    """Masses to which a person is built, g.

    Fat takes what the other organs leave of the weight (see `stylised_person`).
    """
    height = height_cm / reference_height_cm(sex, age_y)
    build = weight_kg * 1000 / reference_mass("total_body", sex, age_y).mass_g
    result = {}
    for organ, owner in _table():
        if owner != sex or organ in ("total_body", "adipose"):
            continue
        target = reference_mass(organ, sex, age_y)
        result[organ] = TargetMass(target.mass_g * mass_factor(organ, height, build), target.estimated, target.source)
    for part in ("wall", "contents"):
        whole = result[f"small_bowel_{part}"]
        duodenum = DUODENUM_SHARE * whole.mass_g
        result[f"duodenum_{part}"] = TargetMass(duodenum, True, "estimated: share of the small bowel's mass")
        result[f"small_bowel_{part}"] = TargetMass(whole.mass_g - duodenum, whole.estimated, whole.source)
    return result
