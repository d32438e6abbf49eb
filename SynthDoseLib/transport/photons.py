"""Photons: flights through voxels, and what happens where one ends.

A kernel for each process. Symbols as in `tables`; directions and positions as in `geometry`. Electrons and positrons are put on
the stack with the energy they get; binding energy is given to the electron, but for followed fluorescence.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .electrons import nearest_face, stop
from .electrons_tables import RANGE
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
STEPS_PER_CM = float(2**36)
"""Flights through voxels are measured in whole steps of 1.5e-11 cm."""


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
def set_free(
    kinetic, cosine, a, b, x, y, z, u, v, w, weight, i, j, k, voxel, material, geometry, electrons, tally, stack, count, state
):
    """Put an electron on the stack, or end it here if it cannot leave the voxel; u, v, w is the direction of the photon."""
    if ends_here(kinetic, x, y, z, i, j, k, voxel, material, geometry, electrons):
        stop(ELECTRON, kinetic, x, y, z, weight, i, j, k, voxel, 2 * material, electrons, tally, stack, count, state)
    else:
        du, dv, dw = turn(u, v, w, cosine, a, b)
        push_or_deposit(ELECTRON, kinetic, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)


@njit(inline="always")
def ends_here(kinetic, x, y, z, i, j, k, voxel, material, geometry, electrons):
    """Whether an electron's range is less than the distance to the nearest face, or negligible: see `transport_electron`."""
    if kinetic < electrons.absorption:
        return True
    rows = electrons.rows[2 * material]
    place = (math.log(kinetic) - electrons.log_first) * electrons.rows_per_log
    n = min(int(place), rows.shape[0] - 2)
    reach = (rows[n, RANGE] + (place - n) * (rows[n + 1, RANGE] - rows[n, RANGE])) / geometry.density[voxel]
    return reach < electrons.stop_share * min(geometry.dx, geometry.dy, geometry.dz) or reach < nearest_face(
        geometry, x, y, z, i, j, k
    )


@njit
def push_or_deposit(kind, energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count):
    """Put a particle on the stack; when it is full its energy stays where it is."""
    if not push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k):
        deposit(tally, voxel, weight * (energy + (2.0 * REST_ENERGY if kind == POSITRON else 0.0)))


