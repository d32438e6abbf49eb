"""Electrons and positrons through the voxels: condensed history of class II with hinges.

An electron flies straight from hinge to hinge and is turned at each by the elastic and soft inelastic scattering of one step:
half of the one behind it and half of the one ahead, because scattering grows as the electron slows down. The first hinge lies
anywhere in the first step (and takes it for the one behind), the others one step apart: evenly spaced hinges give the right
spread of depth and width after several steps without any sampling of displacements, and no moment of the flight is special. The
way to the next hinge is counted in scattering strength (K1), not in cm, so that voxels of any density and material can be
crossed on the way; only a new material or a hard event calls for a new row of the tables. Soft losses are deposited along the
flight.

Hard events are Moller or Bhabha collisions and bremsstrahlung photons above the cut-offs of `ElectronTables`. An electron whose
range ends before the nearest face of its voxel is deposited there, and the photons it would still have emitted are sampled
from the yield of its remaining range. Positrons annihilate at rest or, as one more hard event, in flight (`annihilation`).

Symbols: E energy, m electron rest energy (MeV), lengths cm (g/cm2 along a step), u, v, w direction.
"""

from __future__ import annotations

import math

from numba import njit

from .annihilation import annihilate
from .electrons_deflection import SHAPE_POINTS, SHAPE_STEP
from .electrons_tables import (
    ANNIHILATION,
    BREMS,
    HARD,
    HARD_RISE,
    KAPPA_POINTS,
    MU,
    RANGE,
    RATE,
    RATE_RISE,
    REST_ENERGY,
    ROWS_PER_SHAPE,
    SPREAD,
    STEP,
    TURN,
    TURN_RISE,
)
from .geometry import (
    COPIES,
    ELECTRON,
    ENERGY,
    KIND,
    PHOTON,
    POSITRON,
    STACKED,
    U,
    V,
    W,
    deposit,
    distance_to_face,
    push_particle,
    rotate,
    voxel_index,
)
from .random import next_uniform
from .tracks import BELOW, ENDING, FLIGHT, MADE, write_flight, write_state

RESOLVED = 8.0
"""A track longer than this many voxels takes short steps: their dose shows more of its shape."""

_TWO_PI = 2 * math.pi


