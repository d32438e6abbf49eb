"""Cases that are not among the references: the engine beside PenRed, run here, with the tolerances of the references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import decay_emissions, get_material
from SynthDoseLib.transport import OrganSource, PointSource
from SynthDoseLib.transport.sources import Source

from .comparison import Comparison, compare
from .peer import BEAM_SETTINGS, REFERENCE_SETTINGS, PeerResult, PeerSettings, PenRed, with_excitation
from .point_kernels import radius_of
from .precision import Effort, precise_run
from .reference_cases import load_case
from .voxel_values import tolerance_at, voxel_phantom

SLAB_SIZE, SLAB_VOXEL_MM = 41, 3.0
SLAB_TOLERANCE = 0.015
PATIENT_LIKE_SIZE = 44


@dataclass(frozen=True)
class Setup:
    """A case for both codes.

    Attributes
    ----------
    tolerances : dict of str to float
        By organ.
    peer_histories_per_s : tuple of float
        Of PenRed, expected, per group of `parts`: sets the length of its runs.
    parts : tuple of tuple of Emission
        Emissions that PenRed runs together: one particle each.
    by_voxels : bool
        PenRed's organ means from its voxels, whose errors are taken as independent (small symmetric organs); otherwise the
        organs are materials of their own there.
    """

    title: str
    phantom: VoxelPhantom
    source: Source
    parts: tuple[tuple[Emission, ...], ...]
    tolerances: Mapping[str, float]
    peer_histories_per_s: tuple[float, ...]
    by_voxels: bool = False
    settings: PeerSettings = REFERENCE_SETTINGS


def compare_setup(setup: Setup, effort: Effort, peer: PenRed, seconds: float) -> list[Comparison]:
    """Run both codes and compare the organ means."""
    return compare_means(setup, effort, *peer_means(setup, peer, seconds))


def peer_means(setup: Setup, peer: PenRed, seconds: float) -> tuple[dict[str, tuple[float, float]], dict[int, float]]:
    """PenRed's organ means with their errors, Gy per decay, and its mean excitation energies by material index, eV."""
    names = list(setup.tolerances)
    tallied = [] if setup.by_voxels else names
    total = dict.fromkeys(names, (0.0, 0.0))
    excitation_eV: dict[int, float] = {}
    for part, rate in zip(setup.parts, setup.peer_histories_per_s, strict=True):
        found = peer.run(setup.phantom, setup.source, part, tallied, int(seconds * rate), settings=setup.settings)
        excitation_eV = found.mean_excitation_eV
        weight = sum(emission.yield_per_decay for emission in part)
        for name in names:
            mean, error = _voxel_mean(setup.phantom, found, name) if setup.by_voxels else found.organs[name]
            total[name] = (total[name][0] + weight * mean, float(np.hypot(total[name][1], weight * error)))
    return total, excitation_eV


def compare_means(
    setup: Setup, effort: Effort, means: Mapping[str, tuple[float, float]], excitation_eV: Mapping[int, float]
) -> list[Comparison]:
    """Run the engine and compare its organ means with those of `peer_means`, as far as these are known to 10 %."""
    emissions = [emission for part in setup.parts for emission in part]
    phantom = with_excitation(setup.phantom, excitation_eV)
    result = precise_run(phantom, setup.source, emissions, setup.tolerances, effort, seed=301)
    own = {organ.organ: (organ.dose_Gy, organ.sigma_Gy) for organ in result.organs}
    return [
        compare(setup.title, name, own[name], means[name], setup.tolerances[name], share=effort.share)
        for name in setup.tolerances
        if means[name][0] > 0 and means[name][1] < 0.1 * means[name][0]
    ]


def _voxel_mean(phantom: VoxelPhantom, found: PeerResult, name: str) -> tuple[float, float]:
    mask = phantom.labels.mask(name)
    return float(found.dose_Gy[mask].mean()), float(np.sqrt((found.sigma_Gy[mask] ** 2).sum()) / mask.sum())


