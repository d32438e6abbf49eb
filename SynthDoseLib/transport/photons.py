"""Photons: flights through voxels, and what happens where one ends.

A kernel for each process. Symbols as in `tables`; directions and positions as in `geometry`. Electrons and positrons are put on
the stack with the energy they get; binding energy is given to the electron, but for followed fluorescence.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .geometry import ELECTRON, PHOTON, POSITRON, deposit, push_particle, rotate, voxel_index
from .random import next_uniform
from .tables import (
    E_LOWEST,
    PER_ANGSTROM,
    REST_ENERGY,
    ROWS,
    TOTAL,
    TOTAL_SLOPE,
    TRANSFER,
    TRANSFER_SLOPE,
)

_LAST_ROW = ROWS - 2
_FAR = 1e30


@njit
def sample_compton(energy, material, photons, state):
    """Scatter on bound electrons: return the ratio of the scattered energy to E, and cos theta.

    Klein and Nishina's formula by the composition of Butcher and Messel (Nucl. Phys. 20 (1960) 15), thinned by the incoherent
    scattering function.
    """
    kappa = energy / REST_ENERGY
    least = 1.0 / (1.0 + 2.0 * kappa)
    log_part = -math.log(least)
    square_part = 0.5 * (1.0 - least * least)
    points = photons.incoherent.shape[1]
    while True:
        if next_uniform(state) * (log_part + square_part) < log_part:
            ratio = math.exp(-log_part * next_uniform(state))
        else:
            ratio = math.sqrt(least * least + (1.0 - least * least) * next_uniform(state))
        t = (1.0 - ratio) / (kappa * ratio)  # 1 - cos theta
        accept = 1.0 - ratio * t * (2.0 - t) / (1.0 + ratio * ratio)
        x = PER_ANGSTROM * energy * math.sqrt(0.5 * t)
        place = x / (1.0 + x) * (points - 1)
        slot = int(place)
        low = photons.incoherent[material, slot]
        accept *= low + (place - slot) * (photons.incoherent[material, min(slot + 1, points - 1)] - low)
        if next_uniform(state) < accept:
            return ratio, max(-1.0, 1.0 - t)


@njit
def sample_rayleigh(energy, material, photons, state):
    """Return cos theta of coherent scattering: squared form factor in x squared, thinned by Thomson's (1 + cos^2) / 2."""
    x2_largest = (PER_ANGSTROM * energy) ** 2
    x2 = photons.form_x2
    points = x2.size
    low, high = 0, points - 1
    while high - low > 1:
        middle = (low + high) // 2
        if x2[middle] > x2_largest:
            high = middle
        else:
            low = middle
    sums = photons.form_sum[material]
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
def sample_pair_share(energy, material, photons, state):
    """Return the share of E that the electron of a pair gets, with its rest energy.

    Bethe and Heitler's cross section with Thomas-Fermi screening (Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815, in the
    approximation of Butcher and Messel 1960); below 2.1 MeV uniform, where the distribution is nearly so.
    """
    least = REST_ENERGY / energy
    if energy < 2.1:
        return least + (1.0 - 2.0 * least) * next_uniform(state)
    scale = 136.0 * least * photons.pair_screening[material]
    correction = photons.pair_log[material]
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


@njit
def produce_pair(energy, x, y, z, u, v, w, weight, i, j, k, local, material, geometry, photons, tally, stack, count, state):
    """Make an electron and a positron, or, where electrons are local, the two quanta of the annihilation alone."""
    voxel = voxel_index(geometry, i, j, k)
    kinetic = energy - 2.0 * REST_ENERGY
    if local:
        a = 2.0 * next_uniform(state) - 1.0
        azimuth = 2.0 * math.pi * next_uniform(state)
        du, dv, dw = rotate(0.0, 0.0, 1.0, a, azimuth)
        push_or_deposit(PHOTON, REST_ENERGY, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
        push_or_deposit(PHOTON, REST_ENERGY, x, y, z, -du, -dv, -dw, weight, i, j, k, voxel, tally, stack, count)
        return
    share = sample_pair_share(energy, material, photons, state)
    first = min(kinetic, max(0.0, share * energy - REST_ENERGY))
    for kind, own in ((ELECTRON, first), (POSITRON, kinetic - first)):
        cosine = sample_pair_cosine(own, state) if own > 0.0 else 1.0
        du, dv, dw = rotate(u, v, w, cosine, 2.0 * math.pi * next_uniform(state))
        push_or_deposit(kind, own, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)


@njit
def push_or_deposit(kind, energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count):
    """Put a particle on the stack; when it is full its energy stays where it is."""
    if not push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k):
        deposit(tally, voxel, weight * (energy + (2.0 * REST_ENERGY if kind == POSITRON else 0.0)))


