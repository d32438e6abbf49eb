"""Red bone marrow and endosteum as organs, from the dose to the voxels of bones."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, Emission, LabelMap, Material, OrganDose, SynthDoseError, VoxelPhantom
from ..physics import get_material
from .organs import OrganDoseRow
from .spongiosa import (
    SOURCES,
    TRABECULAR_BONE_VOLUME_FRACTION,
    Spongiosa,
    absorbed_fractions,
    marrow_enhancement,
    photon_ratio,
    stopping_ratio,
)
from .tables import dosimetry_rows, number

RED_MARROW, ENDOSTEUM = "red_marrow", "endosteum"
BONE_DENSITY, MARROW_DENSITY = 1.92, 1.03  # g/cm3, ICRP 110
SEXES = ("male", "female")
EQUILIBRIUM = "equilibrium"
LEAST_ENERGY_SHARE = 1e-3  # of the energy per decay, below which photons or charged particles are left out
LEAST_MARROW = 0.02  # volume of marrow per voxel below which the voxel counts as compact bone
SMALLEST_PHOTON_MEV, LARGEST_PHOTON_MEV = 0.005, 4.0
LOCAL_PHOTON_MEV = 0.012  # softer X rays of a nuclide go less than 3 mm: they do not come from one organ to another
_PATTERNS = (
    (r"(skull|cranium)", ("cranium",)),
    (r"mandible", ("mandible",)),
    (r"vertebrae_C\d", ("cervical_spine",)),
    (r"vertebrae_T\d+", ("thoracic_spine",)),
    (r"vertebrae_L\d", ("lumbar_spine",)),
    (r"(cervical|thoracic|lumbar)_spine", ()),
    (r"vertebrae_S\d|sacrum", ("sacrum",)),
    (r"vertebrae", ("cervical_spine", "thoracic_spine", "lumbar_spine")),
    (r"sternum", ("sternum",)),
    (r"ribs?(_.*)?", ("ribs",)),
    (r"clavicul[a-z]*(_.*)?|clavicles", ("clavicles",)),
    (r"scapula[a-z]*(_.*)?", ("scapulae",)),
    (r"humer[a-z]*(_.*)?", ("humeri_upper_half",)),
    (r"femor[a-z]*(_.*)?|femur(_.*)?", ("femora_upper_half",)),
    (r"hip(_.*)?|pelvis", ("pelvis",)),
    (r"skeleton|bones?", ("*",)),
)


@dataclass(frozen=True)
class MarrowDoses:
    """Doses of red bone marrow and endosteum.

    Attributes
    ----------
    red_marrow, endosteum : OrganDoseRow
        `sigma_Gy` is the Monte Carlo one, an upper bound (bones fully correlated).
    red_marrow_model_sigma_Gy, endosteum_model_sigma_Gy : float
        One standard uncertainty of the spongiosa method: structure, photon spectrum, unknown share of photons.
    marrow_seen : float
        Share of the body's active marrow that lies in the bones that were labelled; 1 if only one label holds all bones.
    notes : tuple of str
    """

    red_marrow: OrganDoseRow
    endosteum: OrganDoseRow
    red_marrow_model_sigma_Gy: float
    endosteum_model_sigma_Gy: float
    marrow_seen: float
    notes: tuple[str, ...]


def bones_of(organ: str) -> tuple[str, ...]:
    """Rows of the marrow table that a label stands for; ("*",) for a whole skeleton, () for what is no bone with red marrow.

    Examples
    --------
    >>> bones_of("vertebrae_L3"), bones_of("rib_left_4"), bones_of("skeleton"), bones_of("liver")
    (('lumbar_spine',), ('ribs',), ('*',), ())
    """
    for pattern, bones in _PATTERNS:
        if re.fullmatch(pattern, organ):
            return bones or (organ,)
    return ()


def active_marrow_distribution(sex: str = "mean") -> dict[str, float]:
    """Share of the adult's active marrow per bone.

    Parameters
    ----------
    sex : str
        "male", "female" or "mean".

    Returns
    -------
    dict of str to float
        Sums to 1. Mass of spongiosa times its fraction of active marrow.

    References
    ----------
    ICRP Publication 110 (2009), adult male and female; equal to the distribution of ICRP Publication 70 (after M. Cristy, Phys.
    Med. Biol. 26 (1981) 389) to its digits. No table for children was at hand: see `read_marrow_distribution`.

    Examples
    --------
    >>> shares = active_marrow_distribution("male")
    >>> f"{shares['cranium']:.3f} {shares['lumbar_spine']:.3f} {shares['pelvis']:.3f}"
    '0.076 0.123 0.175'
    """
    if sex not in (*SEXES, "mean"):
        raise SynthDoseError(f"The sex '{sex}' is not known. Allowed: male, female, mean.")
    masses: dict[str, dict[str, float]] = {name: {} for name in SEXES}
    columns = ("bone", "sex", "spongiosa_g", "active_marrow_mass_fraction")
    for row in dosimetry_rows("active_marrow", columns):
        grams = number(row, "spongiosa_g", "active_marrow") * number(row, "active_marrow_mass_fraction", "active_marrow")
        if grams > 0:
            masses[row["sex"]][row["bone"]] = grams
    wanted = SEXES if sex == "mean" else (sex,)
    shares = [{bone: grams / sum(masses[s].values()) for bone, grams in masses[s].items()} for s in wanted]
    return {bone: sum(share[bone] for share in shares) / len(shares) for bone in shares[0]}


def read_marrow_distribution(path: str | os.PathLike[str]) -> dict[str, float]:
    """A distribution of active marrow of one's own, from a CSV file with columns bone,share; normalised to 1.

    Raises
    ------
    SynthDoseError
        If a bone is not one of the table that ships, or a share is negative.
    """
    name = str(path)
    known = {row["bone"] for row in dosimetry_rows("active_marrow", ("bone",))}
    shares: dict[str, float] = {}
    for row in dosimetry_rows(name, ("bone", "share"), path):
        if row["bone"] not in known:
            raise SynthDoseError(
                f"{path}: '{row['bone']}' is no bone of the marrow table. Allowed: {', '.join(sorted(known))}."
            )
        shares[row["bone"]] = number(row, "share", name)
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise SynthDoseError(f"{path}: shares of active marrow have to be 0 or more, and not all 0.")
    return {bone: share / total for bone, share in shares.items()}


def marrow_cellularity(sex: str = "mean") -> dict[str, float]:
    """Mass of active marrow over all marrow per bone, and of all spongiosa as "*" (ICRP 110, adults)."""
    active: dict[str, float] = {}
    marrow: dict[str, float] = {}
    for row in dosimetry_rows("active_marrow", ("bone", "sex", "spongiosa_g", "active_marrow_mass_fraction")):
        if sex not in (row["sex"], "mean"):
            continue
        spongiosa, red, yellow = (
            number(row, name, "active_marrow")
            for name in ("spongiosa_g", "active_marrow_mass_fraction", "inactive_marrow_mass_fraction")
        )
        for bone in (row["bone"], "*"):
            active[bone] = active.get(bone, 0.0) + spongiosa * red
            marrow[bone] = marrow.get(bone, 0.0) + spongiosa * (red + yellow)
    return {bone: active[bone] / marrow[bone] for bone in active}


def marrow_doses(
    dose: DoseMap,
    phantom: VoxelPhantom,
    emissions: Sequence[Emission],
    *,
    components: Mapping[str, Mapping[str, float]] | None = None,
    source: str = EQUILIBRIUM,
    sex: str = "mean",
    distribution: Mapping[str, float] | None = None,
    organ_sigma: Mapping[str, float] | Iterable[OrganDose] | None = None,
) -> MarrowDoses | None:
    """Dose to red bone marrow and endosteum from the dose to the voxels of labelled bones.

    Every bone voxel is a mixture of trabecular bone and marrow by its density. Its photon dose is multiplied by the ratio of
    mass energy-absorption coefficients marrow over voxel material and by the King-Spiers S factor of `marrow_enhancement`
    (three-factor method); its dose from charged particles by the ratio of mass collision stopping powers ("equilibrium", for
    particles that cross many trabeculae), or by what the plates of `spongiosa` give for a source inside the bone. Voxels are
    averaged over the marrow they hold, bones over their share of the active marrow.

    Parameters
    ----------
    dose : DoseMap
        On the grid of `phantom`, absolute or per decay.
    phantom : VoxelPhantom
    emissions : sequence of Emission
        What the source sends out.
    components : mapping of component to mapping of organ to dose, optional
        Organ doses split by emitted particle ("photon", "electron", "positron", "alpha"), any unit: only their shares are
        used. Without them, a mixed emitter gets the mean of the photon and the charged-particle result, their distance over
        sqrt(12) as uncertainty.
    source : str
        Where activity inside bones sits, for charged particles: "equilibrium", "uniform", "marrow", "bone" or "surface".
    sex : str
        "male", "female" or "mean": whose active marrow distribution.
    distribution : mapping of bone to share, optional
        Instead of the adult's, with the bones of `active_marrow_distribution`.
    organ_sigma : mapping of organ to Gy, or iterable of OrganDose, optional
        Monte Carlo standard errors of the bones.

    Returns
    -------
    MarrowDoses or None
        None if no bone with active marrow is labelled.

    Raises
    ------
    SynthDoseError
        If grids differ, or a name is unknown.
    """
    if not dose.grid.matches(phantom.grid):
        raise SynthDoseError("The dose is on another grid than the phantom.")
    if source not in (EQUILIBRIUM, *SOURCES):
        raise SynthDoseError(f"The source '{source}' is not known. Allowed: {', '.join((EQUILIBRIUM, *SOURCES))}.")
    shares = dict(active_marrow_distribution(sex) if distribution is None else distribution)
    groups = _labelled_bones(phantom.labels, shares)
    if not groups:
        return None
    seen = sum(share for share, _ in groups.values())
    notes = [_describe(groups, shares, seen, distribution is None)]
    photons, charged = _kinds(emissions)
    factors = _Factors(phantom.materials, photons, charged, source)
    sigmas = _sigma_map(organ_sigma)
    collected: dict[str, list[NDArray[np.float64]]] = {
        "dose": [],
        "weight": [],
        "model": [],
        "endosteum": [],
        "endosteum_model": [],
    }
    cellularity = marrow_cellularity(sex)
    sigma_bound, active_g, marrow_g = 0.0, 0.0, 0.0
    for bones, (share, organs) in groups.items():
        pieces = [
            _voxels(organ, dose, phantom, factors, _photon_share(organ, components, photons, charged)) for organ in organs
        ]
        volume = sum(float(piece.marrow.sum()) for piece in pieces)
        if volume <= 0:
            continue
        held_g = volume * dose.grid.voxel_volume_ml * MARROW_DENSITY
        marrow_g += held_g
        active_g += held_g * float(np.mean([cellularity.get(bone, cellularity["*"]) for bone in bones]))
        for organ, piece in zip(organs, pieces, strict=True):
            weight = share / seen * piece.marrow / volume
            for key, values in (("dose", piece.red), ("weight", weight), ("model", piece.red_sigma),
                                ("endosteum", piece.endosteum), ("endosteum_model", piece.endosteum_sigma)):  # fmt: skip
                collected[key].append(values)
            mean = float(piece.voxel @ piece.marrow) / max(float(piece.marrow.sum()), 1e-300)
            relative = sigmas.get(organ, math.nan) / mean if mean > 0 else 0.0
            sigma_bound += relative * float(piece.red @ weight)
    if not collected["dose"]:
        return None
    joined = {key: np.concatenate(arrays) for key, arrays in collected.items()}
    weight = joined["weight"] / joined["weight"].sum()
    if components is None and photons and charged:
        notes.append(
            "Photon and charged-particle dose were not scored apart: the marrow's dose is the mean of what each would give, "
            "and their distance is in its uncertainty."
        )
    notes += factors.notes
    rows, model = [], []
    masses_g = (active_g, marrow_g * Spongiosa().endosteum_mass_fraction)
    columns = ((RED_MARROW, "dose", "model"), (ENDOSTEUM, "endosteum", "endosteum_model"))
    for (name, key, key_sigma), mass_g in zip(columns, masses_g, strict=True):
        sigma = sigma_bound * float(joined[key] @ weight) / max(float(joined["dose"] @ weight), 1e-300)
        rows.append(_row(name, joined[key], weight, mass_g, sigma))
        model.append(float(joined[key_sigma] @ weight))
    return MarrowDoses(rows[0], rows[1], model[0], model[1], min(1.0, seen), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Piece:
    """Voxels of one bone: dose, marrow volume, converted doses and their model uncertainty."""

    voxel: NDArray[np.float64]
    marrow: NDArray[np.float64]
    red: NDArray[np.float64]
    red_sigma: NDArray[np.float64]
    endosteum: NDArray[np.float64]
    endosteum_sigma: NDArray[np.float64]


def _kinds(emissions: Sequence[Emission]) -> tuple[list[Emission], list[Emission]]:
    """Photons and charged particles; a kind that carries next to no energy is left out, its bremsstrahlung goes with betas."""
    kinds = [e for e in emissions if e.particle == "photon"], [e for e in emissions if e.particle != "photon"]
    energies = [sum(e.yield_per_decay * e.mean_energy_MeV for e in kind) for kind in kinds]
    kept = [kind if energy > LEAST_ENERGY_SHARE * sum(energies) else [] for kind, energy in zip(kinds, energies, strict=True)]
    return kept[0], kept[1]


class _Factors:
    """Marrow dose over voxel dose, for photons and charged particles, per material of the phantom."""

    def __init__(self, materials: Sequence[Material], photons: Sequence[Emission], charged: Sequence[Emission], source: str):
        self.marrow = get_material("red_marrow")
        self.materials = tuple(materials)
        self.charged, self.source = tuple(charged), source
        self.lines = _lines(photons)
        self.notes: list[str] = []
        self._known: dict[int, NDArray[np.float64]] = {}
        reference = TRABECULAR_BONE_VOLUME_FRACTION
        self.structures = [Spongiosa(f) for f in (reference, reference / 2, reference * 2)]
        if self.lines[0].size:
            self.enhancement = [marrow_enhancement(s, self.lines[0]) for s in self.structures]
            self.degraded = marrow_enhancement(self.structures[0], np.maximum(self.lines[0] / 2, SMALLEST_PHOTON_MEV))
            self.notes.append(
                "Photon factors hold for the emitted energies; half of these, as after scattering, is in the uncertainty."
            )
        if charged:
            self.notes.append(
                "Charged particles reach the marrow in equilibrium (ratio of collision stopping powers); if the activity sits "
                "in the marrow itself and its betas are short against the trabeculae, its dose is up to 1.3 times that."
                if source == EQUILIBRIUM
                else f"Charged particles: absorbed fractions in plates of trabecular bone, source in bones: {source}."
            )

    def of(self, index: int) -> NDArray[np.float64]:
        """Rows photon and charged; columns red marrow, its sigma, endosteum, its sigma."""
        if index not in self._known:
            self._known[index] = np.array([self._photon(self.materials[index]), self._charged(self.materials[index])])
        return self._known[index]

    def _photon(self, medium: Material) -> tuple[float, float, float, float]:
        energies, yields = self.lines
        if not energies.size:
            return 1.0, 0.0, 1.0, 0.0
        # by energy emitted: what each line gives in equilibrium; the fluence of soft X rays does not reach bones from elsewhere
        weight = yields * energies
        halved = np.maximum(energies / 2, SMALLEST_PHOTON_MEV)
        ratio, lower = np.split(photon_ratio(self.marrow, medium, np.concatenate([energies, halved])), 2)
        weight = weight / weight.sum()
        result = []
        for which in (0, 1):
            of_structures = [float(weight @ (ratio * enhancement[which])) for enhancement in self.enhancement]
            spread = (max(of_structures) - min(of_structures)) / math.sqrt(12)
            scattered = abs(float(weight @ (lower * self.degraded[which])) - of_structures[0]) / math.sqrt(12)
            result += [of_structures[0], math.hypot(spread, scattered)]
        return result[0], result[1], result[2], result[3]

    def _charged(self, medium: Material) -> tuple[float, float, float, float]:
        if not self.charged:
            return 1.0, 0.0, 1.0, 0.0
        total = sum(e.yield_per_decay * e.mean_energy_MeV for e in self.charged)
        sums = np.zeros((len(self.structures), 2))
        ratios = self._stopping_ratios(medium) if self.source == EQUILIBRIUM else []
        for place, emission in enumerate(self.charged):
            part = emission.yield_per_decay * emission.mean_energy_MeV / total
            energies, probability = _bins(emission)
            by_energy = probability * energies / float(probability @ energies)
            alpha = emission.particle == "alpha"
            if self.source == EQUILIBRIUM:
                sums += part * float(by_energy @ ratios[place])
                continue
            for n, structure in enumerate(self.structures):
                particle = "alpha" if alpha else "electron"
                red, near = absorbed_fractions(structure, energies, source=self.source, particle=particle)
                marrow_mass = 1 - structure.bone_mass_fraction
                sums[n] += (
                    part * np.array([by_energy @ red, by_energy @ near / structure.endosteum_mass_fraction]) / marrow_mass
                )
        spread = (sums.max(axis=0) - sums.min(axis=0)) / math.sqrt(12)
        return float(sums[0, 0]), float(spread[0]), float(sums[0, 1]), float(spread[1])

    def _stopping_ratios(self, medium: Material) -> list[NDArray[np.float64]]:
        """`stopping_ratio` at the energies of every charged emission; one slowing-down per kind of particle serves them all."""
        found: dict[int, NDArray[np.float64]] = {}
        for particle in dict.fromkeys(emission.particle for emission in self.charged):
            places = [n for n, emission in enumerate(self.charged) if emission.particle == particle]
            energies = [_bins(self.charged[n])[0] for n in places]
            ratio = stopping_ratio(self.marrow, medium, np.concatenate(energies), particle=particle)
            found |= zip(places, np.split(ratio, np.cumsum([e.size for e in energies])[:-1]), strict=True)
        return [found[n] for n in range(len(self.charged))]


def _lines(photons: Sequence[Emission]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Photon energies and numbers, without those that are absorbed where they start or carry next to nothing."""
    energy = np.array([energy for e in photons for energy in _bins(e)[0]], dtype=np.float64)
    count = np.array([e.yield_per_decay * p for e in photons for p in _bins(e)[1]], dtype=np.float64)
    far = energy > LOCAL_PHOTON_MEV if (energy > LOCAL_PHOTON_MEV).any() else energy > 0
    energy, count = energy[far], count[far]
    kept = count * energy > 1e-3 * float(count @ energy)
    return np.clip(energy[kept], SMALLEST_PHOTON_MEV, LARGEST_PHOTON_MEV), count[kept]