def voxel_setup(nuclide: str, material: Material, voxel_mm: float, rates: Mapping[str, float]) -> Setup:
    """S values of the betas of a nuclide (for positrons with their annihilation quanta)."""
    parts = [(emission,) for emission in decay_emissions(nuclide) if emission.label in rates]
    phantom = voxel_phantom(material, voxel_mm)
    wanted = {
        organ.name: tolerance_at([int(n) for n in organ.name[1:]]) for organ in phantom.labels.organs if organ.name[1] < "3"
    }
    title = f"{nuclide} {' and '.join(rates)}, {material.name}, {voxel_mm:g} mm"
    return Setup(title, phantom, OrganSource({"S000": 1.0}), tuple(parts), wanted, tuple(rates.values()), by_voxels=True)


def slab_phantom(materials: Sequence[Material], edges: Sequence[int], source: tuple[int, int, int]) -> VoxelPhantom:
    """Slabs along k that begin at `edges`; organs: the source voxel, and two boxes of 9 x 9 x 4 voxels in every slab."""
    shape = (SLAB_SIZE,) * 3
    slab = np.searchsorted(edges, np.arange(SLAB_SIZE), side="right") - 1
    material = np.broadcast_to(slab[:, None, None], shape).astype(np.uint8)
    density = np.array([m.density_g_cm3 for m in materials], np.float32)[material]
    labels, organs = np.zeros(shape, np.uint16), []
    for number, start in enumerate(edges):
        end = edges[number + 1] if number + 1 < len(edges) else SLAB_SIZE
        for part, low in (("near the lower face", start), ("near the upper face", end - 4)):
            organs.append(Organ(len(organs) + 1, f"{materials[number].name} {number}, {part}"))
            labels[low : low + 4, 16:25, 16:25] = len(organs)
    organs.append(Organ(len(organs) + 1, "source voxel"))
    labels[source] = len(organs)
    grid = VoxelGrid.from_spacing(shape, (SLAB_VOXEL_MM,) * 3)
    return VoxelPhantom(grid, material, density, tuple(materials), LabelMap(grid, labels, tuple(organs)))


def slab_setup(particle: str, energy_MeV: float, source: tuple[int, int, int], chosen: Sequence[int], rate: float) -> Setup:
    """A voxel that emits a line, in slabs of soft tissue, lung and bone; `chosen` organs are compared."""
    materials = [replace(get_material(name), name=name) for name in ("soft_tissue", "lung", "bone")]
    phantom = slab_phantom(materials, (0, 15, 26), source)
    names = [phantom.labels.organs[n].name for n in chosen]
    emission = Emission.line(particle, energy_MeV, 1.0)
    title = f"{particle}s of {energy_MeV:g} MeV in slabs"
    return Setup(
        title, phantom, OrganSource({"source voxel": 1.0}), ((emission,),), dict.fromkeys(names, SLAB_TOLERANCE), (rate,)
    )


def patient_setup(nuclide: str, source: str, targets: Sequence[str], rates: Mapping[str, float]) -> Setup:
    """Organ means in the patient phantom of the references: self 1 %, cross 2 %."""
    phantom = load_case("f_patient_Lu-177_kidneys").phantom
    parts = tuple((emission,) for emission in decay_emissions(nuclide) if emission.label in rates)
    wanted = {name: 0.01 if name == source else 0.02 for name in [source, *targets]}
    return Setup(f"{nuclide} in the {source}", phantom, OrganSource({source: 1.0}), parts, wanted, tuple(rates.values()))


def beam_setup(particle: str, energy_MeV: float, depths_cm: Mapping[str, tuple[float, float]], rate: float) -> Setup:
    """A field of 10 x 10 cm on the slabs of the reference beam; regions of 4 x 4 cm on its axis."""
    case = load_case("e_6MV_10x10_slabs")
    labels = np.zeros(case.phantom.grid.shape, np.uint16)
    for number, (low, high) in enumerate(depths_cm.values(), start=1):
        labels[round(2 * low) : round(2 * high), 26:34, 26:34] = number
    organs = tuple(Organ(n, name) for n, name in enumerate(depths_cm, start=1))
    phantom = replace(case.phantom, labels=LabelMap(case.phantom.grid, labels, organs))
    emission = Emission.line(particle, energy_MeV, 1.0)
    wanted = {name: 0.05 if low == 0 else 0.01 for name, (low, _) in depths_cm.items()}
    title = f"beam of {particle}s of {energy_MeV:g} MeV on slabs"
    return Setup(title, phantom, case.source, ((emission,),), wanted, (rate,), settings=BEAM_SETTINGS)