@njit(forceinline=True)
def transport_electron(
    kind, energy, x, y, z, u, v, w, weight, i, j, k, geometry, tables, tally, stack, count, state, segments
):  # fmt: skip
    """Follow one electron or positron until it stops or leaves the grid; return the energy times weight that left, MeV.

    Deposits go to `tally`, photons and hard secondaries to the stack. What is deposited, pushed and returned adds up to
    `energy`, plus 1.022 MeV for a positron, times `weight`.

    While `count` has COPIES the track is written to `segments` instead (see `tracks`), as one in the material of the voxel
    without end; the weight has to be 0 and the position far outside, so that nothing is deposited and no face is near.
    """
    sign = 1 if kind == POSITRON else 0
    count[MADE] = 0
    count[BELOW] = count[STACKED]
    flights = -math.log(next_uniform(state))
    to_hinge = next_uniform(state)
    length_set = -1
    hinge_mu = behind = -1.0
    voxel = voxel_index(geometry, i, j, k)
    while True:
        density = geometry.density[voxel]
        if density <= 0.0:
            x, y, z, i, j, k = cross_voxel(geometry, x, y, z, u, v, w, i, j, k)
            if is_outside(geometry, i, j, k):
                return (energy + sign * 2.0 * REST_ENERGY) * weight
            voxel = voxel_index(geometry, i, j, k)
            continue
        material = geometry.material[voxel]
        if energy < tables.absorption:
            break
        base = 2 * material + sign
        rows = tables.rows[base]
        place = (math.log(energy) - tables.log_first) * tables.rows_per_log
        n = min(int(place), rows.shape[0] - 2)
        part = place - n
        reach = (rows[n, RANGE] + part * (rows[n + 1, RANGE] - rows[n, RANGE])) / density
        edges = reach * geometry.per_edge
        if (
            count[COPIES] == 0
            and edges < 0.5
            and (edges < tables.stop_share or reach < nearest_face(geometry, x, y, z, i, j, k))
        ):
            break
        if length_set < 0:
            length_set = tables.photons.shape[0] if edges > RESOLVED else 0
        rows = tables.rows[base + length_set]
        step = rows[n, STEP] + part * (rows[n + 1, STEP] - rows[n, STEP])
        spread = rows[n, SPREAD] + part * (rows[n + 1, SPREAD] - rows[n, SPREAD])
        mu = rows[n, MU] + part * (rows[n + 1, MU] - rows[n, MU])
        rate = rows[n, RATE] + part * (rows[n + 1, RATE] - rows[n, RATE])
        rate_rise = rows[n, RATE_RISE] + part * (rows[n + 1, RATE_RISE] - rows[n, RATE_RISE])
        hard = rows[n, HARD] + part * (rows[n + 1, HARD] - rows[n, HARD])
        hard_rise = rows[n, HARD_RISE] + part * (rows[n + 1, HARD_RISE] - rows[n, HARD_RISE])
        if hinge_mu < 0.0:
            if behind > 0.0:
                u, v, w = deflect(u, v, w, 0.5 * (behind + mu), tables.shapes[base + length_set, nearest_shape(n)], state)
            behind = mu
            hinge_mu = mu
        if count[COPIES] > 0 and (write_state(segments, count, FLIGHT, energy, reach * density, u, v, w) or edges < ENDING):
            return 0.0
        turn = rows[n, TURN] + part * (rows[n + 1, TURN] - rows[n, TURN])
        turn_rise = rows[n, TURN_RISE] + part * (rows[n + 1, TURN_RISE] - rows[n, TURN_RISE])
        share = to_hinge * hinge_mu / mu
        is_short = share > 1.5
        goal = step if share == 1.0 else where(turn, turn_rise, min(share, 1.5))
        is_event = flights < goal * (hard + hard_rise * goal)
        if is_event:
            goal = min(goal, where(hard, hard_rise, flights))
        if goal != step:
            spread *= math.sqrt(goal / step)
        loss = goal * (rate + rate_rise * goal)
        factor = min(sample_loss(loss, spread, state), energy) / loss
        rate *= factor
        rate_rise *= factor
        flown = 0.0
        is_left = False
        if count[COPIES] > 0:
            write_flight(segments, count, rate, rate_rise, goal)
            flown = goal
        while not is_left and count[COPIES] == 0:
            length = (goal - flown) / density
            new_x, new_y, new_z = x + u * length, y + v * length, z + w * length
            if (
                i * geometry.dx <= new_x <= (i + 1) * geometry.dx
                and j * geometry.dy <= new_y <= (j + 1) * geometry.dy
                and k * geometry.dz <= new_z <= (k + 1) * geometry.dz
            ):
                deposit(tally, voxel, (goal - flown) * (rate + rate_rise * (goal + flown)) * weight)
                x, y, z = new_x, new_y, new_z
                flown = goal
                break
            old_x, old_y, old_z = x, y, z
            x, y, z, i, j, k = cross_voxel(geometry, x, y, z, u, v, w, i, j, k)
            crossed = min(((x - old_x) * u + (y - old_y) * v + (z - old_z) * w) * density, goal - flown)
            deposit(tally, voxel, crossed * (rate + rate_rise * (2.0 * flown + crossed)) * weight)
            flown += crossed
            if is_outside(geometry, i, j, k):
                return (energy - flown * (rate + rate_rise * flown) + sign * 2.0 * REST_ENERGY) * weight
            voxel = voxel_index(geometry, i, j, k)
            density = geometry.density[voxel]
            is_left = density <= 0.0 or geometry.material[voxel] != material
        energy -= flown * (rate + rate_rise * flown)
        if is_left or is_event or is_short:
            to_hinge = max(1e-9, to_hinge - flown * (turn + turn_rise * flown) * mu / hinge_mu)
        else:
            to_hinge = 1.0
            hinge_mu = -1.0
        if is_left or not is_event:
            flights = max(1e-12, flights - flown * (hard + hard_rise * flown))
        else:
            flights = -math.log(next_uniform(state))
            number = next_uniform(state)
            if number < rows[n, BREMS] + part * (rows[n + 1, BREMS] - rows[n, BREMS]):
                energy = emit_photon(
                    energy, x, y, z, u, v, w, weight, i, j, k, voxel, material, tables, tally, stack, count, state
                )
            elif number < rows[n, ANNIHILATION] + part * (rows[n + 1, ANNIHILATION] - rows[n, ANNIHILATION]):
                annihilate(energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count, state)
                return 0.0
            else:
                energy, u, v, w = collide(
                    kind, energy, x, y, z, u, v, w, weight, i, j, k, voxel, geometry, tables, tally, stack, count, state
                )
            if count[COPIES] > 0:
                write_births(segments, tables.rows[base], tables, stack, count)
    if count[COPIES] > 0:
        write_state(segments, count, FLIGHT, energy, 0.0, u, v, w)
        return 0.0
    stop(kind, energy, x, y, z, weight, i, j, k, voxel, 2 * material + sign, tables, tally, stack, count, state)
    return 0.0


