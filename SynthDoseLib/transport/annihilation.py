"""Positrons that meet an electron: two quanta, in flight or at rest.

Symbols: E kinetic energy of the positron, m electron rest energy, gamma = 1 + E / m; zeta is one quantum's share of E + 2 m.
The electrons are taken to be free and at rest: no acollinearity, no positronium, no single quantum (which bound electrons of
heavy elements allow, far below one in a hundred).

Heitler, The Quantum Theory of Radiation, 3rd ed. (1954), section 27; Nelson, Hirayama & Rogers, SLAC-265 (1985).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .geometry import PHOTON, deposit, push_particle, rotate
from .random import next_uniform

REST_ENERGY = 0.51099895
"""Electron rest energy, MeV (CODATA 2018)."""

_RADIUS_CM = 2.8179403262e-13


def annihilation_cross_section(energy_MeV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heitler's cross section per electron of annihilation in flight into two quanta, cm2.

    Towards rest it goes as pi r_e^2 / beta, at high energies as pi r_e^2 (ln(2 gamma) - 1) / gamma.
    """
    gamma = 1 + np.asarray(energy_MeV, dtype=np.float64) / REST_ENERGY
    root = np.sqrt(gamma**2 - 1)
    brackets = (gamma**2 + 4 * gamma + 1) / root**2 * np.log(gamma + root) - (gamma + 3) / root
    return np.asarray(np.pi * _RADIUS_CM**2 / (gamma + 1) * brackets)


@njit
def sample_quantum(gamma, state):
    """Sample the share zeta of one of the two quanta; the other one has 1 - zeta.

    dsigma/dzeta is proportional to S(zeta) + S(1 - zeta), so that S alone serves on the whole interval;
    S(zeta) = -(gamma + 1)^2 + (gamma^2 + 4 gamma + 1) / zeta - 1 / zeta^2. The factor 1 / zeta is sampled, the rest accepted.
    """
    least = 1.0 / (gamma + 1.0 + math.sqrt(gamma * gamma - 1.0))
    ratio = math.log((1.0 - least) / least)
    middle = gamma * gamma + 4.0 * gamma + 1.0
    bound = gamma * gamma + 2.0 * gamma - 1.0
    while True:
        zeta = least * math.exp(ratio * next_uniform(state))
        value = middle - (gamma + 1.0) * (gamma + 1.0) * zeta - 1.0 / zeta
        if next_uniform(state) * bound < value:
            return zeta


@njit
def annihilate(energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count, state):
    """Annihilate a positron that flies along (u, v, w): two quanta onto the stack, into the voxel what does not fit there."""
    gamma = 1.0 + energy / REST_ENERGY
    if gamma > 1.0001:
        root = math.sqrt(gamma * gamma - 1.0)
        zeta = sample_quantum(gamma, state)
        cosine = (gamma + 1.0 - 1.0 / zeta) / root
        other = (gamma + 1.0 - 1.0 / (1.0 - zeta)) / root
    else:  # the formulas lose their digits, and below 51 eV the positron is as good as at rest
        zeta = 0.5
        cosine = 2.0 * next_uniform(state) - 1.0
        other = -cosine
    azimuth = 2.0 * math.pi * next_uniform(state)
    for _ in range(2):
        photon = zeta * (energy + 2.0 * REST_ENERGY)
        pu, pv, pw = rotate(u, v, w, min(1.0, max(-1.0, cosine)), azimuth)
        if not push_particle(stack, count, PHOTON, photon, x, y, z, pu, pv, pw, weight, i, j, k):
            deposit(tally, voxel, photon * weight)
        zeta, cosine, azimuth = 1.0 - zeta, other, azimuth + math.pi
