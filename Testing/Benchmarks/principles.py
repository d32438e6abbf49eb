"""What holds for any cross sections: closed forms, Fano's theorem, reciprocity, energy balance, geometry, estimators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from SynthDoseLib.core import Emission, LabelMap, Material, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import alpha_csda_range, decay_emissions, get_material, photon_cross_sections, stopping_powers
from SynthDoseLib.transport import OrganSource, PointSource, RunSettings, SimulationResult, SphereSource, VolumeSource, simulate
from SynthDoseLib.transport.sources import Source

from .comparison import Comparison, absolute, compare
from .penred_cases import slab_phantom
from .point_kernels import PENRED_WATER
from .precision import Effort, precise_run
from .pulls import SOURCE, pulls_of, two_organs
from .reference_cases import CASES, REFERENCE, load_case
from .shells import sphere_directions

WATER = get_material("water")
MEV_PER_G_IN_GY = 1.602176634e-10
SEEDS = 8
TILT = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.array(
    [[1.0, 0.0, 0.0], [0.0, 0.28, -0.96], [0.0, 0.96, 0.28]]
)


def cube_in_water(voxels: int, margin: int, voxel_cm: float, water: Material = WATER) -> VoxelPhantom:
    """A cube of water with the organ "cube" in its middle."""
    size = voxels + 2 * margin
    grid = VoxelGrid.from_spacing((size,) * 3, (10 * voxel_cm,) * 3)
    labels = np.zeros(grid.shape, np.uint16)
    labels[(slice(margin, margin + voxels),) * 3] = 1
    return VoxelPhantom(
        grid,
        np.zeros(grid.shape, np.uint8),
        np.ones(grid.shape, np.float32),
        (water,),
        LabelMap(grid, labels, organ_table(["cube"])),
    )


def cube_overlap(radii_cm: NDArray[np.float64], side_cm: float) -> NDArray[np.float64]:
    """Share of the points at a distance (n,) from points of a cube that lie in it as well: both uniform, all directions."""
    directions = np.abs(sphere_directions(4000))
    kept = np.maximum(1 - radii_cm[:, None, None] * directions / side_cm, 0)
    return np.asarray(kept.prod(axis=-1).mean(axis=-1))


def closed_forms(effort: Effort) -> list[Comparison]:
    """Absorbed fractions of cubes: the point kernel times the share of each distance that lies inside, integrated."""
    rows = []
    energy_MeV = 6.0
    left = np.linspace(0, energy_MeV, 400)[1:]
    ranges_cm = alpha_csda_range(WATER, left)  # g/cm2 in water of density 1
    for share in (0.5, 2.0):
        side_cm = share * float(ranges_cm[-1])
        # an alpha that has `left` still to go has come this far
        overlap = cube_overlap(ranges_cm[-1] - ranges_cm, side_cm)
        rows.append(_cube("alpha", energy_MeV, side_cm, 5, 20, np.trapezoid(overlap, left) / energy_MeV, 0.0, 0.005, effort))
    for name, energy_MeV in (("a_electron_kernel_0.1MeV", 0.1), ("a_electron_kernel_1MeV", 1.0)):
        csda_cm = 1 / 0.025 * float(np.load(REFERENCE / f"{name}.npz")["edges_cm"][1])
        for share in (0.5, 2.0):
            value, error = _folded(name, share * csda_cm)
            rows.append(
                _cube("electron", energy_MeV, share * csda_cm, 10, max(2, round(13 / share)), value, error, 0.01, effort)
            )
    for name, energy_MeV in (("b_photon_kernel_0.14MeV", 0.14), ("b_photon_kernel_0.662MeV", 0.662)):
        value, error = _folded(name, 10.0)
        rows.append(_cube("photon", energy_MeV, 10.0, 20, 50, value, error, 0.01, effort))
    return rows


def _folded(name: str, side_cm: float) -> tuple[float, float]:
    data = np.load(REFERENCE / f"{name}.npz")
    edges = data["edges_cm"]
    parts = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(4) + 0.5) / 4
    overlap = cube_overlap(parts.ravel(), side_cm).reshape(parts.shape).mean(axis=1)
    return float(overlap @ data["frac"]), float(np.sqrt(overlap**2 @ data["sigma"] ** 2))


def _cube(
    particle: str,
    energy_MeV: float,
    side_cm: float,
    voxels: int,
    margin: int,
    value: float,
    error: float,
    tolerance: float,
    effort: Effort,
) -> Comparison:
    # the electron kernels are PenRed's, in water of its mean excitation energy
    phantom = cube_in_water(voxels, margin, side_cm / voxels, PENRED_WATER if particle == "electron" else WATER)
    emission = Emission.line(particle, energy_MeV, 1.0)
    result = precise_run(phantom, OrganSource({"cube": 1.0}), [emission], {"cube": tolerance / 2}, effort, seed=101)
    own = (
        np.array([result.organs[0].dose_Gy, result.organs[0].sigma_Gy]) * result.organs[0].mass_g / MEV_PER_G_IN_GY / energy_MeV
    )
    quantity = f"absorbed fraction of a cube of {10 * side_cm:.3g} mm"
    return compare(
        f"{particle}s of {energy_MeV:g} MeV", quantity, (own[0], own[1]), (value, error), tolerance, share=effort.share
    )


def fano(effort: Effort) -> list[Comparison]:
    """Uniform emission per mass in water of densities 0.26, 1 and 1.9 mixed at random: the energy per mass everywhere.

    Of what the electrons radiate (half a percent at 1 MeV, two at 4 MeV) some escapes; for photons the margin is 8 mean free
    paths.
    """
    rows = []
    for particle, energy_MeV, voxel_cm, tolerance in (
        ("electron", 0.2, 0.02, 0.005), ("electron", 1.0, 0.1, 0.005), ("electron", 4.0, 0.4, 0.005),
        ("photon", 0.03, 1.0, 0.01),
    ):  # fmt: skip
        size, margin = 41, 12
        phantom, names = _mixed(size, margin, voxel_cm)
        source = VolumeSource(phantom.grid, phantom.density_g_cm3)
        emission = Emission.line(particle, energy_MeV, 1.0)
        result = precise_run(phantom, source, [emission], dict.fromkeys(names, tolerance), effort, seed=111)
        mass_g = float(phantom.density_g_cm3.sum(dtype=np.float64)) * phantom.grid.voxel_volume_ml
        lost = 0.0
        if particle == "electron":
            half_cm, core_cm = 0.5 * size * voxel_cm, (0.5 * size - margin) * voxel_cm
            mean_density = float(phantom.density_g_cm3.mean())
            lost = _radiated_share(energy_MeV) * _escaping_share(energy_MeV, half_cm, core_cm, mean_density)
        expected = energy_MeV * (1 - lost) / mass_g * MEV_PER_G_IN_GY
        for organ in result.organs:
            own = organ.dose_Gy, organ.sigma_Gy
            title = f"{particle}s of {energy_MeV:g} MeV, {10 * voxel_cm:g} mm voxels"
            rows.append(compare(title, organ.organ, own, (expected, 0.0), tolerance, share=effort.share))
    return rows


def _mixed(size: int, margin: int, voxel_cm: float) -> tuple[VoxelPhantom, list[str]]:
    """Water of three densities at random; organs are the voxels of each density in the core."""
    densities = np.array([0.26, 1.0, 1.9], np.float32)
    grid = VoxelGrid.from_spacing((size,) * 3, (10 * voxel_cm,) * 3)
    number = np.random.default_rng(7).integers(0, 3, grid.shape)
    labels = np.zeros(grid.shape, np.uint16)
    core = (slice(margin, size - margin),) * 3
    labels[core] = number[core] + 1
    names = [f"density {density:g}" for density in densities]
    material = np.zeros(grid.shape, np.uint8)
    return VoxelPhantom(grid, material, densities[number], (WATER,), LabelMap(grid, labels, organ_table(names))), names


def _radiated_share(energy_MeV: float) -> float:
    """Radiation yield in the continuous-slowing-down approximation."""
    energies = np.geomspace(1e-3, energy_MeV, 300)
    powers = stopping_powers(WATER, energies)
    return float(np.trapezoid(powers.radiative / powers.total, energies)) / energy_MeV


def _escaping_share(energy_MeV: float, half_cm: float, core_cm: float, density_g_cm3: float) -> float:
    """Share of the radiated energy that a core lacks because it leaves a cube of water where as much is radiated everywhere.

    By reciprocity exp(-mu_en r) along the ways from the core to the faces, with the spectrum of Kramers for electrons that stop
    (energy per interval falls evenly to 0 at the electron's).
    """
    random = np.random.default_rng(3)
    points = random.uniform(-core_cm, core_cm, (4000, 3))
    directions = random.normal(size=points.shape)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    way = ((half_cm - points * np.sign(directions)) / np.abs(directions)).min(axis=1)
    photon = np.linspace(0.005, energy_MeV, 200)
    mu = density_g_cm3 * photon_cross_sections(WATER, photon).energy_absorption
    return float(np.average(np.exp(-mu[:, None] * way).mean(axis=1), weights=energy_MeV - photon))


def reciprocity(effort: Effort) -> list[Comparison]:
    """In one medium the dose of B from decays in A is that of A from decays in B."""
    grid = VoxelGrid.from_spacing((45, 45, 45), (10.0, 10.0, 10.0))
    labels = np.zeros(grid.shape, np.uint16)
    labels[21:24, 20:25, 17:19], labels[22:23, 19:26, 25:29] = 1, 2
    ones = np.ones(grid.shape, np.float32)
    phantom = VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), ones, (WATER,), LabelMap(grid, labels, organ_table(["A", "B"]))
    )
    rows = []
    for energy_MeV in (0.03, 0.14, 0.662):
        emissions = [Emission.line("photon", energy_MeV, 1.0)]
        doses = []
        for source, target in (("A", "B"), ("B", "A")):
            # so few photons of 0.03 MeV arrive that 100 000 histories misjudge how many it takes
            trial = 1_000_000
            result = precise_run(phantom, OrganSource({source: 1.0}), emissions, {target: 0.01}, effort, seed=121, first=trial)
            doses.append(_dose(result, target))
        rows.append(
            compare(f"photons of {energy_MeV:g} MeV", "A to B over B to A", doses[0], doses[1], 0.01, share=effort.share)
        )
    return rows


def _dose(result: SimulationResult, name: str) -> tuple[float, float]:
    organ = next(organ for organ in result.organs if organ.organ == name)
    return organ.dose_Gy, organ.sigma_Gy


def energy_balance(effort: Effort) -> list[Comparison]:
    """Analog: what is scored and what escapes is what was emitted; other estimators: on average."""
    rows = []
    for name in CASES:
        case = load_case(name)
        settings = RunSettings(histories=20_000, seed=131, device=effort.device, threads=effort.threads, estimator="analog")
        result = simulate(case.phantom, case.source, case.emissions, settings)
        balance = (result.energy_scored_MeV + result.energy_escaped_MeV) / result.energy_emitted_MeV - 1
        rows.append(absolute(name, "analog: (scored + escaped) / emitted - 1", balance, 0.0, 1e-6))
        balances = []
        for seed in range(SEEDS):
            settings = RunSettings(
                histories=int(100_000 * effort.share), seed=141 + seed, device=effort.device, threads=effort.threads
            )
            result = simulate(case.phantom, case.source, case.emissions, settings)
            balances.append((result.energy_scored_MeV + result.energy_escaped_MeV) / result.energy_emitted_MeV - 1)
        mean, error = _mean(balances)
        rows.append(absolute(name, "auto: (scored + escaped) / emitted - 1", float(mean), float(error), 1e-6))
    return rows


def _mean(values: Sequence[object]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    return array.mean(axis=0), array.std(axis=0, ddof=1) / np.sqrt(len(array))


def oblique_source(effort: Effort) -> list[Comparison]:
    """Centre of the energy that electrons of 3 MeV leave around sources off the centre of an oblique phantom, mm."""
    spacing = np.array([2.0, 2.5, 3.0])
    origin = np.array([-20.0, 35.0, 110.0])
    grid = VoxelGrid.from_spacing((31, 35, 41), tuple(spacing), directions=TILT, origin_ras_mm=tuple(origin))
    labels = LabelMap(grid, np.ones(grid.shape, np.uint16), organ_table(["all"]))
    phantom = VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (WATER,), labels)
    place = np.array([14, 20, 11])  # i, j, k
    ras = origin + TILT @ (spacing * place)
    turned = VoxelGrid.from_spacing(
        (3, 3, 3), (1.0, 1.0, 1.0), directions=TILT.T, origin_ras_mm=tuple(ras - TILT.T @ np.ones(3))
    )
    hot = np.zeros((3, 3, 3), np.float32)
    hot[1, 1, 1] = 1.0
    position = float(ras[0]), float(ras[1]), float(ras[2])
    sources: dict[str, Source] = {
        "point": PointSource(position), "sphere": SphereSource(position, 2.0),
        "voxel of a grid turned otherwise": VolumeSource(turned, hot),
    }  # fmt: skip
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")[::-1], axis=-1)
    centres = origin + (index * spacing) @ TILT.T
    rows = []
    for name, source in sources.items():
        found = []
        for seed in range(SEEDS):
            settings = RunSettings(
                histories=int(20_000 * effort.share), seed=151 + seed, device=effort.device, threads=effort.threads
            )
            result = simulate(phantom, source, [Emission.line("electron", 3.0, 1.0)], settings)
            energy = np.asarray(result.dose.dose_Gy, dtype=np.float64)
            found.append((energy[..., None] * centres).sum(axis=(0, 1, 2)) / energy.sum())
        mean, error = _mean(found)
        for axis, letter in enumerate("RAS"):
            rows.append(absolute(name, f"{letter}, mm", float(mean[axis] - ras[axis]), float(error[axis]), 0.1))
    return rows


def estimators(effort: Effort) -> list[Comparison]:
    """The estimator chosen automatically beside the analog one in slabs of soft tissue, lung and bone."""
    materials = [get_material(name) for name in ("soft_tissue", "lung", "bone")]
    phantom = slab_phantom(materials, (0, 15, 26), (20, 20, 20))
    boxes = [organ.name for organ in phantom.labels.organs if organ.name != "source voxel"]
    rows = []
    for energy_MeV in (0.06, 0.14, 0.364, 0.662):
        emissions = [Emission.line("photon", energy_MeV, 1.0)]
        source = OrganSource(dict.fromkeys(boxes, 1.0))
        wanted = dict.fromkeys(boxes, 0.01)
        own = precise_run(phantom, source, emissions, wanted, Effort(effort.share, effort.threads, "auto"), seed=161)
        analog = precise_run(phantom, source, emissions, wanted, Effort(effort.share, effort.threads, "analog"), seed=171)
        rows += [
            compare(
                f"photons of {energy_MeV:g} MeV, activity in all boxes",
                name,
                _dose(own, name),
                _dose(analog, name),
                0.01,
                share=effort.share,
            )
            for name in boxes
        ]
    return rows


def honest_sigma(effort: Effort) -> list[Comparison]:
    """Pulls between independent seeds: mean 0, mean square 1."""
    rows = []
    for nuclide, histories, pairs in (("Lu-177", 100_000, 32), ("I-131", 100_000, 32)):
        settings = RunSettings(histories=histories, seed=200, threads=effort.threads)
        pairs = max(8, int(pairs * effort.share))
        for what, pulls in zip(
            ("organs", "voxels"), pulls_of(two_organs(), SOURCE, decay_emissions(nuclide), settings, pairs), strict=True
        ):
            for quantity, (value, error), right in (("mean", pulls.bias, 0.0), ("mean square", pulls.width, 1.0)):
                title = f"{nuclide}, {pulls.number} {what}, {pairs} pairs of runs"
                rows.append(absolute(title, f"{quantity} of the pulls, less {right:g}", value - right, error, 0.05))
    return rows
