"""Electrons and positrons shot into blocks of voxels, for tests."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

import SynthDoseLib.transport  # noqa: F401  (sets the folder of compiled kernels before the first one is defined)
from SynthDoseLib.transport.electrons import transport_electron
from SynthDoseLib.transport.geometry import COUNTS, KIND, PHOTON, STACK_SIZE, TALLY_PER_MEV, Geometry
from SynthDoseLib.transport.random import next_uniform, seed_history
from SynthDoseLib.transport.tracks import SEGMENTS


def block(shape, size_cm, density=1.0, material=0):
    """Voxels of one material and density, or of the given values; `shape` is (nk, nj, ni)."""
    nk, nj, ni = shape
    count = nk * nj * ni
    return Geometry(
        ni,
        nj,
        nk,
        *(float(s) for s in size_cm),
        np.broadcast_to(np.ravel(material), count).astype(np.uint8) if np.size(material) == 1 else np.ravel(material),
        np.broadcast_to(np.ravel(density), count).astype(np.float32) if np.size(density) == 1 else np.ravel(density),
        1.0 / min(size_cm),
    )


@njit(cache=True)
def shoot(kind, energy, position, direction, weight, histories, seed, primaries_only, geometry, tables, tally, result):
    """Follow particles and their electrons; an all-zero direction is isotropic.

    `result` per history: energy escaped, energy of photons, photons, sum of their z direction times energy, secondaries.
    """
    stack = np.zeros((STACK_SIZE, 12))
    count, segments = np.zeros(COUNTS, np.int64), np.zeros((SEGMENTS, 9))
    state = np.zeros(2, np.uint64)
    x, y, z = position
    i, j, k = int(x / geometry.dx), int(y / geometry.dy), int(z / geometry.dz)
    for n in range(histories):
        seed_history(state, np.uint64(seed), np.uint64(0), np.uint64(n))
        u, v, w = direction
        if u == 0.0 and v == 0.0 and w == 0.0:
            w = 2.0 * next_uniform(state) - 1.0
            azimuth = 2.0 * math.pi * next_uniform(state)
            u, v = math.sqrt(1.0 - w * w) * math.cos(azimuth), math.sqrt(1.0 - w * w) * math.sin(azimuth)
        count[0] = 0
        result[n, 0] = transport_electron(
            kind, energy, x, y, z, u, v, w, weight, i, j, k, geometry, tables, tally, stack, count, state, segments
        )
        while count[0] > 0:
            count[0] -= 1
            p = stack[count[0]].copy()
            if p[KIND] == PHOTON:
                result[n, 1] += p[1] * p[8]
                result[n, 2] += 1
                result[n, 3] += p[1] * p[7]
            else:
                result[n, 4] += p[1] * p[8]
                if not primaries_only:
                    result[n, 0] += transport_electron(
                        int(p[KIND]), p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], int(p[9]), int(p[10]), int(p[11]),
                        geometry, tables, tally, stack, count, state, segments,
                    )  # fmt: skip


def run(kind, energy, geometry, tables, *, position, direction=(0, 0, 0), weight=1.0, histories=1000, seed=1, primaries=False):
    """Return the tally, MeV, and the results per history of `shoot`."""
    tally = np.zeros(geometry.ni * geometry.nj * geometry.nk, np.int64)
    result = np.zeros((histories, 5))
    position, direction = (tuple(float(value) for value in values) for values in (position, direction))
    shoot(kind, energy, position, direction, weight, histories, seed, primaries, geometry, tables, tally, result)
    return tally / TALLY_PER_MEV, result
