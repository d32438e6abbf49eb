"""Mass energy-absorption coefficients: what photons hand to electrons, less what these radiate."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from SynthDoseLib.core import Material

from .electrons import ELECTRON_RADIUS_CM, stopping_powers
from .materials import atoms_per_gram, electrons_per_gram
from .photons import (
    BARN_CM2,
    E_MAX_MEV,
    E_MIN_MEV,
    ELECTRON_MASS_MEV,
    INCOHERENT,
    PAIR,
    PHOTOELECTRIC,
    TRIPLET,
    element_cross_sections,
)
from .scattering import atomic_shells, incoherent_scattering_function, shell_fractions

HC_MEV_ANGSTROM = 0.01239841984
_GRID = np.geomspace(E_MIN_MEV, E_MAX_MEV, 160)
_COSINE, _WEIGHT = np.polynomial.legendre.leggauss(96)
_SHARE, _SHARE_WEIGHT = (np.polynomial.legendre.leggauss(24)[0] + 1) / 2, np.polynomial.legendre.leggauss(24)[1] / 2


def energy_absorption(material: Material, energies_MeV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass energy-absorption coefficient mu_en/rho, cm2/g.

    Sum over elements and processes of cross section times mean energy given to electrons (less K and L fluorescence,
    binding in Compton scattering through the incoherent scattering function), times 1 less the fraction that electrons
    radiate while slowing down in the material and that positrons take along when they annihilate in flight.

    References
    ----------
    S.M. Seltzer, Radiat. Res. 136 (1993) 147.
    """
    shape = np.shape(energies_MeV)
    energies = np.atleast_1d(energies_MeV)
    radiated = _radiated_fractions(tuple(sorted(material.mass_fractions.items())), material.density_g_cm3)
    kept = [1 - np.interp(np.log(energies), np.log(_GRID), fraction) for fraction in radiated]
    result = np.zeros_like(energies)
    numbers, atoms = atoms_per_gram(material)
    for z, count in zip(numbers, atoms, strict=True):
        sigma = count * BARN_CM2 * element_cross_sections(int(z), energies)
        compton = np.interp(np.log(energies), np.log(_GRID), _compton_transfer(int(z)))
        pairs = np.maximum(0.0, 1 - 2 * ELECTRON_MASS_MEV / energies)
        result += sigma[PHOTOELECTRIC] * (1 - fluorescence_fraction(int(z), energies)) * kept[0]
        result += sigma[INCOHERENT] * compton * kept[1]
        result += (sigma[PAIR] + sigma[TRIPLET]) * pairs * kept[2]
    return result.reshape(shape)


def fluorescence_fraction(z: int, energies_MeV: ArrayLike) -> NDArray[np.float64]:
    """Mean fraction of a photon's energy that leaves as K and L fluorescence after photoelectric absorption."""
    energies = np.asarray(energies_MeV, dtype=np.float64)
    shells = {shell.name: shell for shell in atomic_shells(z)}
    vacancies = dict(zip(shells, shell_fractions(z, energies), strict=True))
    emitted = np.zeros_like(energies)
    for name, shell in shells.items():
        radiative = vacancies[name] * shell.fluorescence_yield
        for line in shell.lines:
            emitted += radiative * line.probability * line.energy_MeV
            # a K line from L2 or L3 leaves a vacancy there, which may radiate in turn
            if line.name[1:] in shells:
                vacancies[line.name[1:]] = vacancies[line.name[1:]] + radiative * line.probability
    return emitted / energies


@lru_cache(maxsize=92)
def _compton_transfer(z: int) -> NDArray[np.float64]:
    """Mean fraction of the energy given to the electron, on the grid."""
    k = _GRID[:, None] / ELECTRON_MASS_MEV
    ratio = 1 / (1 + k * (1 - _COSINE))
    x = _GRID[:, None] / HC_MEV_ANGSTROM * np.sqrt((1 - _COSINE) / 2)
    cross = ratio**2 * (ratio + 1 / ratio - 1 + _COSINE**2) * incoherent_scattering_function(z, x) * _WEIGHT
    return np.asarray((cross * (1 - ratio)).sum(axis=1) / cross.sum(axis=1))


def _annihilation_cm2(energies_MeV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross section per electron for annihilation of a positron in flight into two quanta (Heitler)."""
    gamma = 1 + energies_MeV / ELECTRON_MASS_MEV
    momentum = np.sqrt(gamma**2 - 1)
    bracket = (gamma**2 + 4 * gamma + 1) / momentum**2 * np.log(gamma + momentum) - (gamma + 3) / momentum
    return np.asarray(np.pi * ELECTRON_RADIUS_CM**2 / (gamma + 1) * bracket)


@lru_cache(maxsize=64)
def _radiated_fractions(composition: tuple[tuple[str, float], ...], density: float) -> tuple[NDArray[np.float64], ...]:
    """Fraction of the electrons' energy that photons carry off after photoelectric, Compton and pair events, on the grid."""
    material = Material("", density, dict(composition))
    powers = stopping_powers(material, _GRID)
    logarithm = np.log(_GRID)
    radiated = CubicSpline(logarithm, _GRID * powers.radiative / powers.total).antiderivative()(logarithm)

    per_g = electrons_per_gram(material) * _annihilation_cm2(_GRID)
    annihilated = CubicSpline(logarithm, _GRID * _GRID * per_g / powers.total).antiderivative()(logarithm)

    def lost(energies: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(energies, _GRID, radiated, left=0.0)

    def lost_of_pair(energies: NDArray[np.float64]) -> NDArray[np.float64]:
        # one of the two is a positron
        return lost(energies) + 0.5 * np.interp(energies, _GRID, annihilated, left=0.0)

    k = _GRID[:, None] / ELECTRON_MASS_MEV
    ratio = 1 / (1 + k * (1 - _COSINE))
    cross = ratio**2 * (ratio + 1 / ratio - 1 + _COSINE**2) * _WEIGHT
    electron = _GRID[:, None] * (1 - ratio)
    compton = (cross * lost(electron)).sum(axis=1) / (cross * electron).sum(axis=1)
    available = np.maximum(_GRID - 2 * ELECTRON_MASS_MEV, 1e-9)[:, None]
    pair = (lost_of_pair(available * _SHARE) * _SHARE_WEIGHT).sum(axis=1) / (available[:, 0] / 2)
    return lost(_GRID) / _GRID, compton, pair
