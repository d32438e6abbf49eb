"""Lists of particles (phase spaces) as sources: their tables, how often each entry is used, and what sigma then means.

An entry is everything that one original history left behind. The list is a sample of what its source sends out, so entries,
not particles, are what a standard error has to come from, and the same entry used again is no new information. Entries are put
in a random order; history h follows entry h // uses. All uses of an entry thus fall into one batch, batches share no entry, and
their spread holds the noise of the list as well as that of the transport. A list that is the whole source (`exact`), or too
short for batches of its own entries, is gone through in a circle instead, and sigma is the transport's alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import ParticleList, SynthDoseError, VoxelPhantom

FEWEST_ENTRIES = 40  # in fewer, a standard error from batches of entries is too uncertain to be of use
COLUMNS = 9
_SPARE = 1.5  # a pilot run may underestimate the histories a relative sigma needs
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class ParticleListSource:
    """Recorded particles and where their frame lies in the patient.

    The dose is per original history of the list (`ParticleList.original_histories`), those that left no particle included.

    Attributes
    ----------
    particles : ParticleList
    origin_mm_ras : tuple of 3 float
        Where the origin of the list's frame is.
    x_axis_ras, z_axis_ras : tuple of 3 float
        Where its x and z axes point to (any length); x is made perpendicular to z, y is z cross x.
    exact : bool
        The list is the whole source, not a sample of it: sigma then leaves out the noise of the list.
    """

    particles: ParticleList
    origin_mm_ras: tuple[float, float, float]
    x_axis_ras: tuple[float, float, float]
    z_axis_ras: tuple[float, float, float]
    exact: bool = False

    @property
    def cyclic(self) -> bool:
        """Whether entries are used in a circle; see the module."""
        return self.exact or self.particles.histories < FEWEST_ENTRIES

    def axes(self) -> NDArray[np.float64]:
        """Unit vectors of the list's x, y, z in RAS, as columns (3, 3).

        Raises
        ------
        SynthDoseError
            If an axis has no length, or both are parallel.
        """
        x, z = np.asarray(self.x_axis_ras, dtype=np.float64), np.asarray(self.z_axis_ras, dtype=np.float64)
        for name, axis in (("x_axis_ras", x), ("z_axis_ras", z)):
            if axis.shape != (3,) or not np.isfinite(axis).all() or not axis.any():
                raise SynthDoseError(f"{name} has to be three finite numbers, not all zero; found {axis.tolist()}.")
        z = z / np.linalg.norm(z)
        x = x / np.linalg.norm(x)
        x = x - (x @ z) * z
        if np.linalg.norm(x) < 1e-6:
            raise SynthDoseError("x_axis_ras is parallel to z_axis_ras; give the direction of the list's x axis across it.")
        x = x / np.linalg.norm(x)
        return np.stack([x, np.cross(z, x), z], axis=-1)


@dataclass(frozen=True, eq=False)
class ListTables:
    """Arrays of a list for the kernels, in the frame of the grid.

    Attributes
    ----------
    rows : ndarray of float32, (particles, COLUMNS)
        Kind, energy (MeV), x, y, z (cm), u, v, w, weight.
    first_row : ndarray of int32, (entries + 1,)
        Where each entry begins in `rows`.
    order : ndarray of int32, (entries,)
        Order in which entries are used.
    """

    rows: NDArray[np.float32]
    first_row: NDArray[np.int32]
    order: NDArray[np.int32]


def build_list(source: ParticleListSource, phantom: VoxelPhantom, seed: int) -> ListTables:
    """Place a list in a phantom.

    Raises
    ------
    SynthDoseError
        If the placement is not usable, or no particle meets the grid.
    """
    particles, grid = source.particles, phantom.grid
    origin = np.asarray(source.origin_mm_ras, dtype=np.float64)
    if origin.shape != (3,) or not np.isfinite(origin).all():
        raise SynthDoseError(f"origin_mm_ras has to be three finite numbers (R, A, S in mm); found {source.origin_mm_ras!r}.")
    turn = grid.directions.T @ source.axes()
    corner = (grid.to_ijk(origin) + 0.5) * np.asarray(grid.spacing_mm) / 10
    size_cm = np.asarray(grid.shape[::-1]) * np.asarray(grid.spacing_mm) / 10
    count = particles.energy_MeV.size
    rows = np.empty((count, COLUMNS), np.float32)
    hits = 0
    for begin in range(0, count, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        position = particles.position_mm[part].astype(np.float64) @ turn.T / 10 + corner
        direction = particles.direction[part].astype(np.float64) @ turn.T
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        rows[part, 0] = particles.particle[part]
        rows[part, 1] = particles.energy_MeV[part]
        rows[part, 2:5] = position
        rows[part, 5:8] = direction
        rows[part, 8] = particles.weight[part]
        hits += int(np.count_nonzero(rays_meet_box(position, direction, size_cm)))
    if hits == 0:
        raise SynthDoseError(
            f"None of the {count} particles of the list flies into the phantom. Check origin_mm_ras, x_axis_ras and "
            f"z_axis_ras: the list's origin is at RAS {tuple(float(x) for x in origin.round(3))} mm."
        )
    first_row = np.append(np.flatnonzero(particles.first_of_history), count).astype(np.int32)
    order = np.random.default_rng([seed, 0x115]).permutation(first_row.size - 1).astype(np.int32)
    return ListTables(rows, first_row, order)


def rays_meet_box(
    position: NDArray[np.float64], direction: NDArray[np.float64], size: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether half-lines (n, 3) pass through the box between 0 and `size` (3,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = -position / direction, (size - position) / direction
    parallel = direction == 0
    within = (position >= 0) & (position <= size)
    low, high = np.where(parallel, -np.inf, low), np.where(parallel, np.inf, high)
    near = np.minimum(low, high).max(axis=1)
    far = np.maximum(low, high).min(axis=1)
    return np.asarray((far > np.maximum(near, 0.0)) & (within | ~parallel).all(axis=1))


def plan_uses(entries: int, histories: int, batches: int, *, fixed: bool) -> tuple[int, int, int, int]:
    """Plan a run of about so many histories and batches in which batches share no entry.

    Parameters
    ----------
    entries, histories, batches : int
    fixed : bool
        Whether the run ends after just so many histories; otherwise it may turn out longer.

    Returns
    -------
    uses : int
        How often each entry is followed.
    per_batch : int
        Histories of a batch.
    planned, most : int
        Batches to begin with, and as many as there are entries for.
    """
    uses = max(1, -(-int(histories if fixed else _SPARE * histories) // entries))
    used = max(1, min(entries, histories // uses))
    entries_per_batch = max(1, round(used / batches))
    return uses, uses * entries_per_batch, used // entries_per_batch, entries // entries_per_batch


def list_notes(source: ParticleListSource) -> tuple[str, ...]:
    """What has to be known about a run with a list: what the dose is per, and what sigma holds."""
    particles = source.particles
    histories = particles.histories
    notes = [
        f"The dose is per original history of the particle list: {particles.original_histories:.10g} of them left "
        f"{particles.energy_MeV.size} particles ({histories} histories with at least one)."
    ]
    if source.cyclic:
        why = "is taken as the whole source" if source.exact else f"has fewer than {FEWEST_ENTRIES} histories"
        notes.append(f"The particle list {why}: sigma leaves out how few particles were recorded.")
    elif histories < particles.original_histories:
        notes.append(
            "Sigma holds the noise of the particle list, but not how uncertain the number of histories is that left particles "
            f"({100 / histories**0.5:.2g} %, the same factor for every voxel)."
        )
    return (*particles.notes, *notes)
