"""Fano's theorem: where a source is uniform per mass, the dose is uniform, whatever the density from voxel to voxel.

U. Fano, Radiat. Res. 1 (1954) 237. Photons are dropped where they are made, which is uniform per mass as well.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

sys.path.insert(0, str(Path(__file__).parent))
from electron_runs import block

from SynthDoseLib.physics import csda_range, get_material
from SynthDoseLib.transport.electrons import isotropic, transport_electron
from SynthDoseLib.transport.electrons_tables import build_electron_tables
from SynthDoseLib.transport.geometry import COUNTS, ELECTRON, ENERGY, KIND, PHOTON, POSITRON, STACK_SIZE, TALLY_PER_MEV
from SynthDoseLib.transport.random import next_uniform, seed_history
from SynthDoseLib.transport.tracks import SEGMENTS

WATER = get_material("water")
DENSITIES = np.array([0.0012, 0.26, 0.95, 1.0, 1.92])
BATCHES = 20


@njit(cache=True)
def fill(kind, energy, histories, seed, heavier, geometry, tables, tally):
    """Start particles uniformly per mass (one in each of equal shares), follow them and their electrons."""
    stack = np.zeros((STACK_SIZE, 12))
    count, segments = np.zeros(COUNTS, np.int64), np.zeros((SEGMENTS, 9))
    state = np.zeros(2, np.uint64)
    for n in range(histories):
        seed_history(state, np.uint64(seed), np.uint64(0), np.uint64(n))
        place = heavier[-1] * (n + next_uniform(state)) / histories
        voxel = np.searchsorted(heavier, place)
        i = voxel % geometry.ni
        j = voxel // geometry.ni % geometry.nj
        k = voxel // (geometry.ni * geometry.nj)
        x = (i + next_uniform(state)) * geometry.dx
        y = (j + next_uniform(state)) * geometry.dy
        z = (k + 1 - (heavier[voxel] - place) / geometry.density[voxel]) * geometry.dz
        u, v, w = isotropic(state)
        count[0] = 0
        transport_electron(kind, energy, x, y, z, u, v, w, 1.0, i, j, k, geometry, tables, tally, stack, count, state, segments)
        while count[0] > 0:
            count[0] -= 1
            p = stack[count[0]].copy()
            if p[KIND] != PHOTON:
                transport_electron(
                    int(p[KIND]), p[ENERGY], p[2], p[3], p[4], p[5], p[6], p[7], p[8], int(p[9]), int(p[10]), int(p[11]),
                    geometry, tables, tally, stack, count, state, segments,
                )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "energy", "voxels_per_range"),
    [
        (ELECTRON, 0.1, 3),
        (ELECTRON, 0.1, 0.3),
        (ELECTRON, 1.0, 3),
        (ELECTRON, 1.0, 0.3),
        (ELECTRON, 10.0, 3),
        (POSITRON, 0.6, 2),
    ],
)
def test_a_source_uniform_per_mass_gives_a_uniform_dose(kind, energy, voxels_per_range):
    # Slabs of random density and material index; the layers at both ends are thicker than the range.
    numbers = np.random.default_rng(17)
    middle = 40
    reach = float(csda_range(WATER, energy))
    thickness = reach / voxels_per_range
    ends = math.ceil(1.1 * reach / (1.92 * thickness))
    density = np.concatenate([np.full(ends, 1.92), numbers.choice(DENSITIES, middle), np.full(ends, 1.92)])
    index = np.concatenate([np.zeros(ends), numbers.integers(0, 3, middle), np.zeros(ends)]).astype(np.uint8)
    geometry = block((density.size, 1, 1), (1e4, 1e4, thickness), density, index)
    tables = build_electron_tables([WATER] * 3, energy)
    inside = slice(ends, ends + middle)
    groups = [density[inside] == value for value in DENSITIES]
    histories = int(8000 * (1 + 2 * ends / middle))
    shares = np.zeros((BATCHES, DENSITIES.size + 1))
    for batch in range(BATCHES):
        tally = np.zeros(density.size, np.int64)
        fill(kind, energy, histories, batch, np.cumsum(density), geometry, tables, tally)
        dose = tally[inside] / TALLY_PER_MEV / (histories * energy / density.sum())
        shares[batch, :-1] = [dose[chosen].sum() / density[inside][chosen].sum() for chosen in groups]
        shares[batch, -1] = dose.sum() / density[inside].sum()
    mean, error = shares.mean(axis=0), shares.std(axis=0, ddof=1) / math.sqrt(BATCHES)
    # Bremsstrahlung leaves; all that is expected of the mean is that it is the same everywhere.
    assert np.all(np.abs(mean / mean[-1] - 1) < 4 * error + 0.003)
    assert abs(mean[-1] - 1) < 0.05


@pytest.mark.parametrize(("energy", "size_cm"), [(0.3, 0.01), (2.0, 0.15), (2.0, 1.5)])
def test_half_the_step_gives_the_same_dose(energy, size_cm):
    # Lung, bone and soft tissue in layers; both kinds of steps, those of large voxels and those that voxels resolve.
    materials = [get_material(name) for name in ("lung_tissue_icru44", "bone_cortical_icru44", "soft_tissue")]
    layers = np.repeat([2, 0, 1, 0, 2], 3).astype(np.uint8)
    density = np.array([0.26, 1.92, 1.0])[layers]
    geometry = block((layers.size, 1, 1), (1e4, 1e4, size_cm), density, layers)
    shares = []
    for part in (1.0, 0.5):
        tables = build_electron_tables(
            materials, energy, first_moment=(0.2 * part, 0.06 * part), energy_share=(0.2 * part, 0.12 * part)
        )
        runs = np.zeros((BATCHES, layers.size))
        for batch in range(BATCHES):
            tally = np.zeros(layers.size, np.int64)
            fill(ELECTRON, energy, 2000, 50 + batch, np.cumsum(density), geometry, tables, tally)
            runs[batch] = tally / TALLY_PER_MEV / (2000 * energy)
        shares.append(runs)
    mean = [run.mean(axis=0) for run in shares]
    error = [run.std(axis=0, ddof=1) / math.sqrt(BATCHES) for run in shares]
    assert np.all(np.abs(mean[1] - mean[0]) < 4 * np.hypot(*error) + 0.003 * mean[0])
