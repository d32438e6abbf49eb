"""Stopping powers of alpha particles, from NIST ASTAR."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from SynthDoseLib.core import Material

from .materials import atomic_weights, elements
from .tables import checked_energies, load_table

E_MIN_MEV, E_MAX_MEV = 1e-3, 12.0

# elements of ASTAR by atomic number
_ELEMENTS: Mapping[int, str] = MappingProxyType(
    {
        1: "HYDROGEN", 2: "HELIUM", 4: "BERYLLIUM", 6: "GRAPHITE", 7: "NITROGEN", 8: "OXYGEN", 10: "NEON", 13: "ALUMINUM",
        14: "SILICON", 18: "ARGON", 22: "TITANIUM", 26: "IRON", 29: "COPPER", 32: "GERMANIUM", 36: "KRYPTON", 42: "MOLYBDENUM",
        47: "SILVER", 50: "TIN", 54: "XENON", 64: "GADOLINIUM", 74: "TUNGSTEN", 78: "PLATINUM", 79: "GOLD", 82: "LEAD",
        92: "URANIUM",
    }
)  # fmt: skip
_WATER_H, _METHYLENE_H = 0.111898, 0.143711  # mass fraction of hydrogen in water and in CH2


def alpha_stopping_power(material: Material, energies_MeV: ArrayLike, *, nuclear: bool = True) -> NDArray[np.float64]:
    """Mass stopping power of alpha particles.

    Hydrogen is first bound to oxygen as water, then to carbon as polyethylene, because below 2 MeV bound atoms stop up to 10 %
    differently from the gases; the rest follows by Bragg additivity over ASTAR's elements, with interpolation in ln Z of
    stopping per electron for elements without a table.

    Parameters
    ----------
    material : Material
    energies_MeV : array_like, any shape
        Kinetic energy, 0.001 to 12 MeV.
    nuclear : bool
        With nuclear stopping (matters below 10 keV).

    Returns
    -------
    ndarray of float64
        MeV cm2/g. Against ASTAR's own tissues within 2 % above 0.5 MeV.

    References
    ----------
    ICRU Report 49 (1993); NIST ASTAR, SRD 124.
    """
    energies = checked_energies(energies_MeV, E_MIN_MEV, E_MAX_MEV, "Alpha stopping powers")
    table = load_table("alphas")
    rows = 2 if nuclear else 1
    nodes = np.zeros_like(table["energy_MeV"])
    for name, share in _components(material).items():
        nodes += share * _stopping(name, rows)
    return np.asarray(np.exp(CubicSpline(np.log(table["energy_MeV"]), np.log(nodes))(np.log(energies))))


def alpha_csda_range(material: Material, energies_MeV: ArrayLike) -> NDArray[np.float64]:
    """Range of alpha particles in the continuous-slowing-down approximation, g/cm2 (see `alpha_stopping_power`)."""
    energies = checked_energies(energies_MeV, E_MIN_MEV, E_MAX_MEV, "Alpha ranges")
    grid = np.geomspace(E_MIN_MEV, E_MAX_MEV, 500)
    stopping = alpha_stopping_power(material, grid)
    spline = CubicSpline(np.log(grid), grid / stopping)
    # below 1 keV the stopping power goes with the square root of the energy or flatter: the range there is under 1e-5 g/cm2
    ranges = grid[0] / stopping[0] + spline.antiderivative()(np.log(grid))
    return np.asarray(np.exp(CubicSpline(np.log(grid), np.log(ranges))(np.log(energies))))


def _components(material: Material) -> dict[str | int, float]:
    """Mass fractions of water, polyethylene and elements (by atomic number) that make up the material."""
    numbers, fractions = elements(material)
    left = dict(zip((int(z) for z in numbers), fractions.tolist(), strict=True))
    parts: dict[str | int, float] = {}
    for name, partner, share in (("WATER_LIQUID", 8, _WATER_H), ("POLYETHYLENE", 6, _METHYLENE_H)):
        amount = min(left.get(1, 0.0) / share, left.get(partner, 0.0) / (1 - share))
        if material.density_g_cm3 > 0.02 and amount > 0:
            parts[name] = amount
            left[1] -= amount * share
            left[partner] -= amount * (1 - share)
    for z, fraction in left.items():
        if fraction > 1e-12:
            parts[z] = fraction
    return parts


def _stopping(component: str | int, rows: int) -> NDArray[np.float64]:
    if isinstance(component, str):
        return _tabulated(component, rows)
    if component in _ELEMENTS:
        return _tabulated(_ELEMENTS[component], rows)
    known = np.array(sorted(_ELEMENTS))
    weights = atomic_weights()
    upper = int(np.searchsorted(known, component))
    low, high = int(known[upper - 1]), int(known[min(upper, known.size - 1)])
    part = (np.log(component) - np.log(low)) / (np.log(high) - np.log(low))
    per_electron = [np.log(_tabulated(_ELEMENTS[z], rows) * weights[z - 1] / z) for z in (low, high)]
    mixed = np.exp((1 - part) * per_electron[0] + part * per_electron[1])
    return np.asarray(mixed * component / weights[component - 1])


def _tabulated(name: str, rows: int) -> NDArray[np.float64]:
    table = load_table("alphas")
    index = int(np.flatnonzero(table["material"] == name)[0])
    return np.asarray(table["table"][index, :rows].sum(axis=0))