@njit
def write_births(segments, rows, tables, stack, count):
    """Move the particles that an event put on the stack to a record."""
    while count[STACKED] > count[BELOW]:
        count[STACKED] -= 1
        p = stack[count[STACKED]]
        rest = electron_range(p[ENERGY], rows, tables) if p[KIND] == ELECTRON else 0.0
        write_state(segments, count, p[KIND], p[ENERGY], rest, p[U], p[V], p[W])
        count[MADE] += 1


@njit(inline="always")
def electron_range(energy, rows, tables):
    """CSDA range, g/cm2, from the rows of a material."""
    row = (math.log(energy) - tables.log_first) * tables.rows_per_log
    n = min(max(int(row), 0), rows.shape[0] - 2)
    return rows[n, RANGE] + (row - n) * (rows[n + 1, RANGE] - rows[n, RANGE])


@njit(inline="always")
def where(first, rise, value):
    """Solve t * (first + rise * t) = value for the smaller t."""
    return 2.0 * value / (first + math.sqrt(max(0.0, first * first + 4.0 * rise * value)))


@njit(inline="always")
def nearest_shape(row):
    """Row of `ElectronTables.shapes` for a row of energies, the last but one at most."""
    return (row + ROWS_PER_SHAPE // 2) // ROWS_PER_SHAPE


@njit(inline="always")
def is_outside(geometry, i, j, k):
    """Tell whether a voxel index lies outside the grid."""
    return i < 0 or i >= geometry.ni or j < 0 or j >= geometry.nj or k < 0 or k >= geometry.nk


@njit
def cross_voxel(geometry, x, y, z, u, v, w, i, j, k):
    """Fly to the face ahead; return the position there and the voxel behind it."""
    to_x = distance_to_face(x, u, i, geometry.dx)
    to_y = distance_to_face(y, v, j, geometry.dy)
    to_z = distance_to_face(z, w, k, geometry.dz)
    length = min(to_x, to_y, to_z)
    if to_x <= length:
        i += 1 if u > 0.0 else -1
    elif to_y <= length:
        j += 1 if v > 0.0 else -1
    else:
        k += 1 if w > 0.0 else -1
    return x + u * length, y + v * length, z + w * length, i, j, k


@njit
def deflect(u, v, w, mean, shape, state):
    """Turn a direction by a sample of mu = (1 - cos theta) / 2, given its mean and the row of `ElectronTables.shapes`."""
    place = -math.log(next_uniform(state)) / SHAPE_STEP
    n = min(int(place), SHAPE_POINTS - 2)
    mu = mean * (shape[n] + min(place - n, 1.0) * (shape[n + 1] - shape[n]))
    mu = min(mu, 1.0)
    # A point of the unit disc is a random azimuth without a sine and a cosine.
    while True:
        a = 2.0 * next_uniform(state) - 1.0
        b = 2.0 * next_uniform(state) - 1.0
        square = a * a + b * b
        if 0.0 < square < 1.0:
            break
    sine = math.sqrt(4.0 * mu * (1.0 - mu) / square)
    a *= sine
    b *= sine
    cosine = 1.0 - 2.0 * mu
    # The axes across the direction need no root (Duff et al., J. Comput. Graph. Tech. 6 (2017) 1) and keep its length.
    sign = math.copysign(1.0, w)
    p = -1.0 / (sign + w)
    q = u * v * p
    return (
        u * cosine + (1.0 + sign * u * u * p) * a + q * b,
        v * cosine + sign * q * a + (sign + v * v * p) * b,
        w * cosine - sign * u * a - v * b,
    )


@njit
def sample_loss(loss, spread, state):
    """Sample a soft loss of the given mean and standard deviation ``spread / sqrt(3)``.

    Uniform where that cannot be a gain; otherwise nothing or uniform from nothing up (short steps with few collisions).
    """
    number = next_uniform(state)
    if spread <= loss:
        return loss + spread * (2.0 * number - 1.0)
    largest = 0.5 * spread * spread / loss + 1.5 * loss
    none = 1.0 - 2.0 * loss / largest
    return max(0.0, number - none) * largest / (1.0 - none)


@njit
def nearest_face(geometry, x, y, z, i, j, k):
    """Distance to the nearest face of the voxel, cm."""
    across_x = min(x - i * geometry.dx, (i + 1) * geometry.dx - x)
    across_y = min(y - j * geometry.dy, (j + 1) * geometry.dy - y)
    across_z = min(z - k * geometry.dz, (k + 1) * geometry.dz - z)
    return min(across_x, across_y, across_z)


@njit
def stop(kind, energy, x, y, z, weight, i, j, k, voxel, place, tables, tally, stack, count, state):
    """End a particle here: bremsstrahlung or annihilation on its remaining range, annihilation at rest, the rest deposited."""
    rest = energy
    flying = 0.0
    while energy > (tables.absorption if kind == POSITRON else tables.photon_cut):
        emitting = sample_event_energy(energy, tables.photons[place], tables, state)
        if kind == POSITRON:
            flying = sample_event_energy(energy, tables.annihilations[place // 2], tables, state)
        if flying > emitting or emitting <= tables.photon_cut:
            break
        flying = 0.0
        photon = sample_photon_energy(emitting, place // 2, tables, state)
        u, v, w = isotropic(state)
        if push_particle(stack, count, PHOTON, photon, x, y, z, u, v, w, weight, i, j, k):
            rest -= photon
        energy = emitting - photon
    if kind == POSITRON:
        u, v, w = isotropic(state)
        annihilate(flying, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count, state)
    deposit(tally, voxel, (rest - flying) * weight)


@njit
def sample_event_energy(energy, numbers, tables, state):
    """Sample the energy at which the next event comes on the way to rest; 0 if none does.

    `numbers` are the mean events between rest and the energies of the rows.
    """
    row = (math.log(energy) - tables.log_first) * tables.rows_per_log
    n = min(int(row), numbers.size - 2)
    mean = numbers[n] + (row - n) * (numbers[n + 1] - numbers[n])
    number = next_uniform(state)
    if number < 1.0 - mean:  # and so below exp(-mean): nothing happens, mostly
        return 0.0
    left = mean + math.log(number)
    if left <= 0.0:
        return 0.0
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if numbers[middle] > left:
            high = middle
        else:
            low = middle
    share = (left - numbers[low]) / (numbers[high] - numbers[low])
    return min(energy, math.exp(tables.log_first + (low + share) / tables.rows_per_log))


@njit
def isotropic(state):
    """Sample an isotropic direction."""
    w = 2.0 * next_uniform(state) - 1.0
    azimuth = _TWO_PI * next_uniform(state)
    sine = math.sqrt(1.0 - w * w)
    return sine * math.cos(azimuth), sine * math.sin(azimuth), w


@njit
def collide(kind, energy, x, y, z, u, v, w, weight, i, j, k, voxel, geometry, tables, tally, stack, count, state):
    """Hard collision: put the secondary on the stack or deposit it; return energy and direction of the primary."""
    least = min(max(tables.hard_share * energy, tables.hard_least), tables.hard_most)
    largest = energy if kind == POSITRON else 0.5 * energy
    if least >= largest:
        return energy, u, v, w
    if kind == POSITRON:
        lost = energy * sample_bhabha(energy / REST_ENERGY, least / energy, state)
    else:
        lost = energy * sample_moller(energy / REST_ENERGY, least / energy, state)
    kept = energy - lost
    total = energy + 2.0 * REST_ENERGY
    azimuth = _TWO_PI * next_uniform(state)
    cosine = math.sqrt(lost * total / (energy * (lost + 2.0 * REST_ENERGY)))
    du, dv, dw = rotate(u, v, w, min(1.0, cosine), azimuth + math.pi)
    cosine = math.sqrt(max(0.0, kept) * total / (energy * (kept + 2.0 * REST_ENERGY)))
    u, v, w = rotate(u, v, w, min(1.0, cosine), azimuth)
    place = 2 * geometry.material[voxel]
    reach = electron_range(lost, tables.rows[place], tables) / geometry.density[voxel]
    is_local = reach * geometry.per_edge < tables.stop_share or reach < nearest_face(geometry, x, y, z, i, j, k)
    if is_local or not push_particle(stack, count, ELECTRON, lost, x, y, z, du, dv, dw, weight, i, j, k):
        stop(ELECTRON, lost, x, y, z, weight, i, j, k, voxel, place, tables, tally, stack, count, state)
    return kept, u, v, w


@njit
def sample_moller(tau, least, state):
    """Sample the share of the energy lost in a Moller collision, between `least` and 1/2; tau = E/m."""
    a = (tau / (tau + 1.0)) ** 2
    bound = 1.0 + 1.25 * a
    while True:
        share = least / (1.0 - next_uniform(state) * (1.0 - 2.0 * least))
        rest = share / (1.0 - share)
        if next_uniform(state) * bound < 1.0 + rest * rest - rest + a * (share * share + rest):
            return share


@njit
def sample_bhabha(tau, least, state):
    """Sample the share of the energy lost in a Bhabha collision, between `least` and 1; tau = E/m."""
    beta2 = tau * (tau + 2.0) / (tau + 1.0) ** 2
    y = 1.0 / (tau + 2.0)
    b4 = (1.0 - 2.0 * y) ** 3
    b3 = (1.0 - 2.0 * y) ** 2 + b4
    b2 = (1.0 - 2.0 * y) * (3.0 + y * y)
    b1 = 2.0 - y * y
    while True:
        share = least / (1.0 - next_uniform(state) * (1.0 - least))
        if next_uniform(state) < 1.0 - beta2 * share * (b1 - share * (b2 - share * (b3 - share * b4))):
            return share


@njit
def emit_photon(energy, x, y, z, u, v, w, weight, i, j, k, voxel, material, tables, tally, stack, count, state):
    """Emit a bremsstrahlung photon; return the energy that the electron keeps. Its direction does not change."""
    if energy <= tables.photon_cut:
        return energy
    photon = sample_photon_energy(energy, material, tables, state)
    # Dipole radiation of the electron's rest frame seen from the laboratory.
    number = 2.0 * next_uniform(state) - 1.0
    root = (4.0 * abs(number) + math.sqrt(16.0 * number * number + 4.0)) / 2.0
    cosine = root ** (1.0 / 3.0) - root ** (-1.0 / 3.0)
    cosine = cosine if number > 0.0 else -cosine
    beta = math.sqrt(energy * (energy + 2.0 * REST_ENERGY)) / (energy + REST_ENERGY)
    cosine = min(1.0, max(-1.0, (cosine + beta) / (1.0 + beta * cosine)))
    pu, pv, pw = rotate(u, v, w, cosine, _TWO_PI * next_uniform(state))
    if not push_particle(stack, count, PHOTON, photon, x, y, z, pu, pv, pw, weight, i, j, k):
        deposit(tally, voxel, photon * weight)
    return energy - photon


@njit
def sample_photon_energy(energy, material, tables, state):
    """Sample the energy of a bremsstrahlung photon above the cut-off from k dsigma/dk."""
    spectrum = tables.spectrum[material]
    row = (math.log(energy) - tables.log_first) * tables.rows_per_log
    n = min(int(row + 0.5), spectrum.shape[0] - 1)
    ratio = math.log(energy / tables.photon_cut)
    while True:
        photon = tables.photon_cut * math.exp(ratio * next_uniform(state))
        place = photon / energy * (KAPPA_POINTS - 1)
        m = min(int(place), KAPPA_POINTS - 2)
        if next_uniform(state) < spectrum[n, m] + (place - m) * (spectrum[n, m + 1] - spectrum[n, m]):
            return min(photon, energy)
