"""Copies of a recorded track, flown through the voxels; see `tracks`."""

from __future__ import annotations

from numba import njit

from .electrons import cross_voxel, is_outside, nearest_face, stop
from .geometry import ELECTRON, ENERGY, KIND, PHOTON, STACKED, U, V, W, deposit, push_particle, voxel_index
from .photon_flights import voxel_indices
from .random import next_uniform
from .tracks import FLIGHT, LENGTH, MADE, RATE_ALONG, REST, RISE_ALONG, WEIGHT_OF_COPIES

REMAINDERS = 6.0
"""Of secondaries and remainders that may leave their voxel, one in so many is followed."""


@njit
def release(kind, energy, x, y, z, u, v, w, weight, several, voxel, geometry, tally, stack, count, state):
    """Put one in `several` particles on the stack, with the weight of all of them.

    Returns the energy times weight that is missing (negative: too much) until the others have had their turn.
    """
    missing = 0.0
    if several > 1.0:
        if next_uniform(state) * several > 1.0:
            return weight * energy
        missing = -(several - 1.0) * weight * energy
        weight *= several
    i, j, k = voxel_indices(geometry, voxel)
    if not push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k):
        deposit(tally, voxel, weight * energy)
    return missing


@njit
def lay_down(tracks, first, copies, geometry, electrons, tally, stack, count, state):
    """Fly a copy of the track that was recorded last.

    Parameters
    ----------
    tracks : Tracks
    first : int
        The place where it begins.
    copies : float
        Of this track; where the stack fills up, one in so many of the particles that go on from copies is followed.

    Returns
    -------
    float, float
        Energy times weight that left the grid, and what is missing for those that are followed for several, MeV.
    """
    segments, place, weight = tracks.segments, tracks.places[first], tracks.kept[WEIGHT_OF_COPIES]
    x, y, z, voxel = place[0], place[1], place[2], int(place[3])
    i, j, k = voxel_indices(geometry, voxel)
    material = geometry.material[voxel]
    density = geometry.density[voxel]
    energy, lost, missing = segments[0, ENERGY], 0.0, 0.0
    n = 0
    while True:
        p = segments[n]
        kind, own, u, v, w = int(p[KIND]), p[ENERGY], p[U], p[V], p[W]
        several = copies if count[STACKED] > stack.shape[0] // 2 else REMAINDERS
        goes_on = kind != FLIGHT
        if goes_on:
            energy -= own
            is_local = kind == ELECTRON and p[REST] < density * nearest_face(geometry, x, y, z, i, j, k)
            if kind == PHOTON and several == REMAINDERS:
                several = 1.0
        else:
            lost += energy - own
            energy = own
            kind = ELECTRON
            is_local = p[REST] < density * nearest_face(geometry, x, y, z, i, j, k)
        if not (goes_on or is_local or n == count[MADE]):
            rate, rise, goal = p[RATE_ALONG], p[RISE_ALONG], p[LENGTH]
            flown = 0.0
            while flown < goal:
                length = (goal - flown) / density
                new_x, new_y, new_z = x + u * length, y + v * length, z + w * length
                if (
                    i * geometry.dx <= new_x <= (i + 1) * geometry.dx
                    and j * geometry.dy <= new_y <= (j + 1) * geometry.dy
                    and k * geometry.dz <= new_z <= (k + 1) * geometry.dz
                ):
                    x, y, z = new_x, new_y, new_z
                    lost += (goal - flown) * (rate + rise * (goal + flown))
                    goes_on = True
                    break
                old_x, old_y, old_z = x, y, z
                x, y, z, i, j, k = cross_voxel(geometry, x, y, z, u, v, w, i, j, k)
                crossed = min(((x - old_x) * u + (y - old_y) * v + (z - old_z) * w) * density, goal - flown)
                lost += crossed * (rate + rise * (2.0 * flown + crossed))
                flown += crossed
                deposit(tally, voxel, weight * lost)
                lost = 0.0
                own = energy - flown * (rate + rise * flown)
                if is_outside(geometry, i, j, k):
                    return weight * own, missing
                voxel = voxel_index(geometry, i, j, k)
                density = geometry.density[voxel]
                if density <= 0.0 or geometry.material[voxel] != material:
                    several = several if several == copies else 1.0
                    break
                goes_on = flown >= goal
            if goes_on:
                energy -= goal * (rate + rise * goal)
                n += 1
                continue
        if is_local:
            stop(ELECTRON, own, x, y, z, weight, i, j, k, voxel, 2 * material, electrons, tally, stack, count, state)
        else:
            missing += release(kind, own, x, y, z, u, v, w, weight, several, voxel, geometry, tally, stack, count, state)
        if not goes_on:
            deposit(tally, voxel, weight * lost)
            return 0.0, missing
        n += 1
