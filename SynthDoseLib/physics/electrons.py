"""Stopping powers and ranges of electrons and positrons in any composition, 1 keV to 20 MeV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from SynthDoseLib.core import Material

from .materials import atomic_weights, electrons_per_gram, elements, mean_excitation_energy
from .photons import ELECTRON_MASS_MEV
from .tables import checked_energies, load_table

E_MIN_MEV, E_MAX_MEV = 1e-3, 20.0
ELECTRON_RADIUS_CM = 2.8179403e-13
PLASMA_EV = 28.816  # plasma energy for 1 g/cm3 and Z/A = 1, eV


@dataclass(frozen=True, eq=False)
class StoppingPowers:
    """Mass stopping powers of one material.

    Attributes
    ----------
    energies_MeV : ndarray of float64, any shape
    collision, radiative : ndarray of float64, same shape
        MeV cm2/g.
    density_effect : ndarray of float64, same shape
        Density effect correction delta, no unit.
    """

    energies_MeV: NDArray[np.float64]
    collision: NDArray[np.float64]
    radiative: NDArray[np.float64]
    density_effect: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """Collision plus radiative stopping power, MeV cm2/g."""
        return self.collision + self.radiative


def stopping_powers(
    material: Material,
    energies_MeV: ArrayLike,
    *,
    positron: bool = False,
    density_g_cm3: float | None = None,
    mean_excitation_eV: float | None = None,
) -> StoppingPowers:
    """Collision and radiative stopping powers of electrons (or positrons).

    Collision: Bethe formula with the mean excitation energy of `mean_excitation_energy` and Sternheimer's density effect
    for the material's own shells. Radiative: Seltzer and Berger's (ESTAR) elements by Bragg additivity; for positrons
    these are multiplied by the ratio of Kim et al. as fitted for PENELOPE.

    Parameters
    ----------
    material : Material
    energies_MeV : array_like, any shape
        Kinetic energy, 0.001 to 20 MeV.
    positron : bool
        Bhabha instead of Møller; radiative losses of positrons.
    density_g_cm3 : float, optional
        Density that enters the density effect; the material's own if not given.
    mean_excitation_eV : float, optional
        Instead of `mean_excitation_energy`.

    Returns
    -------
    StoppingPowers

    Raises
    ------
    SynthDoseError
        If an energy lies outside the table.

    References
    ----------
    ICRU Report 37 (1984). R.M. Sternheimer, S.M. Seltzer, M.J. Berger, Phys. Rev. B 26 (1982) 6067.
    S.M. Seltzer, M.J. Berger, At. Data Nucl. Data Tables 35 (1986) 345.

    Examples
    --------
    >>> from SynthDoseLib.physics import get_material
    >>> f"{stopping_powers(get_material('water'), 1.0).collision:.3f}"
    '1.849'
    """
    energies = checked_energies(energies_MeV, E_MIN_MEV, E_MAX_MEV, "Stopping powers")
    excitation = mean_excitation_energy(material) if mean_excitation_eV is None else mean_excitation_eV
    density = material.density_g_cm3 if density_g_cm3 is None else density_g_cm3
    delta = density_effect(material, energies, density, excitation)
    tau = energies / ELECTRON_MASS_MEV
    beta2 = tau * (tau + 2) / (tau + 1) ** 2
    if positron:
        t2 = tau + 2
        shape = 2 * np.log(2) - beta2 / 12 * (23 + 14 / t2 + 10 / t2**2 + 4 / t2**3)
    else:
        shape = (1 - beta2) * (1 + tau**2 / 8 - (2 * tau + 1) * np.log(2))
    factor = 2 * np.pi * ELECTRON_RADIUS_CM**2 * ELECTRON_MASS_MEV * electrons_per_gram(material)
    collision = factor / beta2 * (2 * np.log(energies * 1e6 / excitation) + np.log1p(tau / 2) + shape - delta)
    return StoppingPowers(energies, collision, _radiative(material, energies, positron), delta)


def density_effect(
    material: Material, energies_MeV: ArrayLike, density_g_cm3: float, mean_excitation_eV: float
) -> NDArray[np.float64]:
    """Density effect correction delta of Sternheimer's oscillator model.

    Every shell is an oscillator; its energies are scaled by one factor so that the model has the given mean excitation
    energy. Then delta = sum f ln(1 + L / l^2) - L (1 - beta^2), with L the solution of sum f / (nu^2 + L) = 1/beta^2 - 1.
    """
    strength, nu2, l2, _ = _scaled_oscillators(material, density_g_cm3, mean_excitation_eV)
    tau = np.asarray(energies_MeV, dtype=np.float64) / ELECTRON_MASS_MEV
    y = 1 / (tau * (tau + 2))  # 1/beta^2 - 1
    beta2 = 1 / (1 + y)
    # the sum falls with L: tabulate L over what 1 keV to 20 MeV need and invert by interpolation
    grid = np.concatenate([[0.0], np.geomspace(1e-8, 1e9, 6000)])
    with np.errstate(divide="ignore"):
        sums = (strength[:, None] / (nu2[:, None] + grid)).sum(axis=0)
    value = (strength[:, None] * np.log1p(grid / l2[:, None])).sum(axis=0)
    finite = np.isfinite(sums) & (grid > 0)
    L = np.exp(np.interp(-np.log(y), -np.log(sums[finite]), np.log(grid[finite])))
    delta = np.interp(np.log(L), np.log(grid[finite]), value[finite]) - L * (1 - beta2)
    # an insulator has no density effect below the energy at which L becomes 0
    threshold = sums[0]
    return np.where((y >= threshold) | (delta < 0), 0.0, delta)


def resonances(
    material: Material, *, density_g_cm3: float | None = None, mean_excitation_eV: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Oscillators of Sternheimer's model: what distant collisions of charged particles excite.

    Returns
    -------
    strength, energy_MeV : ndarray of float64, (shells,)
        Share of the electrons, sum 1, and resonance energy; the mean of its logarithm is that of the mean excitation energy.

    References
    ----------
    R.M. Sternheimer, Phys. Rev. 88 (1952) 851. D. Liljequist, J. Phys. D 16 (1983) 1567.

    Examples
    --------
    >>> from SynthDoseLib.physics import get_material
    >>> strength, energy = resonances(get_material("water"))
    >>> f"{1e6 * np.exp(strength @ np.log(energy)):.2f}"
    '75.00'
    """
    excitation = mean_excitation_energy(material) if mean_excitation_eV is None else mean_excitation_eV
    density = material.density_g_cm3 if density_g_cm3 is None else density_g_cm3
    strength, _, l2, plasma = _scaled_oscillators(material, density, excitation)
    return strength, 1e-6 * plasma * np.sqrt(l2)


