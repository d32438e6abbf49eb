"""Everything the electron kernels look up, computed once per set of materials.

The transport is a condensed history of class II: inelastic collisions that lose more than a cut-off and bremsstrahlung
photons above a cut-off are simulated one by one, the rest is grouped into steps. A step is fixed by material and energy
alone, so one row of the table holds it ready to use: how long it is (mass per area, so that it serves any density), what it
loses on average and with what spread, and the deflection of multiple scattering, whose first and second moment are integrals
along the slowing down of the step:

    <cos theta> = exp(-K1),  <P2(cos theta)> = exp(-K2),  Kl = integral of (coefficient l) / (restricted stopping power) dE

(Goudsmit and Saunderson, Phys. Rev. 57 (1940) 24; Lewis, Phys. Rev. 78 (1950) 526). Symbols: E kinetic energy, W energy of the
secondary, m electron rest energy, all MeV; path lengths are g/cm2, coefficients cm2/g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ..core import Material
from ..physics import (
    bremsstrahlung_spectrum,
    csda_range,
    elastic_moments,
    electrons_per_gram,
    mean_excitation_energy,
    resonances,
    stopping_powers,
)
from .annihilation import REST_ENERGY, annihilation_cross_section
from .electrons_deflection import SHAPE_POINTS, sampling_shapes
from .tables import E_HIGHEST

_CLASSICAL_RADIUS_CM = 2.8179403262e-13
_COLLISION_CONSTANT = 2 * np.pi * _CLASSICAL_RADIUS_CM**2 * REST_ENERGY
"""2 pi r_e^2 m, MeV cm2 per electron: the common factor of Moller's and Bhabha's cross sections."""

RANGE, STEP, SPREAD, MU, TURN, TURN_RISE, RATE, RATE_RISE, HARD, HARD_RISE, BREMS, ANNIHILATION = range(12)
"""Columns of a row.

CSDA range; length of a step, sqrt(3) times the standard deviation of its loss, its mean deflection; three quantities that grow
along the step as ``t * (first + rise * t)``: the share of its K1 (1 at the end), the mean soft loss, the number of hard events;
share of bremsstrahlung in these, and of bremsstrahlung and annihilation together.
"""

ROWS_PER_SHAPE = 4

USUAL_CUT, FINE_CUT = (0.08, 0.001), (0.012, 0.0003)
FINE_UP_TO_MEV = 0.12
"""Cut-offs of hard collisions (share of the energy; least, MeV): the fine ones where no electron has more energy than this.

