"""Everything the photon kernels look up, computed once per set of materials.

Symbols: E photon energy, T energy of the electron, MeV; coefficients are cm2/g, so that they serve any density; x is the
momentum transfer sin(theta/2) / wavelength, 1/angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import Material, SynthDoseError
from ..physics import (
    PhotonCrossSections,
    atomic_shells,
    atoms_per_gram,
    csda_range,
    element_cross_sections,
    form_factor,
    incoherent_scattering_function,
    photon_cross_sections,
    shell_fractions,
)

REST_ENERGY = 0.51099895
"""Electron rest energy, MeV (CODATA 2018)."""

PER_ANGSTROM = 1e3 / 12.398419843
"""Largest x of a photon of 1 MeV, 1/angstrom: 1 / (h c)."""

E_LOWEST, E_HIGHEST = 1e-3, 20.0
ROWS = 2049
LINE_LEAST_MEV = 0.005  # fluorescence below travels less than a quarter of a millimetre in tissue: deposited at once
SCATTER_POINTS = 512
FORM_POINTS = 400
_COARSE = 257  # energies for integrals over the Compton spectrum, which is smooth

TOTAL, TRANSFER, TOTAL_SLOPE, TRANSFER_SLOPE = range(4)
"""Columns of `steps`: attenuation, energy transferred to electrons per path (MeV cm2/g), and their change to the next row."""

RANGE_RATIO = 1.1
RANGE_LEAST_G_CM2 = 1e-8
"""Ranges are compared as classes: class c stands for at most RANGE_LEAST * RANGE_RATIO^c g/cm2; class 0 for no range."""


class PhotonTables(NamedTuple):
    """Tables of the photon kernels. Rows are uniform in ln E: row = (ln E - log_first) * rows_per_log.

    Attributes
    ----------
    log_first, rows_per_log : float
    steps : ndarray of float32, (rows, materials, 4)
    shares : ndarray of float32, (rows, materials, 3)
        Cumulative share of Compton scattering, + Rayleigh, + photoelectric effect; the rest is pair production.
    range_class : ndarray of uint8, (rows, materials)
        Class of the mean range of secondary electrons, weighted by energy transfer; 255 is too long for any voxel.
    reach : ndarray of float32, (rows, materials)
        That range, g/cm2.
    incoherent : ndarray of float32, (materials, points)
        S(x) / S(infinity), uniform in x / (1 + x).
    form_x2 : ndarray of float64, (points,); form_sum : ndarray of float64, (materials, points)
        x squared, and the integral of the squared form factor over x squared up to there.
    line_offset : ndarray of int64, (materials + 1,)
        Fluorescence lines of a material.
    line_energy, line_edge : ndarray of float64, (lines,)
        MeV.
    line_probability : ndarray of float32, (lines, rows)
        Per photoelectric event.
    pair_log, pair_screening : ndarray of float64, (materials,)
        4/3 ln Z and Z^(-1/3), averaged over the elements with their share of pair production.
    """

    log_first: float
    rows_per_log: float
    steps: NDArray[np.float32]
    shares: NDArray[np.float32]
    range_class: NDArray[np.uint8]
    reach: NDArray[np.float32]
    incoherent: NDArray[np.float32]
    form_x2: NDArray[np.float64]
    form_sum: NDArray[np.float64]
    line_offset: NDArray[np.int64]
    line_energy: NDArray[np.float64]
    line_edge: NDArray[np.float64]
    line_probability: NDArray[np.float32]
    pair_log: NDArray[np.float64]
    pair_screening: NDArray[np.float64]


class _Lines(NamedTuple):
    energy: NDArray[np.float64]
    edge: NDArray[np.float64]
    probability: NDArray[np.float64]


def build_photon_tables(materials: Sequence[Material], max_energy_MeV: float) -> PhotonTables:
    """Tables for `transport_photon`.

    Parameters
    ----------
    materials : sequence of Material
        In the order of the phantom's material indices.
    max_energy_MeV : float
        Largest photon energy that can occur.

    Raises
    ------
    SynthDoseError
        If that energy is above 20 MeV, the end of the data.

    References
    ----------
    Cross sections, form factors and relaxation: see `physics`.
    """
    if max_energy_MeV > E_HIGHEST:
        raise SynthDoseError(f"Photons go up to {E_HIGHEST:g} MeV in this engine; found {max_energy_MeV:g} MeV.")
    log_energy = np.linspace(np.log(E_LOWEST), np.log(E_HIGHEST), ROWS)
    energy = np.clip(np.exp(log_energy), E_LOWEST, E_HIGHEST)
    count = len(materials)
    steps = np.zeros((ROWS, count, 4), np.float32)
    shares = np.zeros((ROWS, count, 3), np.float32)
    range_class = np.zeros((ROWS, count), np.uint8)
    reach = np.empty(range_class.shape, np.float32)
    incoherent = np.zeros((count, SCATTER_POINTS), np.float32)
    form_x = np.concatenate([[0.0], np.geomspace(1e-3, 2000.0, FORM_POINTS - 1)])
    form_sum = np.zeros((count, FORM_POINTS))
    all_lines = []
    pair_log, pair_screening = np.zeros(count), np.zeros(count)
    for m, material in enumerate(materials):
        sections = photon_cross_sections(material, energy)
        lines = _fluorescence(material, energy)
        all_lines.append(lines)
        transferred, mean_range = _transfer(material, energy, sections, lines)
        steps[:, m, TOTAL] = sections.total
        steps[:, m, TRANSFER] = transferred
        steps[:-1, m, TOTAL_SLOPE] = np.diff(sections.total)
        steps[:-1, m, TRANSFER_SLOPE] = np.diff(transferred)
        parts = np.stack([sections.compton, sections.rayleigh, sections.photoelectric], axis=1)
        shares[:, m] = np.cumsum(parts, axis=1) / sections.total[:, None]
        range_class[:, m] = range_classes(mean_range, up=True)
        reach[:, m] = mean_range
        incoherent[m] = _incoherent(material)
        form_sum[m] = _form_integral(material, form_x)
        numbers, atoms = atoms_per_gram(material)
        weight = atoms * numbers**2 / (atoms * numbers**2).sum()
        pair_log[m] = weight @ np.log(numbers) * 4 / 3
        pair_screening[m] = weight @ numbers ** (-1 / 3)
    return PhotonTables(
        float(log_energy[0]),
        float((ROWS - 1) / (log_energy[-1] - log_energy[0])),
        steps,
        shares,
        range_class,
        reach,
        incoherent,
        form_x**2,
        form_sum,
        np.concatenate([[0], np.cumsum([lines.energy.size for lines in all_lines])]).astype(np.int64),
        np.concatenate([lines.energy for lines in all_lines]),
        np.concatenate([lines.edge for lines in all_lines]),
        np.concatenate([lines.probability for lines in all_lines]).astype(np.float32),
        pair_log,
        pair_screening,
    )


def range_classes(range_g_cm2: NDArray[np.floating], *, up: bool) -> NDArray[np.uint8]:
    """Class of a range: rounded up for what electrons need, down for what a voxel offers (0: nothing)."""
    with np.errstate(divide="ignore"):
        place = np.log(np.asarray(range_g_cm2, dtype=np.float64) / RANGE_LEAST_G_CM2) / np.log(RANGE_RATIO)
    if up:
        return np.clip(np.ceil(place), 1, 255).astype(np.uint8)
    return np.clip(np.floor(place), 0, 254).astype(np.uint8)


def _fluorescence(material: Material, energy: NDArray[np.float64]) -> _Lines:
    """K and L lines that are followed, and their probability per photoelectric event, (lines, energies)."""
    numbers, atoms = atoms_per_gram(material)
    photoelectric = [n * element_cross_sections(int(z), energy)[2] for z, n in zip(numbers, atoms, strict=True)]
    total = np.sum(photoelectric, axis=0)
    energies, edges, probabilities = [], [], []
    for z, own in zip(numbers, photoelectric, strict=True):
        fractions = shell_fractions(int(z), energy)
        for shell, fraction in zip(atomic_shells(int(z)), fractions, strict=True):
            for line in shell.lines:
                if line.energy_MeV < LINE_LEAST_MEV:
                    continue
                energies.append(line.energy_MeV)
                edges.append(shell.edge_MeV)
                probabilities.append(own / total * fraction * shell.fluorescence_yield * line.probability)
    table = np.array(probabilities) if probabilities else np.zeros((0, energy.size))
    # linear interpolation may not make a line of a photon that has not the energy for it
    below = energy[None, :] < np.array(edges)[:, None] if edges else np.zeros((0, energy.size), bool)
    table[below] = 0.0
    return _Lines(np.array(energies), np.array(edges), table)


def _transfer(
    material: Material, energy: NDArray[np.float64], sections: PhotonCrossSections, lines: _Lines
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy given to electrons per path, MeV cm2/g, and the mean range of these electrons weighted by their energy, g/cm2."""
    ranges = np.geomspace(1e-3, E_HIGHEST, _COARSE)
    range_values = csda_range(material, ranges)

    def range_of(kinetic: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(kinetic, ranges, range_values, left=0.0)

    coarse = np.geomspace(E_LOWEST, E_HIGHEST, _COARSE)
    kinetic, weight = _compton_spectrum(material, coarse)
    mean_share = (weight * kinetic).sum(axis=1) / weight.sum(axis=1) / coarse
    mean_range = (weight * kinetic * range_of(kinetic)).sum(axis=1) / (weight * kinetic).sum(axis=1)
    compton = sections.compton * energy * np.interp(np.log(energy), np.log(coarse), mean_share)
    photoelectric = sections.photoelectric * (energy - lines.energy @ lines.probability)
    pair_kinetic = np.maximum(energy - 2 * REST_ENERGY, 0.0)
    pair = (sections.pair + sections.triplet) * pair_kinetic
    transferred = compton + photoelectric + pair
    weighted = compton * np.interp(np.log(energy), np.log(coarse), mean_range)
    weighted += photoelectric * range_of(energy) + pair * range_of(pair_kinetic / 2)
    return transferred, weighted / transferred


def _compton_spectrum(material: Material, energy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Electron energies (n, nodes) and their weights by Klein and Nishina's formula times the scattering function."""
    nodes, weights = _gauss_legendre(96)
    kappa = energy[:, None] / REST_ENERGY
    # substitution cos theta = 1 - 2 s^2 resolves the forward peak of high energies
    s = 0.5 * (1 + nodes)[None, :]
    t = 2 * s**2
    ratio = 1 / (1 + kappa * t)
    shape = ratio**2 * (ratio + 1 / ratio - t * (2 - t)) * 4 * s
    transfer = PER_ANGSTROM * energy[:, None] * s
    return energy[:, None] * (1 - ratio), shape * weights * incoherent_scattering_function(material, transfer)


@cache
def _gauss_legendre(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return nodes, weights


def _incoherent(material: Material) -> NDArray[np.float64]:
    place = np.linspace(0.0, 1.0, SCATTER_POINTS)
    x = place[:-1] / (1 - place[:-1])
    values = incoherent_scattering_function(material, x)
    limit = float(incoherent_scattering_function(material, np.array(1e9)))
    return np.append(values, limit) / limit


def _form_integral(material: Material, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running integral of F^2 over x^2, by Gauss-Legendre points in every interval."""
    nodes, weights = _gauss_legendre(6)
    low, high = x[:-1, None] ** 2, x[1:, None] ** 2
    x2 = low + (high - low) * 0.5 * (1 + nodes)
    parts = form_factor(material, np.sqrt(x2)) ** 2 * (high - low) * 0.5 * weights
    return np.concatenate([[0.0], np.cumsum(parts.sum(axis=1))])
