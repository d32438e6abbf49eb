"""Drawing people at random: age, sex, height, weight, pose and organs."""

from __future__ import annotations

import numpy as np

from SynthDoseLib.core import SynthDoseError

from .people import stylised_person
from .people_growth import growth_value, growth_z, percentile_to_z
from .people_person import ARM_POSES, PersonPlan, StylisedPerson
from .people_reference import SEXES

LIMIT_Z = {"height": 5.0, "weight": 5.0}
BMI_LIMITS = {"adult": (13.0, 60.0), "child": (9.5, 45.0)}
CORRELATION = 0.6  # of height and weight
CHILDREN = 0.4  # share of people below 20 years if no age is asked


def sample_plan(
    seed: int,
    *,
    sex: str | None = None,
    age_y: float | tuple[float, float] | None = None,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    percentile: float | None = None,
    arms: str | None = None,
    breath: float | None = None,
    variation: float = 1.0,
) -> PersonPlan:
    """Draw a person; what is given is kept, the rest is drawn from the seed.

    Parameters
    ----------
    seed : int
        0 or more; the same arguments always give the same person.
    sex : str, optional
        "female" or "male".
    age_y : float or (float, float), optional
        Years, or a range to draw from.
    height_cm, weight_kg : float, optional
    percentile : float, optional
        Of height and weight, for those not given; drawn if not given.
    arms : str, optional
        "down" or "up".
    breath : float, optional
        0 to 1.
    variation : float
        Of organs, 0 to 1.5.

    Raises
    ------
    SynthDoseError
        If no such person can be: `require_possible` says why.

    Examples
    --------
    >>> plan = sample_plan(7, sex="female", age_y=5, percentile=50)
    >>> round(plan.height_cm), round(plan.weight_kg)
    (108, 18)
    """
    if seed < 0:
        raise SynthDoseError(f"seed has to be 0 or more; found {seed}.")
    rng = np.random.default_rng([seed, 1103])
    drawn_sex, child, adult_age, child_age = SEXES[int(rng.integers(2))], rng.random(), rng.uniform(20, 90), rng.uniform(0, 20)
    place, z_height, z_other, pose, drawn_breath = (
        rng.random(),
        rng.standard_normal(),
        rng.standard_normal(),
        rng.random(),
        rng.beta(2, 3),
    )
    sex = drawn_sex if sex is None else sex
    if isinstance(age_y, tuple):
        low, high = age_y
        if not 0 <= low <= high <= 100:
            raise SynthDoseError(f"A range of ages goes from 0 or more to 100 years or less; found {low:g} to {high:g}.")
        age = low + (high - low) * place
    else:
        age = (child_age if child < CHILDREN else adult_age) if age_y is None else age_y
    z_height, z_other = float(np.clip(z_height, -2.2, 2.2)), float(np.clip(z_other, -2.2, 2.2))
    if percentile is not None:
        z_height = z_weight = percentile_to_z(percentile)
    else:
        z_weight = CORRELATION * z_height + np.sqrt(1 - CORRELATION**2) * z_other
    if height_cm is None:
        height_cm = growth_value(sex, age, "height", z_height)
        if weight_kg is None:
            weight_kg = growth_value(sex, age, "weight", z_weight)
    elif weight_kg is None:
        # as heavy for the height as the draw says, not for the age
        z_given = growth_z(sex, age, "height", height_cm)
        usual = growth_value(
            sex, age, "weight", float(np.clip(CORRELATION * z_given + (z_weight - CORRELATION * z_height), -3, 3))
        )
        median_height, median_weight = growth_value(sex, age, "height", 0), growth_value(sex, age, "weight", 0)
        scaled = median_weight * (height_cm / median_height) ** 2
        weight_kg = float(np.clip(usual, 0.75 * scaled, 1.6 * scaled))
    arms = ARM_POSES[int(pose < 0.6)] if arms is None else arms
    breath = float(drawn_breath) if breath is None else breath
    plan = PersonPlan(sex, float(age), float(height_cm), float(weight_kg), arms, breath,
                      variation, seed)  # fmt: skip
    require_possible(plan)
    return plan


def require_possible(plan: PersonPlan) -> None:
    """Raise `SynthDoseError` with the allowed range unless people of that age, sex, height and weight exist."""
    if plan.height_cm is None or plan.weight_kg is None:
        return
    for quantity, unit, value in (("height", "cm", plan.height_cm), ("weight", "kg", plan.weight_kg)):
        z = growth_z(plan.sex, plan.age_y, quantity, value)
        if quantity == "height" and abs(z) > LIMIT_Z[quantity]:
            low, high = (growth_value(plan.sex, plan.age_y, quantity, sign * LIMIT_Z[quantity]) for sign in (-1, 1))
            raise SynthDoseError(
                f"A {quantity} of {value:g} {unit} is not possible for a {plan.sex} of {plan.age_y:g} years: from {low:.0f} "
                f"to {high:.0f} {unit} can be built."
            )
    low, high = BMI_LIMITS["adult" if plan.age_y >= 18 else "child"]
    bmi = plan.weight_kg / (plan.height_cm / 100) ** 2
    if not low <= bmi <= high:
        factor = (plan.height_cm / 100) ** 2
        raise SynthDoseError(
            f"{plan.weight_kg:g} kg at {plan.height_cm:g} cm is a body-mass index of {bmi:.1f} kg/m2, which is impossible for "
            f"a {plan.sex} of {plan.age_y:g} years here: from {low * factor:.3g} to {high * factor:.3g} kg can be asked."
        )


def sample_person(
    seed: int, *, spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0), margin_mm: float = 15.0, **choices: object
) -> StylisedPerson:
    """Draw a person (`sample_plan` with the same further arguments) and build it (`stylised_person`).

    `labels`, `tissues` and `tissue_table` (CT number, texture and density per tissue) are what a network is trained on;
    `merged` joins labels (``ORGAN_GROUPS``), `landmarks_mm` tells where to cut a field of view.
    """
    return stylised_person(sample_plan(seed, **choices), spacing_mm=spacing_mm, margin_mm=margin_mm)  # type: ignore[arg-type]
