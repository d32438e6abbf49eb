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
    ELECTRON,
    ENERGY,
    KIND,
    PHOTON,
    POSITRON,
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
from .photons import transport_photon
from .random import lattice_origin, lattice_point, seed_history
from .sampling import entry_of, start_particle
from .sources import SourceTables
from .tables import REST_ENERGY, PhotonTables

ALPHA = 3
EMITTED, ESCAPED, EXCESS = range(3)
"""Totals of a run of histories, energies times weight; for the last see `transport_photon`."""

TOTALS_PER_MEV = float(2**28)
"""Totals are int64 in fixed point, as tallies are: 4 meV steps, 3.4e10 MeV at most."""


class Tables(NamedTuple):
    """Everything that kernels read and histories do not change, beside the spectrum.

    Attributes
    ----------
    voxel_class
        See `transport_photon`.
    analog_from : float
        Photons of the source from this energy on, MeV, and all that comes from them are followed analog.
    """

    source: SourceTables
    geometry: Geometry
    photons: PhotonTables
    electrons: ElectronTables
    alphas: AlphaTables
    voxel_class: NDArray[np.uint8]
    analog_from: float


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
    first, last, step, seed, stream, batch, kind, weight, spectrum, tables, tally, stack, count, state, counts, totals
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
    count : ndarray of int64, (1,)
        Particles on the stack: 0 between histories.
    state : ndarray of uint64, (2,)
    counts : ndarray of int64, (emissions,)
        Histories per emission are added.
    totals : ndarray of int64, (3,)
        EMITTED, ESCAPED, EXCESS are added, in units of 1 / TOTALS_PER_MEV.
    """
    source, geometry, photons, electrons, alphas, voxel_class, analog_from = tables
    origin = lattice_origin(seed, stream, batch)
    for history in range(first, last, step):
        seed_history(state, seed, stream, np.uint64(history))
        numbers = lattice_point(origin, np.uint64(history))
        begin, end = entry_of(source, history)
        for row in range(begin, end):
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
            number = numbers[4]
            kerma = energy < analog_from
            while count[0] > 0:
                count[0] -= 1
                p = stack[count[0]]
                which, energy, own = int(p[KIND]), p[ENERGY], p[WEIGHT]
                x, y, z, u, v, w = p[X], p[Y], p[Z], p[U], p[V], p[W]
                i, j, k = int(p[VOXEL_I]), int(p[VOXEL_J]), int(p[VOXEL_K])
                if which == PHOTON:
                    left, excess = transport_photon(
                        energy, x, y, z, u, v, w, own, i, j, k, geometry, photons, electrons, voxel_class, kerma, tally,
                        stack, count, number, state,
                    )  # fmt: skip
                    add_whole(totals, ESCAPED, fixed_total(left))
                    add_whole(totals, EXCESS, fixed_total(excess))
                    number = 0.0
                else:
                    left = transport_electron(
                        which, energy, x, y, z, u, v, w, own, i, j, k, geometry, electrons, tally, stack, count, state
                    )
                    add_whole(totals, ESCAPED, fixed_total(left))


KINDS = {"photon": PHOTON, "electron": ELECTRON, "positron": POSITRON, "alpha": ALPHA}
