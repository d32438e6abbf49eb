"""Drawing where a particle starts, where it flies, and with what energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core import Emission
from .random import next_uniform
from .sources import BEAM, LIST, POINT, VOLUME


class Spectrum(NamedTuple):
    """Energies of a group of emissions: histogram bins, chosen by alias, uniform inside.

    Attributes
    ----------
    low, width : ndarray of float64
        Of each bin, MeV; a line has width 0.
    emission : ndarray of int32
        Place in the list of emissions that the bin belongs to.
    keep : ndarray of float32; alias : ndarray of int32
    """

    low: NDArray[np.float64]
    width: NDArray[np.float64]
    emission: NDArray[np.int32]
    keep: NDArray[np.float32]
    alias: NDArray[np.int32]


def build_spectrum(emissions: Sequence[Emission], places: Sequence[int]) -> Spectrum:
    """Join the spectra of emissions, each in proportion to its yield; `places` are their numbers for the counts."""
    low = np.concatenate([e.edges_MeV[:-1] for e in emissions])
    width = np.concatenate([np.diff(e.edges_MeV) for e in emissions])
    owner = np.concatenate([np.full(e.probability.size, place, np.int32) for e, place in zip(emissions, places, strict=True)])
    keep, alias = build_alias(np.concatenate([e.yield_per_decay * e.probability for e in emissions]))
    return Spectrum(low, width, owner, keep, alias)


def build_alias(weights: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Alias table of weights (n,): take slot s uniformly, keep it with probability ``keep[s]``, else take ``alias[s]``.

    M. D. Vose, IEEE Trans. Softw. Eng. 17 (1991) 972.
    """
    return _build_alias(np.asarray(weights, dtype=np.float64))


@njit(cache=True)
def _build_alias(weights):
    n = weights.size
    scaled = weights * (n / weights.sum())
    keep = np.ones(n, np.float32)
    alias = np.arange(n).astype(np.int32)
    order = np.empty(n, np.int32)  # small ones from the front, large ones from the back
    n_small, first_large = 0, n
    for slot in range(n):
        if scaled[slot] < 1.0:
            order[n_small] = slot
            n_small += 1
        else:
            first_large -= 1
            order[first_large] = slot
    while n_small > 0 and first_large < n:
        n_small -= 1
        small, large = order[n_small], order[first_large]
        keep[small] = scaled[small]
        alias[small] = large
        scaled[large] -= 1.0 - scaled[small]
        if scaled[large] < 1.0:
            first_large += 1
            order[n_small] = large
            n_small += 1
    return keep, alias


@njit(inline="always")
def choose(keep, alias, number):
    """Slot of an alias table from a number in (0, 1), and what is left of it: another one, independent of the slot."""
    place = number * keep.size
    slot = int(place)
    rest = place - slot
    if rest >= keep[slot]:
        return int(alias[slot]), (rest - keep[slot]) / (1.0 - keep[slot])
    return slot, rest / keep[slot]


@njit
def sample_energy(spectrum, number):
    """Energy, MeV, and number of the emission it belongs to, from a number in (0, 1)."""
    slot, rest = choose(spectrum.keep, spectrum.alias, number)
    return spectrum.low[slot] + spectrum.width[slot] * rest, spectrum.emission[slot]


@njit
def isotropic_direction(first, second):
    """Unit vector from two numbers in (0, 1)."""
    w = 2.0 * first - 1.0
    across = math.sqrt(max(0.0, 1.0 - w * w))
    azimuth = 2.0 * math.pi * second
    return across * math.cos(azimuth), across * math.sin(azimuth), w


@njit
def entry_of(source, history):
    """First row and the one past the last of what a history follows: of a list of particles its entry, else one particle."""
    if source.kind != LIST:
        return 0, 1
    entries, uses = source.shape[0], source.shape[1]
    turn = history // uses if uses > 0 else history
    entry = source.alias[turn % entries]
    return int(source.cell[entry]), int(source.cell[entry + 1])


@njit
def start_particle(row, kind, spectrum, source, numbers, state):
    """Kind, energy (MeV), number of the emission, share of the weight, position and direction of a particle that sets out."""
    if source.kind == LIST:
        p = source.particles[row]
        return (
            int(p[0]), np.float64(p[1]), np.int32(0), np.float64(p[8]), np.float64(p[2]), np.float64(p[3]), np.float64(p[4]),
            np.float64(p[5]), np.float64(p[6]), np.float64(p[7]),
        )  # fmt: skip
    energy, emission = sample_energy(spectrum, numbers[3])
    x, y, z, u, v, w = sample_start(source, numbers, state)
    return int(kind), energy, emission, 1.0, x, y, z, u, v, w


@njit
def sample_start(source, numbers, state):
    """Position, cm, and direction of a particle in the frame of the grid; see `SourceTables`, `lattice_point`."""
    n = source.numbers
    if source.kind == BEAM:
        return sample_beam(n, numbers, state)
    u, v, w = isotropic_direction(numbers[0], numbers[1])
    if source.kind == VOLUME:
        slot, rest = choose(source.keep, source.alias, numbers[2])
        cell = source.cell[slot]
        ni, nj = source.shape[0], source.shape[1]
        i = cell % ni + rest
        j = cell // ni % nj + next_uniform(state)
        k = cell // (ni * nj) + next_uniform(state)
        x = n[0] * i + n[1] * j + n[2] * k + n[9]
        y = n[3] * i + n[4] * j + n[5] * k + n[10]
        z = n[6] * i + n[7] * j + n[8] * k + n[11]
        return x, y, z, u, v, w
    if source.kind == POINT:
        return n[0], n[1], n[2], u, v, w
    radius = n[3] * numbers[2] ** (1.0 / 3.0)
    a, b, c = isotropic_direction(next_uniform(state), next_uniform(state))
    return n[0] + radius * a, n[1] + radius * b, n[2] + radius * c, u, v, w


@njit
def sample_beam(n, numbers, state):
    """Start of a beam particle: uniform on the field, or isotropic from the focus through it."""
    focus = n[14]
    a, b = numbers[0], numbers[1]
    while True:
        a = (2.0 * a - 1.0) * n[12]
        b = (2.0 * b - 1.0) * n[13]
        x = n[0] + a * n[6] + b * n[9]
        y = n[1] + a * n[7] + b * n[10]
        z = n[2] + a * n[8] + b * n[11]
        if focus <= 0.0:
            return x, y, z, n[3], n[4], n[5]
        # an isotropic focus lights the plane with the cube of the cosine to its axis
        cosine = focus / math.sqrt(focus * focus + a * a + b * b)
        if next_uniform(state) < cosine * cosine * cosine:
            u = cosine * (n[3] + (a * n[6] + b * n[9]) / focus)
            v = cosine * (n[4] + (a * n[7] + b * n[10]) / focus)
            w = cosine * (n[5] + (a * n[8] + b * n[11]) / focus)
            return x, y, z, u, v, w
        a, b = next_uniform(state), next_uniform(state)