They make R90 of electrons of 20 to 100 keV 0.2 % longer, nearer to PENELOPE's, for a sixth more time; Y-90 would take twice.
"""

_LOWEST_ENERGY = 1e-3
_POINTS_PER_E_FOLD = 48
KAPPA_POINTS = 65


class ElectronTables(NamedTuple):
    """Tables of the electron kernels; index ``2 * material`` is for electrons, ``2 * material + 1`` for positrons.

    `rows` and `shapes` have all of them twice: for ordinary steps first, then for short ones.

    Attributes
    ----------
    log_first, rows_per_log : float
        Rows are uniform in ln E: row = (ln E - log_first) * rows_per_log.
    rows : ndarray of float32, (4 * materials, points, 12)
        Columns RANGE .. ANNIHILATION.
    shapes : ndarray of float32, (4 * materials, points // ROWS_PER_SHAPE + 1, SHAPE_POINTS)
        Deflection mu(t) over its mean at every ROWS_PER_SHAPE-th energy and at the last; see `nearest_shape`.
    photons : ndarray of float32, (2 * materials, points)
        Mean number of hard bremsstrahlung photons emitted while slowing down from E to rest.
    annihilations : ndarray of float32, (materials, points)
        Mean number of annihilations of a positron that slows down from E to rest.
    spectrum : ndarray of float32, (materials, points, kappa)
        k dsigma/dk over its largest value at this energy, k = kappa E, kappa uniform from 0 to 1.
    absorption : float
        Energy below which an electron is never followed, MeV.
    hard_share, hard_least, hard_most : float
        Secondaries are hard above ``hard_share * E``, but never below `hard_least` and always above `hard_most`, MeV.
    photon_cut : float
        Bremsstrahlung photons above this energy are emitted, MeV.
    stop_share : float
        An electron whose range is below this share of the smallest voxel edge is deposited where it is.
    """

    log_first: float
    rows_per_log: float
    rows: NDArray[np.float32]
    shapes: NDArray[np.float32]
    photons: NDArray[np.float32]
    annihilations: NDArray[np.float32]
    spectrum: NDArray[np.float32]
    absorption: float
    hard_share: float
    hard_least: float
    hard_most: float
    photon_cut: float
    stop_share: float


class _Collisions(NamedTuple):
    """Integrals of the inelastic cross section above (number) and up to (energy, variance) the cut-off, per g/cm2."""

    hard_number: NDArray[np.float64]
    hard_energy: NDArray[np.float64]
    soft_variance: NDArray[np.float64]


def build_electron_tables(
    materials: Sequence[Material],
    max_energy_MeV: float,
    *,
    first_moment: tuple[float, float] = (0.2, 0.06),
    energy_share: tuple[float, float] = (0.2, 0.12),
    hard_share: float | None = None,
    hard_least_MeV: float | None = None,
    hard_most_MeV: float = 0.2,
    photon_cut_MeV: float = 0.010,
    absorption_MeV: float = 0.001,
    stop_share: float = 0.0005,
    mean_excitation_eV: Sequence[float] | None = None,
) -> ElectronTables:
    """Tables for `transport_electron`.

    Parameters
    ----------
    materials : sequence of Material
        In the order of the phantom's material indices.
    max_energy_MeV : float
        Largest kinetic energy that can occur, at most 20 MeV (the end of the data).
    first_moment : tuple of float
        Largest K1 of an ordinary step and of a short one for tracks that the voxels resolve.
    energy_share : tuple of float
        Largest mean loss of these steps as a share of the energy.
    hard_share, hard_least_MeV, hard_most_MeV : float
        Collisions that lose more than ``hard_share * E``, kept between the two limits, are simulated one by one; what is not
        given is that of USUAL_CUT or FINE_CUT.
    photon_cut_MeV : float
        Smallest bremsstrahlung photon that is emitted as a particle.
    absorption_MeV : float
        Electrons below are deposited at once.
    stop_share : float
        See `ElectronTables`.
    mean_excitation_eV : sequence of float, optional
        Mean excitation energies instead of those of the physics package, to compare with a code that takes others.

    Returns
    -------
    ElectronTables

    References
    ----------
    Berger, in Methods in Computational Physics 1 (1963) 135 (classes of condensed histories).
    """
    usual_share, usual_least_MeV = FINE_CUT if max_energy_MeV <= FINE_UP_TO_MEV else USUAL_CUT
    hard_share = usual_share if hard_share is None else hard_share
    hard_least_MeV = usual_least_MeV if hard_least_MeV is None else hard_least_MeV
    first, last = np.log(_LOWEST_ENERGY), np.log(max(max_energy_MeV, 10 * _LOWEST_ENERGY)) + 1e-6
    points = int(np.ceil((last - first) * _POINTS_PER_E_FOLD)) + 2
    log_energy = np.linspace(first, last, points)
    energy = np.minimum(np.exp(log_energy), E_HIGHEST)  # the data end there
    kappa = np.linspace(0.0, 1.0, KAPPA_POINTS)
    sets = 2 * len(materials)
    rows = np.zeros((2 * sets, points, 12), np.float32)
    shapes = np.zeros((2 * sets, points // ROWS_PER_SHAPE + 1, SHAPE_POINTS), np.float32)
    photons = np.zeros((sets, points), np.float32)
    annihilations = np.zeros((len(materials), points), np.float32)
    spectrum = np.zeros((len(materials), points, KAPPA_POINTS), np.float32)
    cut = np.clip(hard_share * energy, hard_least_MeV, hard_most_MeV)
    for index, material in enumerate(materials):
        scaled = _scaled_bremsstrahlung(material, energy, kappa)
        spectrum[index] = scaled / scaled.max(axis=1, keepdims=True)
        electron_number, electron_energy = _bremsstrahlung_integrals(energy, kappa, scaled, photon_cut_MeV)
        electron_radiative = stopping_powers(material, energy).radiative
        excitation = None if mean_excitation_eV is None else mean_excitation_eV[index]
        for positron in (False, True):
            powers = stopping_powers(material, energy, positron=positron, mean_excitation_eV=excitation)
            oscillators = resonances(material, mean_excitation_eV=excitation)
            collisions = _collision_integrals(material, energy, cut, positron, oscillators, powers.density_effect)
            total_power = powers.total
            # Positrons radiate less; the shape of the spectrum is taken to be the same.
            less = powers.radiative / electron_radiative
            brems_number = electron_number * less
            soft_power = total_power - collisions.hard_energy - electron_energy * less
            moments = _scattering_moments(material, energy, cut, positron)
            met = electrons_per_gram(material) * annihilation_cross_section(energy) * positron
            first_range = float(csda_range(material, np.array([_LOWEST_ENERGY]), positron=positron)[0])
            place = 2 * index + positron
            csda = first_range + _integral(log_energy, energy / total_power)
            for length, (moment, share) in enumerate(zip(first_moment, energy_share, strict=True)):
                row = place + length * sets
                rows[row, :, RANGE] = csda
                events = collisions.hard_number, brems_number, met
                _fill_steps(rows[row], shapes[row], log_energy, soft_power, moments, collisions, events, moment, share)
            # on the way to rest hard photons are emitted one by one, all other losses slow down
            slowing = total_power - electron_energy * less
            photons[place] = _integral(log_energy, energy * brems_number / slowing)
            if positron:
                annihilations[index] = _integral(log_energy, energy * met / slowing)
    return ElectronTables(
        float(first),
        float((points - 1) / (last - first)),
        rows,
        shapes,
        photons,
        annihilations,
        spectrum,
        absorption_MeV,
        hard_share,
        hard_least_MeV,
        hard_most_MeV,
        photon_cut_MeV,
        stop_share,
    )


def _integral(log_energy: NDArray[np.float64], integrand: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running integral over ln E, zero at the first point."""
    steps = 0.5 * (integrand[1:] + integrand[:-1]) * np.diff(log_energy)
    return np.concatenate(([0.0], np.cumsum(steps)))


def _fill_steps(
    row: NDArray[np.float32],
    shape: NDArray[np.float32],
    log_energy: NDArray[np.float64],
    soft_power: NDArray[np.float64],
    moments: tuple[NDArray[np.float64], NDArray[np.float64]],
    collisions: _Collisions,
    events: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    first_moment: float,
    energy_share: float,
) -> None:
    """Fill the columns of one material and kind: the step that starts at each energy.

    `moments` are the first and second transport coefficient, `events` the numbers of hard collisions, photons, annihilations.
    """
    energy = np.exp(log_energy)
    k1 = _integral(log_energy, energy * moments[0] / soft_power)
    hard = events[0] + events[1] + events[2]
    final = np.maximum(np.interp(k1 - first_moment, k1, log_energy), np.log(energy * (1 - energy_share)))
    # Below the first point of the table the coefficients are those of that point: electrons end there anyway.
    final = np.clip(final, log_energy[0] - 0.1, log_energy - 0.01)

    def over_step(coefficient: NDArray[np.float64]) -> NDArray[np.float64]:
        extended = np.concatenate(([log_energy[0] - 0.2], log_energy))
        integrand = np.exp(log_energy) * coefficient / soft_power
        running = CubicSpline(extended, np.concatenate((integrand[:1], integrand))).antiderivative()
        return np.asarray(running(log_energy) - running(final))

    step = over_step(np.ones_like(energy))
    k1_step, k2_step = over_step(moments[0]), over_step(moments[1])
    row[:, STEP] = step
    row[:, SPREAD] = np.sqrt(3 * over_step(collisions.soft_variance))
    row[:, MU] = 0.5 * -np.expm1(-k1_step)
    places = np.minimum(ROWS_PER_SHAPE * np.arange(len(shape)), energy.size - 1)
    shape[:] = sampling_shapes(k1_step[places], k2_step[places])
    number = over_step(hard)
    for column, start, total in (
        (TURN, moments[0] / k1_step, 1.0),
        (RATE, soft_power, energy - np.exp(final)),
        (HARD, hard, number),
    ):
        row[:, column] = start
        row[:, column + 1] = (total / step - start) / step
    row[:, BREMS] = over_step(events[1]) / np.maximum(number, 1e-30)
    row[:, ANNIHILATION] = over_step(events[1] + events[2]) / np.maximum(number, 1e-30)


def _beta_squared(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    return energy * (energy + 2 * REST_ENERGY) / (energy + REST_ENERGY) ** 2


def _collision_integrals(
    material: Material, energy: NDArray[np.float64], cut: NDArray[np.float64], positron: bool,
    oscillators: tuple[NDArray[np.float64], NDArray[np.float64]], density_effect: NDArray[np.float64],
) -> _Collisions:  # fmt: skip
    """Integrate Moller's (or Bhabha's) cross section for free electrons at rest; see `_soft_variance` for what is bound."""
    constant = _COLLISION_CONSTANT * electrons_per_gram(material) / _beta_squared(energy)
    largest = energy if positron else 0.5 * energy
    soft = np.minimum(cut, largest)
    number, lost = (constant * _close_moment(energy, soft, largest, order, positron) for order in (0, 1))
    return _Collisions(number, lost, constant * _soft_variance(energy, soft, largest, positron, oscillators, density_effect))


def _close_moment(
    energy: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], order: int, positron: bool
) -> NDArray[np.float64]:
    """Integral of W^order times the cross section of free electrons, in its common factor, from `low` to `high`."""
    half = 0.5 * np.log(high / low)
    result = np.zeros_like(energy)
    for node, weight in zip(*np.polynomial.legendre.leggauss(24), strict=True):
        secondary = low * np.exp(half * (1 + node))
        result += weight * half * _shape(energy, secondary / energy, positron) * secondary ** (order - 1)
    return result


def _soft_variance(
    energy: NDArray[np.float64], soft: NDArray[np.float64], largest: NDArray[np.float64], positron: bool,
    oscillators: tuple[NDArray[np.float64], NDArray[np.float64]], density_effect: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """Second moment of all losses less that of the hard collisions, in the common factor of the cross sections, MeV.

    A bound electron takes its resonance energy R in a distant collision (recoil energy Q < R, and the transverse field), and
    any energy above R in a close one, as if it were free. At 50 keV free electrons alone would make a quarter (water) to a
    third (bone) less of it.

    References
    ----------
    D. Liljequist, J. Phys. D 16 (1983) 1567; F. Salvat, J.M. Fernandez-Varea, Metrologia 46 (2009) S112.
    """
    momentum = np.sqrt(energy * (energy + 2 * REST_ENERGY))
    transverse = np.maximum(0.0, 2 * np.log1p(energy / REST_ENERGY) - _beta_squared(energy) - density_effect)
    result = np.zeros_like(energy)
    for strength, resonance in zip(*oscillators, strict=True):
        left = np.maximum(energy - resonance, 0.0)
        least = np.hypot(momentum - np.sqrt(left * (left + 2 * REST_ENERGY)), REST_ENERGY) - REST_ENERGY
        ratio = resonance * (least + 2 * REST_ENERGY) / (least * (resonance + 2 * REST_ENERGY))
        distant = np.where(left > 0, resonance * (np.log(np.maximum(ratio, 1.0)) + transverse), 0.0)
        # below zero where hard collisions of the free electron reach under the resonance
        close = _close_moment(energy, np.minimum(resonance, largest), soft, 2, positron)
        result += strength * (distant + close)
    return result


def _shape(energy: NDArray[np.float64], share: NDArray[np.float64], positron: bool) -> NDArray[np.float64]:
    """Cross section times W^2, 1 for small losses; `share` is W/E."""
    gamma = 1 + energy / REST_ENERGY
    if not positron:
        rest = share / (1 - share)
        return 1 + rest**2 - rest + ((gamma - 1) / gamma) ** 2 * (share**2 + rest)
    y = 1 / (gamma + 1)
    b4 = (1 - 2 * y) ** 3
    b3 = (1 - 2 * y) ** 2 + b4
    b2 = (1 - 2 * y) * (3 + y**2)
    b1 = 2 - y**2
    return 1 - _beta_squared(energy) * share * (b1 - share * (b2 - share * (b3 - share * b4)))


def _scattering_moments(
    material: Material, energy: NDArray[np.float64], cut: NDArray[np.float64], positron: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and second transport coefficients of elastic and soft inelastic scattering.

    A soft collision turns the electron by 1 - cos theta = W m / (E (E + 2 m)). The close collisions between the mean excitation
    energy and the cut-off give the logarithm, the distant ones of their excitation about one unit more.
    """
    sigma1, sigma2 = elastic_moments(material, energy, positron=positron)
    excitation = mean_excitation_energy(material) * 1e-6
    soft = np.minimum(cut, energy if positron else 0.5 * energy)
    turn = REST_ENERGY / (energy * (energy + 2 * REST_ENERGY))
    constant = _COLLISION_CONSTANT * electrons_per_gram(material) / _beta_squared(energy)
    inelastic = constant * turn * (1 + np.log(np.maximum(soft / excitation, 1)))
    return sigma1 + inelastic, sigma2 + 3 * inelastic


def _scaled_bremsstrahlung(material: Material, energy: NDArray[np.float64], kappa: NDArray[np.float64]) -> NDArray[np.float64]:
    """k dsigma/dk, cm2/g, at k = kappa E; shape (energies, kappas)."""
    table = bremsstrahlung_spectrum(material, energy)
    return np.stack([np.interp(kappa, table.kappa, line) for line in table.scaled])


def _bremsstrahlung_integrals(
    energy: NDArray[np.float64], kappa: NDArray[np.float64], scaled: NDArray[np.float64], photon_cut: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of photons and energy above the cut-off, per g/cm2."""
    number, lost = np.zeros_like(energy), np.zeros_like(energy)
    nodes, weights = np.polynomial.legendre.leggauss(32)
    for n, (value, line) in enumerate(zip(energy, scaled, strict=True)):
        if value > photon_cut:
            half = 0.5 * np.log(value / photon_cut)
            share = photon_cut / value * np.exp(half * (1 + nodes))
            density = np.interp(share, kappa, line) * weights * half
            number[n] = density.sum()
            lost[n] = (density * share).sum() * value
    return number, lost
