"""The life of a history: from the decay to the last of its secondaries."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .alphas import transport_alpha
from .electrons import transport_electron
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
    U,
    V,
    W,
    X,
    Y,
    Z,
    push_particle,
)
from .photons import transport_photon
from .random import seed_history
from .sampling import sample_energy, sample_start
from .tables import REST_ENERGY

ALPHA = 3
EMITTED, ESCAPED, EXCESS = range(3)
"""Totals of a run of histories, energies times weight, MeV; for the last see `transport_photon`."""


@njit
def enter_grid(x, y, z, u, v, w, geometry):
    """Return whether a particle is in the grid or flies into it, where it gets there, and the voxel."""
    i = math.floor(x / geometry.dx)
    j = math.floor(y / geometry.dy)
    k = math.floor(z / geometry.dz)
    if 0 <= i < geometry.ni and 0 <= j < geometry.nj and 0 <= k < geometry.nk:
        return True, x, y, z, i, j, k
    near, far = slab_hits(x, u, geometry.ni * geometry.dx, 0.0, 1e30)
    near, far = slab_hits(y, v, geometry.nj * geometry.dy, near, far)
    near, far = slab_hits(z, w, geometry.nk * geometry.dz, near, far)
    if near >= far:
        return False, x, y, z, i, j, k
    x, y, z = x + near * u, y + near * v, z + near * w
    i = min(max(math.floor(x / geometry.dx), 0), geometry.ni - 1)
    j = min(max(math.floor(y / geometry.dy), 0), geometry.nj - 1)
    k = min(max(math.floor(z / geometry.dz), 0), geometry.nk - 1)
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


@njit(nogil=True, cache=True)
def run_histories(
    first, last, seed, stream, kind, weight, spectrum, source, geometry, photons, electrons, alphas, voxel_class, kerma, tally,
    stack, counts, totals,
):  # fmt: skip
    """Follow the histories `first` to `last` (excluded) of one group of emissions.

    Parameters
    ----------
    first, last : int64
        Numbers of histories; the number fixes the random stream.
    seed, stream : uint64
        Of the run, and of the group.
    kind : int
        PHOTON, ELECTRON, POSITRON or ALPHA.
    weight : float
        Of each history.
    spectrum, source, geometry, photons, electrons, alphas : NamedTuple
        Tables.
    voxel_class, kerma
        See `transport_photon`.
    tally : ndarray of int64, (voxels,)
    stack : ndarray of float64, (STACK_SIZE, 12)
    counts : ndarray of int64, (emissions,)
        Histories per emission are added.
    totals : ndarray of float64, (3,)
        EMITTED, ESCAPED, EXCESS are added.
    """
    state = np.zeros(2, np.uint64)
    count = np.zeros(1, np.int64)
    rest = 2.0 * REST_ENERGY if kind == POSITRON else 0.0
    for history in range(first, last):
        seed_history(state, seed, stream, np.uint64(history))
        energy, emission = sample_energy(spectrum, state)
        counts[emission] += 1
        totals[EMITTED] += weight * (energy + rest)
        x, y, z, u, v, w = sample_start(source, state)
        inside, x, y, z, i, j, k = enter_grid(x, y, z, u, v, w, geometry)
        if not inside:
            totals[ESCAPED] += weight * (energy + rest)
            continue
        if kind == ALPHA:
            totals[ESCAPED] += transport_alpha(energy, x, y, z, u, v, w, weight, i, j, k, geometry, alphas, tally)
            continue
        push_particle(stack, count, kind, energy, x, y, z, u, v, w, weight, i, j, k)
        while count[0] > 0:
            count[0] -= 1
            p = stack[count[0]]
            which, energy, own = int(p[KIND]), p[ENERGY], p[WEIGHT]
            x, y, z, u, v, w = p[X], p[Y], p[Z], p[U], p[V], p[W]
            i, j, k = int(p[VOXEL_I]), int(p[VOXEL_J]), int(p[VOXEL_K])
            if which == PHOTON:
                left, excess = transport_photon(
                    energy, x, y, z, u, v, w, own, i, j, k, geometry, photons, voxel_class, kerma, tally, stack, count, state
                )
                totals[ESCAPED] += left
                totals[EXCESS] += excess
            else:
                totals[ESCAPED] += transport_electron(
                    which, energy, x, y, z, u, v, w, own, i, j, k, geometry, electrons, tally, stack, count, state
                )


KINDS = {"photon": PHOTON, "electron": ELECTRON, "positron": POSITRON, "alpha": ALPHA}
