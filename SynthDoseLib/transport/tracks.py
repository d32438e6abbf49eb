"""Tracks of electrons that are recorded once and laid down at several places of a photon's flight.

What a collision sets free depends on the photon and the material, not on the place; and an electron that stays in one material
slows down in the same way along its path in g/cm2, wherever it begins. Each copy is by itself a history as likely as any, so
that the sum over copies is unbiased, although copies are alike. A copy costs the crossing of its voxels alone.

A photon on its way notes places (`note_place`); the collision that happens in all of them is drawn when its turn comes
(`draw_copied`); `transport_electron` writes the track of its electron down, as if the material had no end, instead of flying
it; `lay_down` flies the copies. A copy ends where its range is less than the way to the nearest face; one that meets another
material goes on from there as an electron of its own, as do, one for several (Russian roulette), secondaries and remainders
that may leave their voxel.

Copies of tracks: H. Neuenschwander and E. J. Born, Phys. Med. Biol. 37 (1992) 107; I. Kawrakow, M. Fippel and K. Friedrich,
Med. Phys. 23 (1996) 445.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .geometry import ENERGY, KIND, U, V, W

SEGMENTS, PLACES = 64, 192
"""Rows of the record of a track, and places that wait for one. What is longer goes on, in each copy, as an electron of its own;
a flight that finds no room for a place sets electrons free one by one."""

ENDING = 0.03
"""Range, as a share of the smallest voxel edge, at which a record ends. It decides about time alone, not about the dose."""

_BIRTHS = 8  # more than an event has

FLIGHT = -1
REST, RATE_ALONG, RISE_ALONG, LENGTH = 2, 3, 4, 8
"""Columns of a segment, beside KIND (FLIGHT, or the kind of a particle that is born here), ENERGY, MeV, and direction as on the
stack: range, g/cm2; soft loss along it ``t * (rate + rise * t)``, MeV at t g/cm2; length, g/cm2."""

WEIGHT_OF_HISTORY, WEIGHT_OF_COPIES, FIRST_FLIGHT = range(3)

MADE, BELOW = 4, 5
"""Places in `count`: segments of the record; particles on the stack that are not of the track."""


class Tracks(NamedTuple):
    """Memory of one thread.

    Attributes
    ----------
    segments : ndarray of float64, (SEGMENTS, 9)
        Columns KIND, ENERGY, REST, RATE_ALONG, RISE_ALONG, U, V, W, LENGTH. The last row of a record has no length.
    places : ndarray of float64, (PLACES, 4)
        Where copies begin: x, y, z, voxel.
    kept : ndarray of float64, (3,)
        WEIGHT_OF_HISTORY, WEIGHT_OF_COPIES, and FIRST_FLIGHT: see `transport_photon`.
    """

    segments: NDArray[np.float64]
    places: NDArray[np.float64]
    kept: NDArray[np.float64]


def new_tracks() -> Tracks:
    """Memory for one thread."""
    return Tracks(np.zeros((SEGMENTS, 9)), np.zeros((PLACES, 4)), np.zeros(3))


@njit(inline="always")
def write_state(segments, count, kind, energy, rest, u, v, w):
    """Begin a segment; return whether it has to be the last flight."""
    p = segments[count[MADE]]
    p[KIND] = kind
    p[ENERGY] = energy
    p[REST] = rest
    p[U] = u
    p[V] = v
    p[W] = w
    return count[MADE] + _BIRTHS >= segments.shape[0]


@njit(inline="always")
def write_flight(segments, count, rate, rise, length):
    """Complete a segment."""
    p = segments[count[MADE]]
    p[RATE_ALONG] = rate
    p[RISE_ALONG] = rise
    p[LENGTH] = length
    count[MADE] += 1
