"""Photon collisions: samples of energies and directions, a kernel for each process. Symbols as in `tables`."""

from __future__ import annotations

import math

from numba import njit

from .random import next_uniform
from .tables import PER_ANGSTROM, REST_ENERGY, SCATTER_POINTS

KAHN_MOST = 2.0  # in units of the rest energy: above it the plain proposal of the ratio is refused too often


@njit
def sample_compton(energy, material, incoherent, state):
    """Scatter on bound electrons: return the ratio r of the scattered energy to E, and cos theta.

    Klein and Nishina's formula, thinned by the incoherent scattering function. Up to 1 MeV r is drawn uniformly and thinned by
    (1/r + r - sin^2 theta); above by the composition of Butcher and Messel (Nucl. Phys. 20 (1960) 15).
    """
    kappa = energy / REST_ENERGY
    least = 1.0 / (1.0 + 2.0 * kappa)
    plain = kappa < KAHN_MOST
    log_part = 0.0 if plain else -math.log(least)
    square_part = 0.5 * (1.0 - least * least)
    per_kappa = 1.0 / kappa
    scale = 1.0 / (least + 1.0 / least)
    while True:
        if plain:
            ratio = least + (1.0 - least) * next_uniform(state)
            inverse = 1.0 / ratio
            t = (inverse - 1.0) * per_kappa  # 1 - cos theta
            accept = scale * (inverse + ratio - t * (2.0 - t))
        else:
            if next_uniform(state) * (log_part + square_part) < log_part:
                ratio = math.exp(-log_part * next_uniform(state))
            else:
                ratio = math.sqrt(least * least + (1.0 - least * least) * next_uniform(state))
            t = (1.0 - ratio) / (kappa * ratio)
            accept = 1.0 - ratio * t * (2.0 - t) / (1.0 + ratio * ratio)
        number = next_uniform(state)
        if number < accept:
            x = PER_ANGSTROM * energy * math.sqrt(0.5 * t)
            place = x / (1.0 + x) * (SCATTER_POINTS - 1)
            slot = int(place)
            low = incoherent[material, slot]
            if number < accept * (low + (place - slot) * (incoherent[material, min(slot + 1, SCATTER_POINTS - 1)] - low)):
                return ratio, max(-1.0, 1.0 - t)


@njit
def sample_rayleigh(energy, material, x2, form_sum, state):
    """Return cos theta of coherent scattering: squared form factor in x squared, thinned by Thomson's (1 + cos^2) / 2."""
    x2_largest = (PER_ANGSTROM * energy) ** 2
    points = x2.size
    low, high = 0, points - 1
    while high - low > 1:
        middle = (low + high) // 2
        if x2[middle] > x2_largest:
            high = middle
        else:
            low = middle
    sums = form_sum[material]
    share = (x2_largest - x2[low]) / (x2[low + 1] - x2[low])
    largest = sums[low] + min(1.0, share) * (sums[low + 1] - sums[low])
    while True:
        wanted = next_uniform(state) * largest
        low, high = 0, points - 1
        while high - low > 1:
            middle = (low + high) // 2
            if sums[middle] > wanted:
                high = middle
            else:
                low = middle
        width = sums[low + 1] - sums[low]
        inside = (wanted - sums[low]) / width if width > 0.0 else 0.5
        cosine = 1.0 - 2.0 * min(1.0, (x2[low] + inside * (x2[low + 1] - x2[low])) / x2_largest)
        if next_uniform(state) < 0.5 * (1.0 + cosine * cosine):
            return cosine


@njit
def sample_photoelectron(energy, state):
    """Return cos theta of the electron of the photoelectric effect, kinetic energy `energy`.

    Sauter's distribution for the K shell (Ann. Phys. 403 (1931) 454), with t = 1 - cos theta and A = 1/beta - 1:
    p(t) ~ t / (A + t)^3 * (2 - t) (1 / (A + t) + beta gamma (gamma - 1) (gamma - 2) / 2); the first factor is drawn by
    inversion, the rest falls with t and thins it.
    """
    gamma = 1.0 + energy / REST_ENERGY
    beta = math.sqrt(energy * (energy + 2.0 * REST_ENERGY)) / (energy + REST_ENERGY)
    a = 1.0 / beta - 1.0
    b = 0.5 * beta * gamma * (gamma - 1.0) * (gamma - 2.0)
    largest = 2.0 * (1.0 / a + b)
    while True:
        u = next_uniform(state)
        t = 2.0 * a / ((a + 2.0) ** 2 - 4.0 * u) * (2.0 * u + (a + 2.0) * math.sqrt(u))
        if next_uniform(state) * largest < (2.0 - t) * (1.0 / (a + t) + b):
            return max(-1.0, 1.0 - t)


@njit
def sample_pair_share(energy, screening, correction, state):
    """Return the share of E that the electron of a pair gets, with its rest energy; see `pair_screening`, `pair_log`.

    Bethe and Heitler's cross section with Thomas-Fermi screening (Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815, in the
    approximation of Butcher and Messel 1960); below 2.1 MeV uniform, where the distribution is nearly so.
    """
    least = REST_ENERGY / energy
    if energy < 2.1:
        return least + (1.0 - 2.0 * least) * next_uniform(state)
    scale = 136.0 * least * screening
    largest = pair_weight(0.5, scale, correction) + 1e-3
    largest = max(largest, pair_weight(max(least, 0.05), scale, correction), pair_weight(0.2, scale, correction))
    largest = max(largest, pair_weight(0.1, scale, correction)) * 1.05
    while True:
        share = least + (1.0 - 2.0 * least) * next_uniform(state)
        if next_uniform(state) * largest < pair_weight(share, scale, correction):
            return share


@njit
def pair_weight(share, scale, correction):
    """Bethe and Heitler's differential cross section in the electron's share of the energy, in arbitrary units."""
    delta = scale / (share * (1.0 - share))
    if delta <= 1.0:
        phi_1 = 20.867 - 3.242 * delta + 0.625 * delta * delta
        phi_2 = 20.209 - 1.930 * delta - 0.086 * delta * delta
    else:
        phi_1 = 21.12 - 4.184 * math.log(delta + 0.952)
        phi_2 = phi_1
    rest = share * share + (1.0 - share) ** 2
    return max(0.0, rest * (phi_1 - correction) + 2.0 / 3.0 * share * (1.0 - share) * (phi_2 - correction))


@njit
def sample_pair_cosine(kinetic, state):
    """Return cos theta of one of a pair, from the leading term of the high-energy distribution: 1 / (1 - beta cos theta)^2."""
    beta = math.sqrt(kinetic * (kinetic + 2.0 * REST_ENERGY)) / (kinetic + REST_ENERGY)
    u = 2.0 * next_uniform(state) - 1.0
    return (u + beta) / (u * beta + 1.0)
