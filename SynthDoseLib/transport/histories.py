"""The life of a history: from the decay to the last of its secondaries."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .alphas import AlphaTables, transport_alpha
from .electrons import transport_electron
from .electrons_tables import ElectronTables
from .geometry import (
    COPIED,
    COPIES,
    ELECTRON,
    ENERGY,
    KIND,
    PHOTON,
    PLACED,
    POSITRON,
    STACKED,
    VOXEL_I,
    VOXEL_J,
    VOXEL_K,
    WEIGHT,
    Geometry,
    U,
    V,
    W,
    X,
    Y,
    Z,
    add_whole,
    push_particle,
)
from .photons import draw_copied, transport_photon
from .random import begin_lattice, lattice_point, next_uniform, seed_history
from .sampling import entry_of, start_particle
from .sources import SourceTables
from .tables import REST_ENERGY, PhotonTables
from .track_copies import lay_down
from .tracks import FIRST_FLIGHT, WEIGHT_OF_HISTORY

ALPHA = 3
EMITTED, ESCAPED, EXCESS = range(3)
"""Totals of a run of histories, energies times weight; for the last see `transport_photon`."""

FAR = -1e30  # cm

LEAST_WEIGHT = 0.99
"""Photons of less, as a share of the weight of their history, meet Russian roulette."""

TOTALS_PER_MEV = float(2**33)
"""Totals are int64 in fixed point, as tallies are: 0.1 meV steps, 1e9 MeV at most in a batch."""


class Tables(NamedTuple):
    """Everything that kernels read and histories do not change, beside the spectrum.

    Attributes
    ----------
    voxel_class, kerma
        See `transport_photon`.
    """

    source: SourceTables
    geometry: Geometry
    photons: PhotonTables
    electrons: ElectronTables
    alphas: AlphaTables
    voxel_class: NDArray[np.uint8]
    kerma: bool


@njit
def enter_grid(x, y, z, u, v, w, geometry):
    """Return whether a particle is in the grid or flies into it, where it gets there, and the voxel."""
    i = np.int64(math.floor(x / geometry.dx))
    j = np.int64(math.floor(y / geometry.dy))
    k = np.int64(math.floor(z / geometry.dz))
    if 0 <= i < geometry.ni and 0 <= j < geometry.nj and 0 <= k < geometry.nk:
        return True, x, y, z, i, j, k
    near, far = slab_hits(x, u, geometry.ni * geometry.dx, 0.0, 1e30)
    near, far = slab_hits(y, v, geometry.nj * geometry.dy, near, far)
    near, far = slab_hits(z, w, geometry.nk * geometry.dz, near, far)
    if near >= far:
        return False, x, y, z, i, j, k
    x, y, z = x + near * u, y + near * v, z + near * w
    i = min(max(np.int64(math.floor(x / geometry.dx)), 0), geometry.ni - 1)
    j = min(max(np.int64(math.floor(y / geometry.dy)), 0), geometry.nj - 1)
    k = min(max(np.int64(math.floor(z / geometry.dz)), 0), geometry.nk - 1)
    return True, x, y, z, i, j, k


@njit
def slab_hits(position, direction, size, near, far):
    """Narrow the stretch (near, far) of a ray to what lies between 0 and `size` on one axis."""
    if abs(direction) < 1e-15:
        if position < 0.0 or position > size:
            return 1.0, 0.0
        return near, far
    first = -position / direction
    second = (size - position) / direction
    return max(near, min(first, second)), min(far, max(first, second))


@njit(inline="always")
def fixed_total(energy):
    """Energy, MeV, in steps of the totals; of either sign."""
    return np.int64(math.floor(energy * TOTALS_PER_MEV + 0.5))


@njit(nogil=True, cache=True, _nrt=False, error_model="numpy")
def run_histories(
    first, last, step, seed, stream, batch, kind, weight, spectrum, tables, tally, stack, count, state, tracks, counts, totals
):  # fmt: skip
    """Follow every `step`-th history from `first` to `last` (excluded) of one group of emissions, one after the other.

    A thread of the CPU follows all of a range, one of a GPU those that its number and `step` give it; what they add to is the
    same `tally`, `counts` and `totals`, and what belongs to a thread is passed in.

    Parameters
    ----------
    first, last, step : int64
        Numbers of histories; the number fixes the random stream.
    seed, stream, batch : uint64
        Of the run, of the group, and of the batch, which has a lattice of its own: see `lattice_point`.
    kind : int
        PHOTON, ELECTRON, POSITRON or ALPHA.
    weight : float
        Of each history.
    spectrum : Spectrum
    tables : Tables
    tally : ndarray of int64, (voxels,)
        See `deposit`.
    stack : ndarray of float64, (STACK_SIZE, 12)
    count : ndarray of int64, (COUNTS,)
        All 0 between histories.
    state : ndarray of uint64, (7,)
        See `next_uniform`, `begin_lattice`.
    tracks : Tracks
    counts : ndarray of int64, (emissions,)
        Histories per emission are added.
    totals : ndarray of int64, (3,)
        EMITTED, ESCAPED, EXCESS are added, in units of 1 / TOTALS_PER_MEV.
    """
    source, geometry, photons, electrons, alphas, voxel_class, kerma = tables
    begin_lattice(state, seed, stream, batch)
    for history in range(first, last, step):
        seed_history(state, seed, stream, np.uint64(history))
        begin, end = entry_of(source, history)
        for row in range(begin, end):
            numbers = lattice_point(state, np.uint64(history))
            which, energy, emission, share, x, y, z, u, v, w = start_particle(row, kind, spectrum, source, numbers, state)
            if row == begin:
                add_whole(counts, emission, 1)
            own = weight * share
            emitted = own * (energy + 2.0 * REST_ENERGY) if which == POSITRON else own * energy
            add_whole(totals, EMITTED, fixed_total(emitted))
            inside, x, y, z, i, j, k = enter_grid(x, y, z, u, v, w, geometry)
            if not inside:
                add_whole(totals, ESCAPED, fixed_total(emitted))
                continue
            if which == ALPHA:
                left = transport_alpha(energy, x, y, z, u, v, w, own, i, j, k, geometry, alphas, tally)
                add_whole(totals, ESCAPED, fixed_total(left))
                continue
            push_particle(stack, count, which, energy, x, y, z, u, v, w, own, i, j, k)
            tracks.kept[FIRST_FLIGHT] = numbers[4]
            tracks.kept[WEIGHT_OF_HISTORY] = own
            while count[STACKED] > 0:
                count[STACKED] -= 1
                p = stack[count[STACKED]]
                which, energy, own = int(p[KIND]), p[ENERGY], p[WEIGHT]
                x, y, z, u, v, w = p[X], p[Y], p[Z], p[U], p[V], p[W]
                i, j, k = int(p[VOXEL_I]), int(p[VOXEL_J]), int(p[VOXEL_K])
                if which == PHOTON:
                    full = tracks.kept[WEIGHT_OF_HISTORY]
                    if own < LEAST_WEIGHT * full:
                        lives = next_uniform(state) * full < own
                        add_whole(totals, EXCESS, fixed_total((own - full if lives else own) * energy))
                        if not lives:
                            continue
                        own = full
                    left, excess = transport_photon(
                        energy, x, y, z, u, v, w, own, i, j, k, geometry, photons, electrons, voxel_class, kerma, tracks.places,
                        tally, stack, count, tracks.kept[FIRST_FLIGHT], state,
                    )  # fmt: skip
                    add_whole(totals, ESCAPED, fixed_total(left))
                    add_whole(totals, EXCESS, fixed_total(excess))
                    tracks.kept[FIRST_FLIGHT] = 0.0
                    continue
                if which == COPIED:
                    count[PLACED] = int(x)
                    energy, u, v, w, rest = draw_copied(
                        energy, u, v, w, own, int(x), int(y), geometry, photons, tracks, tally, stack, count, state
                    )
                    add_whole(totals, EXCESS, fixed_total(-rest))
                    if count[COPIES] == 0:
                        continue
                    which, own = ELECTRON, 0.0
                    x = y = z = FAR
                left = transport_electron(
                    which, energy, x, y, z, u, v, w, own, i, j, k, geometry, electrons, tally, stack, count, state,
                    tracks.segments,
                )  # fmt: skip
                add_whole(totals, ESCAPED, fixed_total(left))
                several = float(count[COPIES])
                while count[COPIES] > 0:
                    count[COPIES] -= 1
                    left, missing = lay_down(
                        tracks, count[PLACED] + count[COPIES], several, geometry, electrons, tally, stack, count, state
                    )
                    add_whole(totals, ESCAPED, fixed_total(left))
                    add_whole(totals, EXCESS, fixed_total(missing))


KINDS = {"photon": PHOTON, "electron": ELECTRON, "positron": POSITRON, "alpha": ALPHA}
