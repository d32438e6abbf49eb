"""Growth charts: percentiles of height and weight from birth to 20 years, and the spread of adults beyond."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from SynthDoseLib.core import SynthDoseError

from .people_reference import anatomy_rows, require_sex

QUANTITIES = ("height", "weight")
ADULT_Y = 20.0
ADULT_BMI = {"male": (23.6, 0.16), "female": (22.6, 0.18)}
"""Median body-mass index, kg/m2, of the adult reference persons (ICRP 89), and the spread of its logarithm, chosen here."""


@cache
def _chart(sex: str, quantity: str) -> NDArray[np.float64]:
    rows = [row for row in anatomy_rows("growth") if row["sex"] == sex and row["quantity"] == quantity]
    table = np.array([[float(row[name]) for name in ("age_y", "L", "M", "S")] for row in rows])
    return table[np.argsort(table[:, 0])]


def growth_value(sex: str, age_y: float, quantity: str, z: float) -> float:
    """Height, cm, or weight, kg, that lies `z` standard deviations from the median of an age.

    Parameters
    ----------
    sex : str
        "female" or "male".
    age_y : float
        0 to 20 years; from 20 on the height is that of 20 years, the weight follows from `ADULT_BMI` at that height.
    quantity : str
        "height" or "weight".
    z : float

    Raises
    ------
    SynthDoseError
        If an argument is none of these, or the charts have no such value.

    References
    ----------
    CDC growth charts for the United States (2000); L, M and S are interpolated linearly between ages.

    Examples
    --------
    >>> round(growth_value("male", 20, "height", 0), 1)
    176.8
    """
    _require(sex, age_y, quantity)
    if age_y > ADULT_Y and quantity == "weight":
        median, spread = ADULT_BMI[sex]
        return median * (growth_value(sex, ADULT_Y, "height", 0.0) / 100) ** 2 * math.exp(spread * z)
    power, middle, spread = _lms(sex, age_y, quantity)
    base = 1 + power * spread * z
    if base <= 0:
        raise SynthDoseError(f"The growth chart of {quantity} at {age_y:g} years has no value at z = {z:g}.")
    return middle * (math.exp(spread * z) if abs(power) < 1e-9 else base ** (1 / power))


def growth_z(sex: str, age_y: float, quantity: str, value: float) -> float:
    """How many standard deviations a height, cm, or weight, kg, lies from the median of an age; inverse of `growth_value`."""
    _require(sex, age_y, quantity)
    if not value > 0:
        raise SynthDoseError(f"A {quantity} has to be above 0; found {value}.")
    if age_y > ADULT_Y and quantity == "weight":
        return math.log(value / growth_value(sex, age_y, "weight", 0.0)) / ADULT_BMI[sex][1]
    power, middle, spread = _lms(sex, age_y, quantity)
    if abs(power) < 1e-9:
        return math.log(value / middle) / spread
    return ((value / middle) ** power - 1) / (power * spread)


def percentile_to_z(percentile: float) -> float:
    """Standard deviations from the median of a percentile between 0.01 and 99.99.

    Examples
    --------
    >>> percentile_to_z(50.0), round(percentile_to_z(97.72), 2)
    (0.0, 2.0)
    """
    if not 0.01 <= percentile <= 99.99:
        raise SynthDoseError(f"A percentile has to be from 0.01 to 99.99; found {percentile:g}.")
    return float(ndtri(percentile / 100))


def z_to_percentile(z: float) -> float:
    """Percentile of a number of standard deviations from the median."""
    return float(100 * ndtr(z))


def _lms(sex: str, age_y: float, quantity: str) -> tuple[float, float, float]:
    table = _chart(sex, quantity)
    # lying length ends and standing height begins at 2 years: no interpolation across
    table = (
        table[table[:, 0] < 1.99] if age_y < 2 and quantity == "height" else table[table[:, 0] >= (1.99 if age_y >= 2 else 0)]
    )
    ages = np.clip(age_y, table[0, 0], table[-1, 0])
    return tuple(float(np.interp(ages, table[:, 0], table[:, n])) for n in (1, 2, 3))  # type: ignore[return-value]


def _require(sex: str, age_y: float, quantity: str) -> None:
    require_sex(sex)
    if not 0 <= age_y <= 100:
        raise SynthDoseError(f"The age has to be from 0 to 100 years; found {age_y:g}.")
    if quantity not in QUANTITIES:
        raise SynthDoseError(f"Growth charts have {' and '.join(QUANTITIES)}; found '{quantity}'.")