@njit
def absorb(energy, x, y, z, u, v, w, weight, i, j, k, local, material, row, photons, voxel, tally, stack, count, state):
    """Photoelectric effect: electron, and perhaps a fluorescence photon; return the energy times weight of local electrons."""
    kinetic = energy
    quantum = 0.0
    first, last = photons.line_offset[material], photons.line_offset[material + 1]
    if last > first:
        chance = next_uniform(state)
        for line in range(first, last):
            chance -= photons.line_probability[line, row]
            if chance < 0.0:
                kinetic = energy - photons.line_edge[line]
                quantum = photons.line_energy[line]
                cosine = 2.0 * next_uniform(state) - 1.0
                du, dv, dw = rotate(0.0, 0.0, 1.0, cosine, 2.0 * math.pi * next_uniform(state))
                push_or_deposit(PHOTON, quantum, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
                if not local:
                    deposit(tally, voxel, weight * (photons.line_edge[line] - quantum))
                break
    if local:
        return weight * (energy - quantum)
    if kinetic > 0.0:
        cosine = sample_photoelectron(kinetic, state)
        du, dv, dw = rotate(u, v, w, cosine, 2.0 * math.pi * next_uniform(state))
        push_or_deposit(ELECTRON, kinetic, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
    return 0.0


@njit(inline="always")
def energy_row(energy, photons):
    """Row of the tables below E, and the share of the way to the next."""
    place = (math.log(energy) - photons.log_first) * photons.rows_per_log
    row = min(max(int(place), 0), _LAST_ROW)
    return row, place - row


@njit(inline="always")
def fly(x, y, z, u, v, w, i, j, k, paths, weight, row, fraction, geometry, photons, voxel_class, kerma, tally):
    """Fly `paths` mean free paths; return whether the flight ended inside, where, and the energy scored on the way.

    Where electrons are local the energy that the photon transfers on average along its track is scored (track-length
    estimator of the collision kerma). Voxels are counted, not searched: Amanatides and Woo, Eurographics '87, 3.
    """
    next_i, pace_i, turn_i = _FAR, _FAR, 1
    next_j, pace_j, turn_j = _FAR, _FAR, 1
    next_k, pace_k, turn_k = _FAR, _FAR, 1
    if abs(u) > 1e-15:
        turn_i = 1 if u > 0.0 else -1
        pace_i = geometry.dx / abs(u)
        next_i = max(0.0, ((i + (u > 0.0)) * geometry.dx - x) / u)
    if abs(v) > 1e-15:
        turn_j = 1 if v > 0.0 else -1
        pace_j = geometry.dy / abs(v)
        next_j = max(0.0, ((j + (v > 0.0)) * geometry.dy - y) / v)
    if abs(w) > 1e-15:
        turn_k = 1 if w > 0.0 else -1
        pace_k = geometry.dz / abs(w)
        next_k = max(0.0, ((k + (w > 0.0)) * geometry.dz - z) / w)
    row_stride = geometry.ni * turn_j
    slice_stride = geometry.ni * geometry.nj * turn_k
    voxel = voxel_index(geometry, i, j, k)
    last = -1  # material of the coefficients at hand
    attenuation, transfer, needed = 0.0, 0.0, 255
    travelled = 0.0
    scored = 0.0
    while True:
        reached = min(next_i, next_j, next_k)
        density = np.float64(geometry.density[voxel])
        if density > 0.0:
            length = reached - travelled
            m = geometry.material[voxel]
            if m != last:
                last = m
                attenuation = photons.steps[row, m, TOTAL] + fraction * photons.steps[row, m, TOTAL_SLOPE]
                transfer = weight * (photons.steps[row, m, TRANSFER] + fraction * photons.steps[row, m, TRANSFER_SLOPE])
                needed = photons.range_class[row, m] if kerma else 255
            mu = density * attenuation
            ends = mu * length >= paths
            if ends:
                length = paths / mu
            else:
                paths -= mu * length
            if kerma and needed <= voxel_class[voxel]:
                energy = density * transfer * length
                deposit(tally, voxel, energy)
                scored += energy
            if ends:
                travelled += length
                return True, x + u * travelled, y + v * travelled, z + w * travelled, i, j, k, scored
        travelled = reached
        if next_i <= next_j and next_i <= next_k:
            i += turn_i
            if i < 0 or i >= geometry.ni:
                return False, x, y, z, i, j, k, scored
            next_i += pace_i
            voxel += turn_i
        elif next_j <= next_k:
            j += turn_j
            if j < 0 or j >= geometry.nj:
                return False, x, y, z, i, j, k, scored
            next_j += pace_j
            voxel += row_stride
        else:
            k += turn_k
            if k < 0 or k >= geometry.nk:
                return False, x, y, z, i, j, k, scored
            next_k += pace_k
            voxel += slice_stride


@njit
def transport_photon(
    energy, x, y, z, u, v, w, weight, i, j, k, geometry, photons, voxel_class, kerma, tally, stack, count, state
):
    """Follow a photon until it is absorbed or leaves; put electrons on the stack where they are not local.

    Parameters
    ----------
    energy : float
        MeV.
    x, y, z, u, v, w : float
    weight : float
    i, j, k : int
        Voxel of the start.
    geometry : Geometry; photons : PhotonTables
    voxel_class : ndarray of uint8, (voxels,)
        Longest range, as a class, of electrons that are local in each voxel.
    kerma : bool
        Whether local electrons are scored by track length; otherwise all are put on the stack.
    tally : ndarray of int64, (voxels,)
    stack, count, state : ndarray
        See `push_particle`, `next_uniform`.

    Returns
    -------
    left : float
        Energy times weight that left the grid, MeV.
    excess : float
        Energy times weight that local electrons got in the collisions of this photon, less what was scored for them along its
        track, MeV: zero on average.
    """
    excess = 0.0
    while energy > E_LOWEST:
        row, fraction = energy_row(energy, photons)
        paths = -math.log(next_uniform(state))
        inside, x, y, z, i, j, k, scored = fly(
            x, y, z, u, v, w, i, j, k, paths, weight, row, fraction, geometry, photons, voxel_class, kerma, tally
        )
        excess -= scored
        if not inside:
            return weight * energy, excess
        voxel = voxel_index(geometry, i, j, k)
        m = geometry.material[voxel]
        local = kerma and photons.range_class[row, m] <= voxel_class[voxel]
        nearest = row + (1 if next_uniform(state) < fraction else 0)
        choice = next_uniform(state)
        if choice < photons.shares[nearest, m, 0]:
            ratio, cosine = sample_compton(energy, m, photons, state)
            azimuth = 2.0 * math.pi * next_uniform(state)
            scattered = energy * ratio
            kinetic = energy - scattered
            if local:
                excess += weight * kinetic
            else:
                du, dv, dw = rotate(u, v, w, recoil_cosine(energy, kinetic), azimuth + math.pi)
                push_or_deposit(ELECTRON, kinetic, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
            u, v, w = rotate(u, v, w, cosine, azimuth)
            energy = scattered
        elif choice < photons.shares[nearest, m, 1]:
            cosine = sample_rayleigh(energy, m, photons, state)
            u, v, w = rotate(u, v, w, cosine, 2.0 * math.pi * next_uniform(state))
        elif choice < photons.shares[nearest, m, 2] or energy <= 2.0 * REST_ENERGY:
            excess += absorb(
                energy, x, y, z, u, v, w, weight, i, j, k, local, m, row, photons, voxel, tally, stack, count, state
            )
            return 0.0, excess
        else:
            produce_pair(energy, x, y, z, u, v, w, weight, i, j, k, local, m, geometry, photons, tally, stack, count, state)
            return 0.0, excess + (weight * (energy - 2.0 * REST_ENERGY) if local else 0.0)
    deposit(tally, voxel_index(geometry, i, j, k), weight * energy)
    return 0.0, excess


@njit(inline="always")
def recoil_cosine(energy, kinetic):
    """Return cos theta of the electron that a photon of E set free with `kinetic`, initially at rest."""
    if kinetic <= 0.0:
        return 0.0
    momentum = math.sqrt(kinetic * (kinetic + 2.0 * REST_ENERGY))
    return min(1.0, kinetic * (energy + REST_ENERGY) / (energy * momentum))
