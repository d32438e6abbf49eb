"""What matter is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import SynthDoseError

SYMBOLS: tuple[str, ...] = tuple(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo "
    "Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl "
    "Pb Bi Po At Rn Fr Ra Ac Th Pa U".split()
)
"""Element symbols; the atomic number is the place in the tuple plus one."""

FRACTION_SUM_TOLERANCE = 0.005

DENSEST_G_CM3 = 25.0
"""Osmium has 22.6."""


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises
    ------
    SynthDoseError
        If there is no such element up to uranium.
    """
    try:
        return SYMBOLS.index(symbol) + 1
    except ValueError:
        message = f"'{symbol}' is not an element symbol. Allowed: H to U, spelt as in the periodic table (for example Ca)."
        raise SynthDoseError(message) from None


@dataclass(frozen=True, eq=False)
class Material:
    """A material of known composition.

    Parameters
    ----------
    name : str
    density_g_cm3 : float
        Nominal mass density; a phantom may give another one per voxel.
    mass_fractions : mapping of str to float
        Element symbol to mass fraction. They have to sum to 1 within 0.005 and are normalised.
    mean_excitation_eV : float, optional
        Where it is known better than from the composition, or to compare with a code that takes another one.

    Raises
    ------
    SynthDoseError
        If the density is not from above 0 to 25 g/cm3, a fraction is negative, an element is unknown or the sum is not 1; if
        the mean excitation energy is not between 10 and 1000 eV.
    """

    name: str
    density_g_cm3: float
    mass_fractions: Mapping[str, float]
    mean_excitation_eV: float | None = None

    def __post_init__(self) -> None:
        fractions = {symbol: float(value) for symbol, value in self.mass_fractions.items() if value != 0}
        for symbol in fractions:
            atomic_number(symbol)
        total = sum(fractions.values())
        if not fractions or not np.isfinite(total) or min(fractions.values()) < 0:
            raise SynthDoseError(
                f"Material '{self.name}': mass fractions have to be positive; found {dict(self.mass_fractions)}."
            )
        if abs(total - 1) > FRACTION_SUM_TOLERANCE:
            raise SynthDoseError(
                f"Material '{self.name}': the mass fractions sum to {total:.4f}; they have to sum to 1 "
                f"(within {FRACTION_SUM_TOLERANCE})."
            )
        if not self.density_g_cm3 > 0:
            raise SynthDoseError(f"Material '{self.name}': the density has to be positive; found {self.density_g_cm3} g/cm3.")
        if self.density_g_cm3 > DENSEST_G_CM3:
            raise SynthDoseError(
                f"Material '{self.name}': no matter has {self.density_g_cm3:g} g/cm3 (at most {DENSEST_G_CM3:g} is allowed). "
                "Is it in kg/m3?"
            )
        if self.mean_excitation_eV is not None and not 10 <= self.mean_excitation_eV <= 1000:
            raise SynthDoseError(
                f"Material '{self.name}': mean_excitation_eV has to be between 10 and 1000 eV (water: 75 or 78); "
                f"found {self.mean_excitation_eV}. Leave it out to have it follow from the composition."
            )
        object.__setattr__(self, "mass_fractions", {symbol: value / total for symbol, value in fractions.items()})
