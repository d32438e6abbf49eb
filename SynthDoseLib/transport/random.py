"""Random numbers: a stream belongs to a history, so any split of the work gives the same dose.

xoroshiro128+ (Blackman & Vigna, "Scrambled linear pseudorandom number generators", ACM Trans. Math. Softw. 47 (2021) 36)
seeded by splitmix64 (Steele, Lea & Flood, OOPSLA 2014) of run seed, stream and history number. The state is an array of two
uint64 that the history loop owns.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_U11, _U16, _U24, _U27, _U30, _U31, _U37, _U64 = (np.uint64(n) for n in (11, 16, 24, 27, 30, 31, 37, 64))
_TWO_POW_MINUS_53 = 2.0**-53

# Steps of the lattice of five dimensions, in units of 2^-64. Found by search: for no number of points between 30 and 40000 does
# any two or three of the dimensions leave more variance than independent numbers, but for a fourth (for functions whose power
# falls with the square of the frequency, as that of a step does).
_RECURRENCE = tuple(
    np.uint64(int(step * 2**64) | 1)
    for step in (0.8840987267251261, 0.6189500386222502, 0.7025885133855037, 0.8370981207359265, 0.6568542494923806)
)


@njit(inline="always")
def splitmix64(value):
    """Scramble a uint64."""
    value = value + _GOLDEN
    value = (value ^ (value >> _U30)) * _MIX_1
    value = (value ^ (value >> _U27)) * _MIX_2
    return value ^ (value >> _U31)


@njit
def seed_history(state, seed, stream, history):
    """Start the stream of one history; `stream` tells emissions (or batches) of one run apart. All three are uint64."""
    key = splitmix64(splitmix64(seed) ^ (stream * _MIX_2))
    state[0] = splitmix64(key ^ (history * _MIX_1))
    state[1] = splitmix64(state[0] + history)


@njit(inline="always")
def next_uniform(state):
    """Return a float64 in (0, 1): neither end can come out, so a logarithm is always finite."""
    s0 = state[0]
    s1 = state[1]
    total = s0 + s1
    s1 = s1 ^ s0
    state[0] = ((s0 << _U24) | (s0 >> (_U64 - _U24))) ^ s1 ^ (s1 << _U16)
    state[1] = (s1 << _U37) | (s1 >> (_U64 - _U37))
    return (np.float64(total >> _U11) + 0.5) * _TWO_POW_MINUS_53


@njit(inline="always")
def begin_lattice(state, seed, stream, batch):
    """Put down where the lattice of a batch begins: five random uint64, independent from batch to batch, in state[2:7].

    They are in memory because a GPU has no registers to spare.
    """
    key = splitmix64(splitmix64(seed ^ _GOLDEN) ^ (stream * _MIX_2)) ^ (batch * _MIX_1)
    a = splitmix64(key)
    b = splitmix64(a ^ batch)
    c = splitmix64(b ^ stream)
    d = splitmix64(c ^ batch)
    state[2] = a
    state[3] = b
    state[4] = c
    state[5] = d
    state[6] = splitmix64(d ^ stream)


@njit(inline="always")
def lattice_point(state, history):
    """Five numbers in (0, 1) for the beginning of a history: each is uniform, and those of a batch fill the space evenly.

    A randomly shifted lattice leaves every estimate unbiased, and the batches independent; what depends smoothly on these
    numbers has less variance (R. Cranley and T. N. L. Patterson, SIAM J. Numer. Anal. 13 (1976) 904).
    """
    return (
        _unit(state[2] + history * _RECURRENCE[0]),
        _unit(state[3] + history * _RECURRENCE[1]),
        _unit(state[4] + history * _RECURRENCE[2]),
        _unit(state[5] + history * _RECURRENCE[3]),
        _unit(state[6] + history * _RECURRENCE[4]),
    )


@njit(inline="always")
def _unit(bits):
    return (np.float64(bits >> _U11) + 0.5) * _TWO_POW_MINUS_53