def csda_range(material: Material, energies_MeV: ArrayLike, *, positron: bool = False) -> NDArray[np.float64]:
    """Range in the continuous-slowing-down approximation, g/cm2.

    The integral of the reciprocal total stopping power, from 1 keV; the range at 1 keV is taken as half of what a constant
    stopping power would give (as ESTAR does; about 0.05 mg/cm2 at most).

    Parameters
    ----------
    material : Material
    energies_MeV : array_like, any shape
        0.001 to 20 MeV.
    positron : bool

    Examples
    --------
    >>> from SynthDoseLib.physics import get_material
    >>> f"{csda_range(get_material('water'), 1.0):.4f}"
    '0.4367'
    """
    energies = checked_energies(energies_MeV, E_MIN_MEV, E_MAX_MEV, "Ranges")
    grid = np.geomspace(E_MIN_MEV, E_MAX_MEV, 600)
    total = stopping_powers(material, grid, positron=positron).total
    spline = CubicSpline(np.log(grid), grid / total)
    ranges = 0.5 * grid[0] / total[0] + spline.antiderivative()(np.log(grid))
    return np.asarray(np.exp(CubicSpline(np.log(grid), np.log(ranges))(np.log(energies))))


def _scaled_oscillators(
    material: Material, density_g_cm3: float, mean_excitation_eV: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Strengths, squares of the scaled binding energies and of the resonance energies in plasma energies, and that, eV."""
    strength, energy_eV, conducting = _oscillators(material)
    plasma = float(PLASMA_EV * np.sqrt(density_g_cm3 * electrons_per_gram(material) / 6.02214076e23))
    nu2 = (energy_eV / plasma) ** 2
    screening = np.where(conducting, 1.0, 2 / 3) * strength
    target = 2 * np.log(mean_excitation_eV / plasma)

    def excess(log_scale: float) -> float:
        return float(strength @ np.log(np.exp(2 * log_scale) * nu2 + screening)) - target

    # matter denser than its mean excitation energy allows (hydrogen at 1 g/cm3) has all its oscillators at the plasma energy
    scale2 = np.exp(2 * brentq(excess, -5.0, 5.0, xtol=1e-13)) if excess(-5.0) < 0 else np.exp(-10.0)
    nu2 = scale2 * nu2
    return strength, nu2, nu2 + screening, plasma


def _oscillators(material: Material) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Oscillator strengths (sum 1), binding energies, eV, and whether they are conduction electrons."""
    table = load_table("electrons")
    numbers, fractions = elements(material)
    share = fractions * numbers / atomic_weights()[numbers - 1]
    share = share / share.sum()
    strength, energy, conducting = [], [], []
    for z, weight in zip(numbers, share, strict=True):
        rows = slice(int(table["shell_offset"][z - 1]), int(table["shell_offset"][z]))
        occupation = table["shell_occupation"][rows]
        # only the pure element conducts; in a compound its outer electrons are bound
        free = (occupation < 0) & (numbers.size == 1)
        occupation = np.abs(occupation)
        strength.append(weight * occupation / occupation.sum())
        energy.append(np.where(free, 0.0, table["shell_binding_eV"][rows]))
        conducting.append(free)
    return np.concatenate(strength), np.concatenate(energy), np.concatenate(conducting)


def _radiative(material: Material, energies: NDArray[np.float64], positron: bool) -> NDArray[np.float64]:
    table = load_table("electrons")
    numbers, fractions = elements(material)
    x = np.log(table["energy_MeV"])
    result = np.zeros_like(energies)
    for z, fraction in zip(numbers, fractions, strict=True):
        values = np.exp(CubicSpline(x, np.log(table["radiative_MeV_cm2_g"][z - 1]))(np.log(energies)))
        result = result + fraction * values * (positron_radiative_ratio(int(z), energies) if positron else 1.0)
    return result


def positron_radiative_ratio(z: int, energies_MeV: ArrayLike) -> NDArray[np.float64]:
    """Ratio of the positron's to the electron's radiative stopping power, between 0 and 1.

    References
    ----------
    Fit of F. Salvat et al. (PENELOPE manual) to L. Kim, R.H. Pratt, S.M. Seltzer, M.J. Berger, Phys. Rev. A 33 (1986) 3002.
    """
    t = np.log1p(1e6 / z**2 * np.asarray(energies_MeV, dtype=np.float64) / ELECTRON_MASS_MEV)
    powers = (-1.2359e-1, 6.1274e-2, -3.1516e-2, 7.7446e-3, -1.0595e-3, 7.0568e-5, -1.8080e-6)
    return -np.expm1(sum(c * t ** (n + 1) for n, c in enumerate(powers)))
