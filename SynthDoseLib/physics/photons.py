"""Photon cross sections of elements and mixtures, 1 keV to 20 MeV, from the node tables of NIST XCOM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from SynthDoseLib.core import Material

from .materials import atoms_per_gram
from .tables import checked_energies, load_table

ELECTRON_MASS_MEV = 0.51099895
E_MIN_MEV, E_MAX_MEV = 1e-3, 20.0
BARN_CM2 = 1e-24
COHERENT, INCOHERENT, PHOTOELECTRIC, PAIR, TRIPLET = range(5)
THRESHOLD_MEV = {PAIR: 2 * ELECTRON_MASS_MEV, TRIPLET: 4 * ELECTRON_MASS_MEV}


@dataclass(frozen=True, eq=False)
class PhotonCrossSections:
    """Mass attenuation coefficients of one material by process.

    Attributes
    ----------
    energies_MeV : ndarray of float64, any shape
    photoelectric, compton, rayleigh, pair, triplet : ndarray of float64, same shape
        cm2/g; `pair` is in the field of nuclei, `triplet` in the field of electrons.
    energy_absorption : ndarray of float64, same shape
        Mass energy-absorption coefficient mu_en/rho, cm2/g.
    """

    energies_MeV: NDArray[np.float64]
    photoelectric: NDArray[np.float64]
    compton: NDArray[np.float64]
    rayleigh: NDArray[np.float64]
    pair: NDArray[np.float64]
    triplet: NDArray[np.float64]
    energy_absorption: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """Total mass attenuation coefficient with coherent scattering, cm2/g."""
        return self.photoelectric + self.compton + self.rayleigh + self.pair + self.triplet


def photon_cross_sections(material: Material, energies_MeV: ArrayLike) -> PhotonCrossSections:
    """Mass attenuation and energy-absorption coefficients of a material.

    Parameters
    ----------
    material : Material
        Elements up to uranium; the density plays no part.
    energies_MeV : array_like, any shape
        0.001 to 20 MeV. At an absorption edge the value above it is returned.

    Returns
    -------
    PhotonCrossSections

    Raises
    ------
    SynthDoseError
        If an energy lies outside the table. Nothing is extrapolated.

    References
    ----------
    M.J. Berger et al., XCOM: Photon Cross Sections Database, NIST SRD 8.

    Examples
    --------
    >>> from SynthDoseLib.physics import get_material
    >>> water = photon_cross_sections(get_material("water"), 1.0)
    >>> f"{water.total:.5f}"
    '0.07072'
    """
    from .energy_absorption import energy_absorption

    energies = checked_energies(energies_MeV, E_MIN_MEV, E_MAX_MEV, "Photon cross sections")
    sums = np.zeros((5, *energies.shape))
    numbers, atoms = atoms_per_gram(material)
    for z, count in zip(numbers, atoms, strict=True):
        sums += count * BARN_CM2 * element_cross_sections(int(z), energies)
    return PhotonCrossSections(
        energies, sums[PHOTOELECTRIC], sums[INCOHERENT], sums[COHERENT], sums[PAIR], sums[TRIPLET],
        energy_absorption(material, energies),
    )  # fmt: skip


def element_cross_sections(z: int, energies_MeV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross sections of one element, barn per atom, (5, ...): coherent, incoherent, photoelectric, pair, triplet.

    Cubic splines in ln sigma against ln E, for the photoelectric effect between edges, for pair production of
    sigma / (1 - threshold / E)^3, which has no threshold singularity.
    """
    splines, edges = _element_splines(z)
    energies = np.asarray(energies_MeV, dtype=np.float64)
    logarithm = np.log(energies)
    result = np.empty((5, *energies.shape))
    result[COHERENT] = np.exp(splines[COHERENT][0](logarithm))
    result[INCOHERENT] = np.exp(splines[INCOHERENT][0](logarithm))
    segment = np.searchsorted(edges, energies * (1 + 1e-12), side="right")
    photo = np.empty_like(energies)
    for index in np.unique(segment):
        here = segment == index
        photo[here] = np.exp(splines[PHOTOELECTRIC][index](logarithm[here]))
    result[PHOTOELECTRIC] = photo
    for process, threshold in THRESHOLD_MEV.items():
        above = energies > threshold
        factor = np.where(above, 1 - threshold / np.where(above, energies, 1.0), 0.0) ** 3
        result[process] = factor * np.exp(splines[process][0](np.maximum(logarithm, splines[process][0].x[0])))
    return result


def absorption_edges(z: int) -> dict[str, float]:
    """Absorption edges above 1 keV of an element in the cross section table, shell name to MeV."""
    table = load_table("photon")
    rows = np.flatnonzero(table["edge_Z"] == z)
    return {str(table["edge_name"][n]): float(table["edge_eV"][n]) / 1e6 for n in rows}


@cache
def _element_splines(z: int) -> tuple[list[list[CubicSpline]], NDArray[np.float64]]:
    table = load_table("photon")
    rows = slice(int(table["offset"][z - 1]), int(table["offset"][z]))
    energy = table["energy_eV"][rows] / 1e6
    sigma = table["cross_section_barn"][:, rows]
    edges = np.array(sorted(absorption_edges(z).values()))
    # smooth curves leave out the nodes beside edges: so close together, their rounding to 4 digits would bend a spline
    standard = table["energy_eV"][: int(table["offset"][1])] / 1e6
    single = np.isin(energy, standard)
    splines: list[list[CubicSpline]] = [[] for _ in range(5)]
    for process in (COHERENT, INCOHERENT):
        splines[process] = [_log_spline(energy[single], sigma[process][single])]
    segment = np.searchsorted(edges, energy * (1 + 1e-12), side="right")
    for index in range(edges.size + 1):
        here = segment == index
        curve = _log_spline if index == edges.size else _log_monotone
        splines[PHOTOELECTRIC].append(curve(energy[here], sigma[PHOTOELECTRIC][here]))
    for process, threshold in THRESHOLD_MEV.items():
        here = single & (sigma[process] > 0) & (energy > threshold)
        factor = (1 - threshold / energy[here]) ** 3
        splines[process] = [_log_spline(energy[here], sigma[process][here] / factor)]
    return splines, edges


def _log_spline(energy: NDArray[np.float64], sigma: NDArray[np.float64]) -> CubicSpline:
    return CubicSpline(np.log(energy), np.log(sigma))


def _log_monotone(energy: NDArray[np.float64], sigma: NDArray[np.float64]) -> PchipInterpolator:
    # between edges there are few nodes at odd distances, where a cubic spline overshoots
    return PchipInterpolator(np.log(energy), np.log(sigma))