def patient_like_setup(nuclide: str, label: str, source: str, targets: Sequence[str], voxel_mm: float, rate: float) -> Setup:
    """Lung, liver with a tumour, vertebra with marrow, rib, fat; densities of voxels vary by 5 %: self 1 %, cross 2 %."""
    names = ("adipose", "soft_tissue", "lung", "bone", "red_marrow", "liver")
    materials = tuple(replace(get_material(name), name=name) for name in names)
    size = PATIENT_LIKE_SIZE
    axis = (np.arange(size) + 0.5) / size - 0.5
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    lung, rim = (((x + 0.2) / 0.15) ** 2 + ((y + 0.05) / 0.22) ** 2 + (z / height) ** 2 for height in (0.4, np.inf))
    liver = ((x - 0.17) / 0.19) ** 2 + ((y + 0.05) / 0.22) ** 2 + (z / 0.4) ** 2
    tumour = (x - 0.17) ** 2 + (y + 0.05) ** 2 + z**2
    spine = np.hypot(x, y - 0.25)
    shapes = (  # the later lie over the earlier: organ, material, where
        ("body", 1, np.hypot(x, y) < 0.46), ("lung core", 2, lung < 1), ("lung rim", 2, (lung < 1) & (rim > 0.64)),
        ("liver", 5, liver < 1), ("tumour", 1, tumour < 0.08**2), ("cortex", 3, (spine < 0.13) & (np.abs(z) < 0.2)),
        ("marrow", 4, (spine < 0.1) & (np.abs(z) < 0.17)),
        ("rib", 3, (np.abs(np.hypot(x, y) - 0.42) < 0.03) & (np.abs(z) < 0.06)),
    )  # fmt: skip
    labels, material = np.zeros((size,) * 3, np.uint16), np.zeros((size,) * 3, np.uint8)
    for number, (_, kind, where) in enumerate(shapes, start=1):
        labels[where], material[where] = number, kind
    vary = np.random.default_rng(4).normal(1.0, 0.05, labels.shape).clip(0.8, 1.2)
    density = (np.array([m.density_g_cm3 for m in materials])[material] * vary).astype(np.float32)
    grid = VoxelGrid.from_spacing(labels.shape, (voxel_mm,) * 3)
    organs = tuple(Organ(n, name) for n, (name, _, _) in enumerate(shapes, start=1))
    phantom = VoxelPhantom(grid, material, density, materials, LabelMap(grid, labels, organs))
    parts = tuple((emission,) for emission in decay_emissions(nuclide) if emission.label == label)
    wanted = {name: 0.01 if name == source else 0.02 for name in [source, *targets]}
    title = f"{nuclide} {label} in the {source}, patient-like, {voxel_mm:g} mm"
    return Setup(title, phantom, OrganSource({source: 1.0}), parts, wanted, (rate,))


def megavolt_setup(megavolts: float, rate: float) -> Setup:
    """A photon beam on the slabs of the reference; its spectrum falls to 0 at the end and below an eighth of it."""
    depths = {"lung 6-9 cm": (6.0, 9.0), "11-14 cm": (11.0, 14.0), "bone 15-17 cm": (15.0, 17.0), "18-25 cm": (18.0, 25.0)}
    edges = np.linspace(0.2, megavolts, 40)
    energy = edges[:-1]
    weight = (1 - energy / megavolts) * -np.expm1(-((energy / (0.12 * megavolts)) ** 2)) / np.sqrt(energy)
    spectrum = Emission("photon", 1.0, edges_MeV=edges, probability=weight / weight.sum())
    return replace(beam_setup("photon", 1.0, depths, rate), title=f"{megavolts:g} MV on slabs", parts=((spectrum,),))


