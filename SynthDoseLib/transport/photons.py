"""Photons: what their collisions set free, what they score on their way, and their life from collision to collision.

A kernel for each process. Symbols as in `tables`; directions and positions as in `geometry`. Electrons and positrons are put on
the stack with the energy they get; binding energy is given to the electron, but for followed fluorescence.

Two estimators. Analog: a collision sets its electrons free. On the way (`score_flight`): where electrons are local (see
`locality`) the collision kerma is scored by track length; elsewhere electrons are set free at even distances all along the
flight, more of them than collisions would, of equal energy times weight, and the collision itself then sets none free; voxels
thicker than a mean free path are left to the collisions, which tell more there than the way to them. Electrons that are long to
the voxels are copies of one, as far as the photon flies in one material (see `tracks`). The expected weight of electrons per
path, energy and direction is that of analog collisions, so that the second part is unbiased everywhere, and the first where
electrons are local.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .electrons import electron_range, nearest_face, stop
from .geometry import (
    COPIED,
    COPIES,
    ELECTRON,
    OPEN,
    PHOTON,
    PLACED,
    POSITRON,
    STACK_SIZE,
    STACKED,
    Y,
    deposit,
    push_particle,
    voxel_index,
)
from .photon_collisions import (
    sample_compton,
    sample_pair_cosine,
    sample_pair_share,
    sample_photoelectron,
    sample_rayleigh,
)
from .photon_flights import STEPS_PER_CM, energy_row, faces_ahead, fly, random_azimuth, turn, voxel_indices
from .random import next_uniform
from .sampling import isotropic_direction
from .tables import E_LOWEST, REST_ENERGY, TOTAL, TOTAL_SLOPE, TRANSFER, TRANSFER_SLOPE
from .tracks import WEIGHT_OF_COPIES

OPAQUE = 1.0  # mean free paths
BY_COMPTON, BY_PAIR = -3, -2
FILLING, CROSSING, MOST_ELECTRONS = 0.6, 6.0, 12.0
"""See `electrons_per_collision`: they decide about time and variance, not about the dose."""

LONG_SHARE, COPIES_PER_RANGE, MOST_COPIES = 0.4, 1.0, 32.0
"""Electrons whose mean range is more than this share of a voxel are copied, so many for a range and a voxel; the most copies of
one, and for one collision."""


@njit
def push_or_deposit(kind, energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count):
    """Put a particle on the stack; when it is full its energy stays where it is."""
    if not push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k):
        deposit(tally, voxel, weight * (energy + (2.0 * REST_ENERGY if kind == POSITRON else 0.0)))


@njit
def set_free(
    kinetic, cosine, a, b, x, y, z, u, v, w, weight, i, j, k, voxel, material, geometry, electrons, tally, stack, count, state
):
    """Put an electron on the stack, or end it here if its range is less than the way to the nearest face, or negligible.

    The direction of the photon is u, v, w; the azimuth has cosine a and sine b, and is drawn if both are 0. See
    `transport_electron`.
    """
    if kinetic >= electrons.absorption:
        reach = electron_range(kinetic, electrons.rows[2 * material], electrons) / geometry.density[voxel]
        if reach * geometry.per_edge >= electrons.stop_share and reach >= nearest_face(geometry, x, y, z, i, j, k):
            if a == 0.0 and b == 0.0:
                a, b = random_azimuth(state)
            du, dv, dw = turn(u, v, w, cosine, a, b)
            push_or_deposit(ELECTRON, kinetic, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)
            return
        if kinetic > electrons.photon_cut:
            stop(ELECTRON, kinetic, x, y, z, weight, i, j, k, voxel, 2 * material, electrons, tally, stack, count, state)
            return
    deposit(tally, voxel, weight * kinetic)


@njit(inline="always")
def recoil_cosine(energy, kinetic):
    """Return cos theta of the electron that a photon of E set free with `kinetic`, initially at rest."""
    if kinetic <= 0.0:
        return 0.0
    momentum = math.sqrt(kinetic * (kinetic + 2.0 * REST_ENERGY))
    return min(1.0, kinetic * (energy + REST_ENERGY) / (energy * momentum))


@njit(inline="always")
def sample_line(material, row, photons, state):
    """Number of the fluorescence line that follows a photoelectric event, -1 for none that is followed."""
    first, last = photons.line_offset[material], photons.line_offset[material + 1]
    if last > first:
        chance = next_uniform(state)
        for line in range(first, last):
            chance -= photons.line_probability[line, row]
            if chance < 0.0:
                return line
    return -1


@njit
def push_quantum(energy, both, x, y, z, weight, i, j, k, voxel, tally, stack, count, state):
    """Put an isotropic photon on the stack, or, with `both`, two that fly apart."""
    u, v, w = isotropic_direction(next_uniform(state), next_uniform(state))
    push_or_deposit(PHOTON, energy, x, y, z, u, v, w, weight, i, j, k, voxel, tally, stack, count)
    if both:
        push_or_deposit(PHOTON, energy, x, y, z, -u, -v, -w, weight, i, j, k, voxel, tally, stack, count)


@njit(inline="always")
def photoelectron_energy(energy, line, weight, voxel, photons, tally):
    """Kinetic energy of the photoelectron of an event that `line` followed; what its Auger electrons get stays here."""
    if line < 0:
        return energy
    deposit(tally, voxel, weight * (photons.line_edge[line] - photons.line_energy[line]))
    return energy - photons.line_edge[line]


@njit(inline="always")
def set_pair_free(energy, x, y, z, u, v, w, weight, i, j, k, voxel, material, photons, tally, stack, count, state):
    """Electron and positron of pair production; that of the field of an electron is not told apart."""
    kinetic = energy - 2.0 * REST_ENERGY
    share = sample_pair_share(energy, photons.pair_screening[material], photons.pair_log[material], state)
    first = min(kinetic, max(0.0, share * energy - REST_ENERGY))
    for kind, own in ((ELECTRON, first), (POSITRON, kinetic - first)):
        cosine = sample_pair_cosine(own, state) if own > 0.0 else 1.0
        a, b = random_azimuth(state)
        du, dv, dw = turn(u, v, w, cosine, a, b)
        push_or_deposit(kind, own, x, y, z, du, dv, dw, weight, i, j, k, voxel, tally, stack, count)


@njit(inline="always")
def draw_transfer(energy, material, row, fraction, photons, state):
    """Draw a collision in proportion to the energy that it gives to electrons.

    Returns that energy, and the number of the fluorescence line that followed a photoelectric event, -1 for none, or
    BY_COMPTON or BY_PAIR.
    """
    while True:
        nearest = row + (1 if next_uniform(state) < fraction else 0)
        choice = next_uniform(state)
        if choice < photons.shares[nearest, material, 0]:
            ratio, _ = sample_compton(energy, material, photons.incoherent, state)
            process, given = BY_COMPTON, energy * (1.0 - ratio)
        elif choice < photons.shares[nearest, material, 1]:
            continue
        elif choice < photons.shares[nearest, material, 2] or energy <= 2.0 * REST_ENERGY:
            process = sample_line(material, row, photons, state)
            given = energy - (photons.line_energy[process] if process >= 0 else 0.0)
        else:
            process, given = BY_PAIR, energy - 2.0 * REST_ENERGY
        if next_uniform(state) * energy < given:
            return given, process


@njit(inline="always")
def collide_in_passing(
    energy, x, y, z, u, v, w, brought, voxel, row, fraction, geometry, photons, electrons, tally, stack, count, state
):
    """Set free what electrons a collision here would, while the photon flies on; return their energy times weight.

    Collisions weigh the less the more energy they give to electrons, and are drawn in proportion to it (`draw_transfer`): all
    give the same energy times weight, `brought`. That of a pair has its rest energy besides.
    """
    material = geometry.material[voxel]
    given, process = draw_transfer(energy, material, row, fraction, photons, state)
    weight = brought / given
    i, j, k = voxel_indices(geometry, voxel)
    if process == BY_PAIR:
        set_pair_free(energy, x, y, z, u, v, w, weight, i, j, k, voxel, material, photons, tally, stack, count, state)
        return weight * energy
    if process == BY_COMPTON:
        kinetic, cosine = given, recoil_cosine(energy, given)
    else:
        kinetic = photoelectron_energy(energy, process, weight, voxel, photons, tally)
        cosine = sample_photoelectron(kinetic, state) if kinetic > 0.0 else 1.0
    set_free(
        kinetic, cosine, 0.0, 0.0, x, y, z, u, v, w, weight, i, j, k, voxel, material, geometry, electrons, tally, stack, count,
        state,
    )  # fmt: skip
    return brought


@njit
def note_place(energy, x, y, z, u, v, w, brought, voxel, geometry, places, stack, count):
    """Let the collision of the flight that waits on the stack happen here, too; return False where that cannot be.

    It is drawn when its turn comes (`draw_copied`). A particle COPIED is the photon before the collision; X is the first of its
    places, Y their number, and its weight what it brings to each of them, as energy times weight.
    """
    if count[PLACED] >= places.shape[0]:
        return False
    if count[OPEN] < 0 or stack[count[OPEN], Y] >= MOST_COPIES:
        i, j, k = voxel_indices(geometry, voxel)
        if not push_particle(stack, count, COPIED, energy, count[PLACED], 0, 0, u, v, w, brought, i, j, k):
            return False
        count[OPEN] = count[STACKED] - 1
    place = places[count[PLACED]]
    place[0] = x
    place[1] = y
    place[2] = z
    place[3] = voxel
    count[PLACED] += 1
    stack[count[OPEN], Y] += 1.0
    return True


@njit
def draw_copied(energy, u, v, w, brought, first, copies, geometry, photons, tracks, tally, stack, count, state):
    """Draw the collision that happens at several places; see `note_place`, `collide_in_passing`.

    A pair is set free for all of them at one.

    Returns
    -------
    float, float, float, float
        Energy and direction of the electron to copy.
    float
        Rest energy times weight of pairs, MeV.
    """
    row, fraction = energy_row(energy, photons)
    material = geometry.material[int(tracks.places[first, 3])]
    given, process = draw_transfer(energy, material, row, fraction, photons, state)
    weight = brought / given
    if process == BY_PAIR:
        place = tracks.places[first + min(int(next_uniform(state) * copies), copies - 1)]
        voxel = int(place[3])
        i, j, k = voxel_indices(geometry, voxel)
        set_pair_free(
            energy, place[0], place[1], place[2], u, v, w, weight * copies, i, j, k, voxel, material, photons, tally, stack,
            count, state,
        )  # fmt: skip
        return 0.0, u, v, w, weight * copies * 2.0 * REST_ENERGY
    kinetic, cosine = given, recoil_cosine(energy, given)
    if process != BY_COMPTON:
        for n in range(first, first + copies):
            kinetic = photoelectron_energy(energy, process, weight, int(tracks.places[n, 3]), photons, tally)
        cosine = sample_photoelectron(kinetic, state) if kinetic > 0.0 else 1.0
    a, b = random_azimuth(state)
    u, v, w = turn(u, v, w, cosine, a, b)
    tracks.kept[WEIGHT_OF_COPIES] = weight
    count[COPIES] = copies
    return kinetic, u, v, w, 0.0


@njit(inline="always")
def is_long(reach, density, geometry):
    """Whether electrons of this range, g/cm2, are long to a voxel of this density, so that copies pay."""
    return reach * geometry.per_edge > LONG_SHARE * density


@njit(inline="always")
def electrons_per_collision(mass_attenuation, reach, density, geometry):
    """How many electrons to set free along a flight for one of a collision, so that it pays.

    That would be one for each voxel on the way if electrons stayed in it and cost nothing; those that cross several cost the
    more time the more they cross, and tell about all of these. Copies cost little.
    """
    size = density / geometry.per_edge
    if is_long(reach, density, geometry):
        return min(MOST_COPIES, max(1.0, COPIES_PER_RANGE / (mass_attenuation * (size + reach))))
    return min(MOST_ELECTRONS, max(1.0, FILLING / (mass_attenuation * (size + CROSSING * reach))))


@njit(inline="always")
def is_opaque(mu, geometry):
    """Whether a voxel is thicker than OPAQUE mean free paths; mu in 1/cm."""
    return mu > OPAQUE * geometry.per_edge


@njit(inline="always")
def score_flight(
    energy, x, y, z, u, v, w, i, j, k, paths, weight, row, fraction, geometry, photons, electrons, voxel_class, places, tally,
    stack, count, state,
):  # fmt: skip
    """As `fly`, and score on the way; return also the energy scored or given to electrons that were set free.

    Where electrons are local, the energy that the photon transfers on average along its track (track-length estimator of the
    collision kerma). Elsewhere electrons are set free at even distances, `many` to a mean free path, the first of a flight
    after a random share `wanted` of such a distance, so that each place is as likely as any.
    """
    pace_i, next_i, exit_i, turn_i = faces_ahead(x, u, i, geometry.dx, geometry.ni)
    pace_j, next_j, exit_j, turn_j = faces_ahead(y, v, j, geometry.dy, geometry.nj)
    pace_k, next_k, exit_k, turn_k = faces_ahead(z, w, k, geometry.dz, geometry.nk)
    row_stride = geometry.ni * turn_j
    slice_stride = geometry.ni * geometry.nj * turn_k
    leaves = min(exit_i, exit_j, exit_k)
    voxel = voxel_index(geometry, i, j, k)
    last = -1  # material of the coefficients at hand
    attenuation, transfer, needed, many = 0.0, 0.0, 255, 1.0
    travelled = np.int64(0)
    scored, mu, wanted = 0.0, 0.0, next_uniform(state)
    # decided before the flight, because even distances allow no choice on the way that depends on what was set free on it
    crowded = count[STACKED] > STACK_SIZE // 4
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
            needed = np.int64(photons.range_class[row, m])
            many = 1.0
            if not crowded:
                many = electrons_per_collision(attenuation * STEPS_PER_CM, photons.reach[row, m], density, geometry)
            count[OPEN] = -1
        length = np.float64(reached - travelled)
        mu = density * attenuation
        depth = mu * length
        stretch = min(depth, paths)
        if is_opaque(mu * STEPS_PER_CM, geometry):
            pass
        elif needed <= voxel_class[voxel]:
            if depth >= paths:
                break
            given = density * transfer * length
            deposit(tally, voxel, given)
            scored += given
        elif many * stretch < wanted:
            wanted -= many * stretch
        else:
            wanted /= many
            while wanted < stretch:
                length = (travelled + wanted / mu) / STEPS_PER_CM
                brought = transfer / (attenuation * many)
                at_x, at_y, at_z = x + u * length, y + v * length, z + w * length
                if is_long(photons.reach[row, m], density, geometry) and note_place(
                    energy, at_x, at_y, at_z, u, v, w, brought, voxel, geometry, places, stack, count
                ):
                    scored += brought
                else:
                    scored += collide_in_passing(
                        energy, at_x, at_y, at_z, u, v, w, brought, voxel, row, fraction, geometry, photons, electrons, tally,
                        stack, count, state,
                    )  # fmt: skip
                wanted += 1.0 / many
            wanted = (wanted - stretch) * many
        if depth >= paths:
            break
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
    if not is_opaque(mu * STEPS_PER_CM, geometry) and needed <= voxel_class[voxel]:
        given = density * transfer * length
        deposit(tally, voxel, given)
        scored += given
    length = (travelled + length) / STEPS_PER_CM
    i, j, k = voxel_indices(geometry, voxel)
    return True, x + u * length, y + v * length, z + w * length, i, j, k, scored


@njit(forceinline=True)
def transport_photon(
    energy,
    x,
    y,
    z,
    u,
    v,
    w,
    weight,
    i,
    j,
    k,
    geometry,
    photons,
    electrons,
    voxel_class,
    kerma,
    places,
    tally,
    stack,
    count,
    number,
    state,
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
        Whether to score on the way; otherwise collisions set their electrons free (analog).
    places : ndarray of float64, (PLACES, 4)
        See `tracks`.
    tally : ndarray of int64, (voxels,)
    stack, count, state : ndarray
        See `push_particle`, `next_uniform`.

    Returns
    -------
    left : float
        Energy times weight that left the grid, MeV.
    excess : float
        Energy times weight that electrons would have got in the collisions of this photon, less what was scored or set free on
        its way, MeV: zero on average, and 0 where `kerma` is false.
    """
    excess = 0.0
    while energy > E_LOWEST:
        row, fraction = energy_row(energy, photons)
        paths = -math.log(number if number > 0.0 else next_uniform(state))
        number = 0.0
        if kerma:
            inside, x, y, z, i, j, k, scored = score_flight(
                energy, x, y, z, u, v, w, i, j, k, paths, weight, row, fraction, geometry, photons, electrons, voxel_class,
                places, tally, stack, count, state,
            )  # fmt: skip
            excess -= scored
        else:
            inside, x, y, z, i, j, k = fly(x, y, z, u, v, w, i, j, k, paths, row, fraction, geometry, photons)
        if not inside:
            return weight * energy, excess
        voxel = voxel_index(geometry, i, j, k)
        m = geometry.material[voxel]
        mu = geometry.density[voxel] * (photons.steps[row, m, TOTAL] + fraction * photons.steps[row, m, TOTAL_SLOPE])
        scored_before = kerma and not is_opaque(mu, geometry)
        nearest = row + (1 if next_uniform(state) < fraction else 0)
        choice = next_uniform(state)
        if choice < photons.shares[nearest, m, 0]:
            ratio, cosine = sample_compton(energy, m, photons.incoherent, state)
            a, b = random_azimuth(state)
            scattered = energy * ratio
            kinetic = energy - scattered
            if scored_before:
                excess += weight * kinetic
            else:
                set_free(
                    kinetic, recoil_cosine(energy, kinetic), -a, -b, x, y, z, u, v, w, weight, i, j, k, voxel, m, geometry,
                    electrons, tally, stack, count, state,
                )  # fmt: skip
            u, v, w = turn(u, v, w, cosine, a, b)
            energy = scattered
        elif choice < photons.shares[nearest, m, 1]:
            cosine = sample_rayleigh(energy, m, photons.form_x2, photons.form_sum, state)
            a, b = random_azimuth(state)
            u, v, w = turn(u, v, w, cosine, a, b)
        elif choice < photons.shares[nearest, m, 2] or energy <= 2.0 * REST_ENERGY:
            line = sample_line(m, row, photons, state)
            quantum = photons.line_energy[line] if line >= 0 else 0.0
            if line >= 0:
                push_quantum(quantum, False, x, y, z, weight, i, j, k, voxel, tally, stack, count, state)
            if scored_before:
                return 0.0, excess + weight * (energy - quantum)
            kinetic = photoelectron_energy(energy, line, weight, voxel, photons, tally)
            if kinetic > 0.0:
                set_free(
                    kinetic, sample_photoelectron(kinetic, state), 0.0, 0.0, x, y, z, u, v, w, weight, i, j, k, voxel, m,
                    geometry, electrons, tally, stack, count, state,
                )  # fmt: skip
            return 0.0, excess
        elif scored_before and photons.range_class[row, m] <= voxel_class[voxel]:
            push_quantum(REST_ENERGY, True, x, y, z, weight, i, j, k, voxel, tally, stack, count, state)
            return 0.0, excess + weight * (energy - 2.0 * REST_ENERGY)
        elif scored_before:
            return 0.0, excess + weight * energy
        else:
            set_pair_free(energy, x, y, z, u, v, w, weight, i, j, k, voxel, m, photons, tally, stack, count, state)
            return 0.0, excess
    deposit(tally, voxel_index(geometry, i, j, k), weight * energy)
    return 0.0, excess