@njit
def absorb(
    energy, x, y, z, u, v, w, weight, i, j, k, local, material, row, geometry, photons, electrons, voxel, tally, stack, count,
    state,
):  # fmt: skip
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
        if ends_here(kinetic, x, y, z, i, j, k, voxel, material, geometry, electrons):
            stop(ELECTRON, kinetic, x, y, z, weight, i, j, k, voxel, 2 * material, electrons, tally, stack, count, state)
        else:
            cosine = sample_photoelectron(kinetic, state)
            a, b = random_azimuth(state)
            du, dv, dw = turn(u, v, w, cosine, a, b)
            push_or_deposit(ELECTRON, kinetic, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
    return 0.0


@njit(inline="always")
def energy_row(energy, photons):
    """Row of the tables below E, and the share of the way to the next."""
    place = (math.log(energy) - photons.log_first) * photons.rows_per_log
    row = min(max(int(place), 0), _LAST_ROW)
    return row, place - row


@njit(inline="always")
def faces_ahead(position, direction, index, size, voxels):
    """Along one axis: path between faces, to the first face and to the grid's exit, all in fixed point, and the index's turn.

    A flight along the faces meets none: its direction is taken for one by 1e-6, which puts them out of reach.
    """
    slope = STEPS_PER_CM / (direction if abs(direction) > 1e-6 else 1e-6)
    pace = np.int64(size * abs(slope))
    if slope > 0.0:
        face = np.int64(max(0.0, ((index + 1) * size - position) * slope))
        return pace, face, face + (voxels - 1 - index) * pace, 1
    face = np.int64(max(0.0, (index * size - position) * slope))
    return pace, face, face + index * pace, -1


@njit(inline="always")
def fly(x, y, z, u, v, w, i, j, k, paths, weight, row, fraction, geometry, photons, voxel_class, kerma, tally):
    """Fly `paths` mean free paths; return whether the flight ended inside, where, and the energy scored on the way.

    Where electrons are local the energy that the photon transfers on average along its track is scored (track-length
    estimator of the collision kerma). Voxels are counted, not searched (Amanatides and Woo, Eurographics '87, 3), by paths in
    fixed point: which face comes first cannot be foreseen, and whole numbers choose without a branch.
    """
    pace_i, next_i, exit_i, turn_i = faces_ahead(x, u, i, geometry.dx, geometry.ni)
    pace_j, next_j, exit_j, turn_j = faces_ahead(y, v, j, geometry.dy, geometry.nj)
    pace_k, next_k, exit_k, turn_k = faces_ahead(z, w, k, geometry.dz, geometry.nk)
    row_stride = geometry.ni * turn_j
    slice_stride = geometry.ni * geometry.nj * turn_k
    leaves = min(exit_i, exit_j, exit_k)
    voxel = voxel_index(geometry, i, j, k)
    last = -1  # material of the coefficients at hand
    attenuation, transfer, needed = 0.0, 0.0, 255
    travelled = np.int64(0)
    scored, mu = 0.0, 0.0
    while True:
        reached = min(next_i, next_j, next_k)
        density = np.float64(geometry.density[voxel])
        m = np.int64(geometry.material[voxel])
        if m != last:
            last = m
            attenuation = photons.steps[row, m, TOTAL] + fraction * photons.steps[row, m, TOTAL_SLOPE]
            attenuation /= STEPS_PER_CM
            transfer = photons.steps[row, m, TRANSFER] + fraction * photons.steps[row, m, TRANSFER_SLOPE]
            transfer *= weight / STEPS_PER_CM
            needed = np.int64(photons.range_class[row, m]) if kerma else 255
        length = np.float64(reached - travelled)
        mu = density * attenuation
        depth = mu * length
        if depth >= paths:
            break
        if kerma and needed <= voxel_class[voxel]:
            energy = density * transfer * length
            deposit(tally, voxel, energy)
            scored += energy
        if reached >= leaves:
            return False, x, y, z, i, j, k, scored
        paths -= depth
        travelled = reached
        is_i = -np.int64(next_i <= reached)
        is_j = -np.int64(next_j <= reached) & ~is_i
        is_k = ~(is_i | is_j)
        voxel += (turn_i & is_i) + (row_stride & is_j) + (slice_stride & is_k)
        next_i += pace_i & is_i
        next_j += pace_j & is_j
        next_k += pace_k & is_k
    length = paths / mu
    if kerma and needed <= voxel_class[voxel]:
        energy = density * transfer * length
        deposit(tally, voxel, energy)
        scored += energy
    length = (travelled + length) / STEPS_PER_CM
    k = voxel // (geometry.ni * geometry.nj)
    rest = voxel - k * geometry.ni * geometry.nj
    j = rest // geometry.ni
    return True, x + u * length, y + v * length, z + w * length, rest - j * geometry.ni, j, k, scored


@njit(inline="always")
def random_azimuth(state):
    """Cosine and sine of a random angle, from a point of the unit disc."""
    while True:
        a = 2.0 * next_uniform(state) - 1.0
        b = 2.0 * next_uniform(state) - 1.0
        square = a * a + b * b
        if 0.0 < square < 1.0:
            scale = 1.0 / math.sqrt(square)
            return a * scale, b * scale


@njit(inline="always")
def turn(u, v, w, cosine, a, b):
    """Turn a unit vector by a polar angle and an azimuth (its cosine a and sine b); return the new unit vector.

    The axes across it: Duff et al., J. Comput. Graph. Tech. 6 (2017) 1.
    """
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    a *= sine
    b *= sine
    sign = math.copysign(1.0, w)
    p = -1.0 / (sign + w)
    q = u * v * p
    return (
        u * cosine + (1.0 + sign * u * u * p) * a + q * b,
        v * cosine + sign * q * a + (sign + v * v * p) * b,
        w * cosine - sign * u * a - v * b,
    )


@njit
def transport_photon(
    energy, x, y, z, u, v, w, weight, i, j, k, geometry, photons, electrons, voxel_class, kerma, tally, stack, count, state
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
    geometry : Geometry; photons : PhotonTables; electrons : ElectronTables
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
            a, b = random_azimuth(state)
            scattered = energy * ratio
            kinetic = energy - scattered
            if local:
                excess += weight * kinetic
            else:
                set_free(
                    kinetic, recoil_cosine(energy, kinetic), -a, -b, x, y, z, u, v, w, weight, i, j, k, voxel, m, geometry,
                    electrons, tally, stack, count, state,
                )  # fmt: skip
            u, v, w = turn(u, v, w, cosine, a, b)
            energy = scattered
        elif choice < photons.shares[nearest, m, 1]:
            cosine = sample_rayleigh(energy, m, photons, state)
            a, b = random_azimuth(state)
            u, v, w = turn(u, v, w, cosine, a, b)
        elif choice < photons.shares[nearest, m, 2] or energy <= 2.0 * REST_ENERGY:
            excess += absorb(
                energy, x, y, z, u, v, w, weight, i, j, k, local, m, row, geometry, photons, electrons, voxel, tally, stack,
                count, state,
            )  # fmt: skip
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