def _bins(emission: Emission) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = np.maximum((emission.edges_MeV[1:] + emission.edges_MeV[:-1]) / 2, 1e-3)
    return middle, emission.probability


def _labelled_bones(labels: LabelMap, shares: Mapping[str, float]) -> dict[tuple[str, ...], tuple[float, list[str]]]:
    """Groups of labels that share one part of the marrow; a label of the whole skeleton holds what no other label does."""
    counts = labels.voxel_counts()
    groups: dict[tuple[str, ...], tuple[float, list[str]]] = {}
    taken: set[str] = set()
    named = [(name, bones_of(name)) for name in counts if counts[name]]
    for name, bones in sorted(named, key=lambda item: (item[1] == ("*",), len(item[1]))):
        if not bones:
            continue
        wanted = tuple(b for b in shares if b not in taken) if bones == ("*",) else tuple(b for b in bones if b in shares)
        if bones in groups:
            groups[bones][1].append(name)
            continue
        new = tuple(b for b in wanted if b not in taken)
        if new:
            groups[bones] = (sum(shares[b] for b in new), [name])
            taken.update(new)
    return groups


def _describe(
    groups: Mapping[tuple[str, ...], tuple[float, list[str]]], shares: Mapping[str, float], seen: float, adult: bool
) -> str:
    names = [name for _, organs in groups.values() for name in organs]
    named = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    whose = "adults (ICRP 110)" if adult else "the plan"
    if ("*",) in groups:
        return (
            f"Red marrow and endosteum: spongiosa method over {named}; active marrow as of {whose} for bones with a name, by "
            "density for the rest of the skeleton."
        )
    return (
        f"Red marrow and endosteum: spongiosa method over {named}, which hold {seen / sum(shares.values()):.0%} of the active "
        f"marrow (distribution of {whose}); the rest is taken to receive their mean dose."
    )


