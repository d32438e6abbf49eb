"""Bremsstrahlung spectra of electrons: Seltzer-Berger scaled cross sections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from SynthDoseLib.core import Material

from .materials import atoms_per_gram
from .photons import ELECTRON_MASS_MEV
from .tables import load_table

MILLIBARN_CM2 = 1e-27


@dataclass(frozen=True, eq=False)
class BremsstrahlungSpectrum:
    """Scaled bremsstrahlung cross section of a material.

    Attributes
    ----------
    energies_MeV : ndarray of float64, (n,)
        Electron kinetic energy T, 0.001 to 30 MeV.
    kappa : ndarray of float64, (30,)
        Photon energy over T, 0 to 1.
    scaled : ndarray of float64, (n, 30)
        ``k dsigma/dk``, cm2/g: multiply by ``dk / k`` for the number of photons per g/cm2 of path.
    """

    energies_MeV: NDArray[np.float64]
    kappa: NDArray[np.float64]
    scaled: NDArray[np.float64]

    def radiative_stopping_power(self) -> NDArray[np.float64]:
        """Integral of the spectrum over all photon energies at each electron energy, MeV cm2/g, (n,)."""
        return self.energies_MeV * np.array([CubicSpline(self.kappa, row).integrate(0, 1) for row in self.scaled])


def bremsstrahlung_spectrum(material: Material, energies_MeV: NDArray[np.float64] | None = None) -> BremsstrahlungSpectrum:
    """Bremsstrahlung spectrum of a material, by additivity of its elements.

    Parameters
    ----------
    material : Material
    energies_MeV : ndarray, (n,), optional
        Electron energies; the nodes of the table if not given. Interpolated in ln T by cubic splines.

    References
    ----------
    S.M. Seltzer, M.J. Berger, At. Data Nucl. Data Tables 35 (1986) 345-418.
    """
    table = load_table("bremsstrahlung")
    nodes = table["energy_MeV"]
    scaled = np.zeros((nodes.size, table["kappa"].size))
    tau = nodes / ELECTRON_MASS_MEV
    beta2 = tau * (tau + 2) / (tau + 1) ** 2
    for z, count in zip(*atoms_per_gram(material), strict=True):
        scaled += count * MILLIBARN_CM2 * z**2 / beta2[:, None] * table["scaled_cross_section_mb"][z - 1].astype(np.float64)
    if energies_MeV is None:
        return BremsstrahlungSpectrum(nodes, table["kappa"], scaled)
    energies = np.asarray(energies_MeV, dtype=np.float64)
    # beta^2 varies fast at low energy; the scaled values do not
    smooth = CubicSpline(np.log(nodes), np.log(np.maximum(scaled * beta2[:, None], 1e-300)))(np.log(energies))
    tau = energies / ELECTRON_MASS_MEV
    beta2 = tau * (tau + 2) / (tau + 1) ** 2
    return BremsstrahlungSpectrum(energies, table["kappa"], np.exp(smooth) / beta2[:, None])