def compare_kernel(
    energy_MeV: float, range_cm: float, rate: float, effort: Effort, peer: PenRed, seconds: float
) -> list[Comparison]:
    """R50 and R90 of electrons from a point in soft tissue, both codes in the same voxels of 0.05 ranges."""
    size, per_range = 53, 20
    axis = np.arange(size) - size // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    labels = np.where(distance < size / 2, 1 + np.floor(distance), 0).astype(np.uint16)
    grid = VoxelGrid.from_spacing((size,) * 3, (10 * range_cm / per_range,) * 3)
    organs = tuple(Organ(n, str(n)) for n in range(1, int(labels.max()) + 1))
    ones = np.ones(grid.shape, np.float32)
    soft = get_material("soft_tissue_icru_four_component")  # of density 1 as well
    phantom = VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), ones, (soft,), LabelMap(grid, labels, organs))
    emission = Emission.line("electron", energy_MeV, 1.0)
    source = PointSource((0.0, 0.0, 0.0))
    settings = PeerSettings(electron_cut_eV=2e3, photon_cut_eV=1e3, wcc_eV=2e3, wcr_eV=2e3)
    edges = np.arange(labels.max() + 1) * range_cm / per_range
    radii: tuple[list[list[float]], list[list[float]]] = ([], [])
    for seed in range(4):
        found = peer.run(phantom, source, [emission], [], int(seconds * rate / 4), settings=settings, seed=3 + seed)
        wanted = {"8": 0.01, "16": 0.01}
        same = with_excitation(phantom, found.mean_excitation_eV)
        result = precise_run(same, source, [emission], wanted, effort, seed=401 + 2 * seed)
        for which, dose in enumerate((result.dose.dose_Gy.astype(np.float64), found.dose_Gy)):
            energy = np.bincount(labels.ravel(), weights=dose.ravel())[1:]
            radii[which].append([radius_of(energy, edges, part) for part in (0.5, 0.9)])
    means, errors = np.mean(radii, axis=1), np.std(radii, axis=1, ddof=1) / 2
    title = f"electrons of {energy_MeV:g} MeV in soft tissue"
    return [
        compare(title, name, (means[0, n], errors[0, n]), (means[1, n], errors[1, n]), 0.01, share=effort.share)
        for n, name in enumerate(("R50", "R90"))
    ]


def all_setups() -> list[Setup]:
    """The cases, about a minute of PenRed each."""
    lung, bone = replace(get_material("lung"), name="lung"), get_material("bone_compact_icru")
    soft = get_material("soft_tissue_icru_four_component")
    depths = {"0-0.5 cm": (0.0, 0.5), "1-4 cm": (1.0, 4.0), "lung 6-9 cm": (6.0, 9.0)}
    return [
        voxel_setup("Sr-89", soft, 3.0, {"beta-": 9000}),
        voxel_setup("Sr-89", bone, 3.0, {"beta-": 6000}),
        voxel_setup("Re-188", lung, 3.0, {"beta-": 9000}),
        voxel_setup("F-18", soft, 4.0, {"beta+": 8000}),
        slab_setup("photon", 0.06, (20, 20, 20), (0, 1, 2, 3, 4), 80_000),
        slab_setup("photon", 1.25, (20, 20, 20), (1, 2, 3, 4), 20_000),
        slab_setup("electron", 0.8, (15, 20, 20), (1, 2, 6), 9000),
        patient_setup("I-131", "liver", ("kidneys", "lungs", "spleen", "spine"), {"beta-": 18_000, "gamma": 15_000}),
        beam_setup("photon", 1.25, {**depths, "bone 15-17 cm": (15, 17)}, 50_000),
        beam_setup("electron", 12.0, depths, 2500),
        megavolt_setup(4.0, 40_000),
        megavolt_setup(18.0, 15_000),
        patient_like_setup("P-32", "beta-", "lung rim", ("lung core",), 1.0, 5000),
        patient_like_setup("Y-90", "beta-", "marrow", ("cortex",), 2.0, 5000),
    ]


def all_comparisons(effort: Effort, seconds: float, say: Callable[[list[Comparison]], None]) -> list[Comparison]:
    """Run all of them; `say` is told the rows of each as they come."""
    peer = PenRed()
    rows: list[Comparison] = []
    for energy_MeV, range_cm, rate in ((0.1, 0.01431, 5000.0), (0.3, 0.08421, 4000.0)):
        rows += compare_kernel(energy_MeV, range_cm, rate, effort, peer, seconds)
        say(rows[-2:])
    for setup in all_setups():
        found = compare_setup(setup, effort, peer, seconds)
        say(found)
        rows += found
    return rows
