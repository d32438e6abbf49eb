"""Elements and named tissues."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import SYMBOLS, Material, SynthDoseError, atomic_number

from .tables import load_rows, load_table

AVOGADRO = 6.02214076e23
COMPOSITION_TOLERANCE = 5e-4  # compositions that agree this well in every mass fraction are the same compound
GAS_DENSITY_G_CM3 = 0.02

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "soft_tissue": "soft_tissue_icru_four_component",
        "adipose": "adipose_icru44",
        "fat": "adipose_icru44",
        "muscle": "muscle_icru44",
        "lung": "lung_inflated_icru44",
        "cortical_bone": "bone_cortical_icru44",
        "bone": "bone_cortical_icru44",
        "spongiosa": "spongiosa_icru44",
        "red_marrow": "red_marrow_icru44",
        "yellow_marrow": "yellow_marrow_icru44",
        "cartilage": "cartilage_icru44",
        "skin": "skin_icru44",
        "blood": "blood_icru44",
        "brain": "brain_icru44",
        "heart": "heart_blood_filled_icru44",
        "kidney": "kidney_icru44",
        "liver": "liver_icru44",
        "spleen": "spleen_icru44",
        "pancreas": "pancreas_icru44",
        "thyroid": "thyroid_icru44",
        "breast": "breast_icru44",
        "stainless_steel": "stainless_steel_316l",
    }
)
"""Short names."""

ELEMENT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "aluminium": "Al",
        "titanium": "Ti",
        "iron": "Fe",
        "copper": "Cu",
        "silver": "Ag",
        "tantalum": "Ta",
        "tungsten": "W",
        "platinum": "Pt",
        "gold": "Au",
        "lead": "Pb",
    }
)


@cache
def _tabulated() -> tuple[tuple[Material, float | None], ...]:
    skip = {"name", "source", "density_g_cm3", "mean_excitation_eV"}
    result = []
    for row in load_rows("tissues.csv"):
        fractions = {key: float(value) for key, value in row.items() if key not in skip}
        excitation = float(row["mean_excitation_eV"]) if row["mean_excitation_eV"] else None
        result.append((Material(row["name"], float(row["density_g_cm3"]), fractions), excitation))
    return tuple(result)


def materials_table() -> dict[str, Material]:
    """Named materials: tissues of ICRU 37/44/46 and ICRP 110, water, air, plastics, implants.

    Returns
    -------
    dict of str to Material
        Names as `get_material` takes them; its short names and the elements are understood besides.

    Examples
    --------
    >>> materials_table()["water"].density_g_cm3
    1.0
    """
    return {material.name: material for material, _ in _tabulated()}


def get_material(name: str) -> Material:
    """Return the material called `name`.

    Parameters
    ----------
    name : str
        A name of `materials_table`, a short one ("muscle", "lung", "cortical bone"), or an element ("Ti", "titanium").
        Case, spaces and hyphens do not matter.

    Raises
    ------
    SynthDoseError
        If there is none; the message lists the nearest names.

    Examples
    --------
    >>> get_material("Cortical bone").name
    'bone_cortical_icru44'
    """
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    table = materials_table()
    if (found := ALIASES.get(key, key)) in table:
        return table[found]
    symbol = ELEMENT_NAMES.get(key, name.strip())
    if symbol in SYMBOLS:
        z = atomic_number(symbol)
        return Material(key, float(load_table("atoms")["density_g_cm3"][z - 1]), {symbol: 1.0})
    known = sorted({*table, *ALIASES, *ELEMENT_NAMES})
    nearest = difflib.get_close_matches(key, known, n=5, cutoff=0.4)
    short = ", ".join(sorted({*ALIASES, "water", "air"}))
    raise SynthDoseError(
        f"There is no material '{name}'."
        + (f" Nearest: {', '.join(nearest)}." if nearest else "")
        + f" Short names: {short}; all: SynthDoseLib.physics.materials_table()."
    )


def atomic_weights() -> NDArray[np.float64]:
    """Atomic weights of Z = 1 to 92, g/mol, (92,)."""
    return load_table("atoms")["atomic_weight"]


def elements(material: Material) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atomic numbers (increasing) and mass fractions of a material, each (n,)."""
    pairs = sorted((atomic_number(symbol), fraction) for symbol, fraction in material.mass_fractions.items())
    return np.array([z for z, _ in pairs], np.int64), np.array([w for _, w in pairs])


def atoms_per_gram(material: Material) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atomic numbers and atoms of each per gram of the material, each (n,)."""
    numbers, fractions = elements(material)
    return numbers, AVOGADRO * fractions / atomic_weights()[numbers - 1]


def electrons_per_gram(material: Material) -> float:
    """Electrons per gram of the material."""
    numbers, atoms = atoms_per_gram(material)
    return float(numbers @ atoms)


def mean_excitation_energy(material: Material) -> float:
    """Mean excitation energy, eV: the material's own if it has one.

    A composition that equals a tabulated one within 0.05 % of mass per element has the tabulated value (75.0 eV for water).
    All others follow from their elements by Bragg additivity with the values for compounds of ICRU 37: gases (below 0.02 g/cm3)
    and condensed media differ for C, N, O, and elements that are not listed there have 1.13 times their own value.

    References
    ----------
    ICRU Report 37 (1984); S.M. Seltzer, M.J. Berger, Int. J. Appl. Radiat. Isot. 33 (1982) 1189.

    Examples
    --------
    >>> mean_excitation_energy(get_material("water"))
    75.0
    """
    if material.mean_excitation_eV is not None:
        return material.mean_excitation_eV
    numbers, fractions = elements(material)
    if numbers.size == 1:
        return float(load_table("atoms")["mean_excitation_eV"][numbers[0] - 1])
    gas = material.density_g_cm3 < GAS_DENSITY_G_CM3
    for known, excitation in _tabulated():
        # the two waters differ in I only; the first match, ICRU 37, is what ESTAR and PENELOPE use
        if known.name == "water_icru90" and material.name != "water_icru90":
            continue
        is_gas = known.density_g_cm3 < GAS_DENSITY_G_CM3
        if excitation is not None and gas == is_gas and _same_composition(known, material):
            if known.name == "water" and material.name == "water_icru90":
                continue
            return excitation
    special = _GAS_EV if gas else _CONDENSED_EV
    elemental = load_table("atoms")["mean_excitation_eV"]
    values = np.array([special.get(int(z), 1.13 * float(elemental[z - 1])) for z in numbers])
    weights = fractions * numbers / atomic_weights()[numbers - 1]
    return float(np.exp(weights @ np.log(values) / weights.sum()))


def _same_composition(first: Material, second: Material) -> bool:
    symbols = {*first.mass_fractions, *second.mass_fractions}
    return all(
        abs(first.mass_fractions.get(symbol, 0.0) - second.mass_fractions.get(symbol, 0.0)) < COMPOSITION_TOLERANCE
        for symbol in symbols
    )


# ICRU 37: values of the constituents of compounds, eV
_GAS_EV = {1: 19.2, 6: 70.0, 7: 82.0, 8: 97.0}
_CONDENSED_EV = {1: 19.2, 6: 81.0, 7: 82.0, 8: 106.0, 9: 112.0, 17: 180.0}