def _photon_share(
    organ: str, components: Mapping[str, Mapping[str, float]] | None, photons: Sequence[Emission], charged: Sequence[Emission]
) -> float:
    """Share of the organ's dose by emitted photons; nan if not known."""
    if not photons or not charged:
        return 1.0 if photons else 0.0
    if components is None:
        return math.nan
    total = sum(organs.get(organ, 0.0) for organs in components.values())
    return components.get("photon", {}).get(organ, 0.0) / total if total > 0 else math.nan


def _voxels(organ: str, dose: DoseMap, phantom: VoxelPhantom, factors: _Factors, photon_share: float) -> _Piece:
    where = phantom.labels.mask(organ)
    voxel = dose.dose_Gy[where].astype(np.float64)
    density = phantom.density_g_cm3[where].astype(np.float64)
    marrow = np.clip((BONE_DENSITY - density) / (BONE_DENSITY - MARROW_DENSITY), 0.0, 1.0)
    marrow[(marrow < LEAST_MARROW) | (density < 0.5)] = 0.0  # compact bone, or air in a bone's label
    index = phantom.material_index[where]
    table = np.zeros((max(len(phantom.materials), 1), 2, 4))
    for material in np.unique(index[marrow > 0]):
        table[material] = factors.of(int(material))
    of_voxels = table[index]
    known = not math.isnan(photon_share)
    share = photon_share if known else 0.5
    mixed = share * of_voxels[:, 0] + (1 - share) * of_voxels[:, 1]
    results = []
    for column in (0, 2):
        # two limits, taken as equally probable in between: 1/sqrt(12) of their distance
        unknown = 0.0 if known else np.abs(of_voxels[:, 0, column] - of_voxels[:, 1, column]) / math.sqrt(12)
        results += [mixed[:, column] * voxel, np.hypot(mixed[:, column + 1], unknown) * voxel]
    return _Piece(voxel, marrow, *results)


def _sigma_map(given: Mapping[str, float] | Iterable[OrganDose] | None) -> dict[str, float]:
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {o.organ: o.sigma_Gy for o in given}


def _row(name: str, dose: NDArray[np.float64], weight: NDArray[np.float64], mass_g: float, sigma: float) -> OrganDoseRow:
    """Statistics of marrow voxels, weighted by the marrow they stand for."""
    held = weight > 0
    order = np.argsort(dose[held])
    ordered, share = dose[held][order], weight[held][order]
    middle = (np.cumsum(share) - share / 2) / share.sum()
    d95, d50, d5 = (float(np.interp(1 - x, middle, ordered)) for x in (0.95, 0.5, 0.05))
    mean = float(ordered @ share) / float(share.sum())
    return OrganDoseRow(name, mass_g / MARROW_DENSITY, mass_g, mean, sigma, float(ordered[0]), float(ordered[-1]), d95, d50, d5)
