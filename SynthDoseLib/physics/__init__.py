"""Materials, cross sections, stopping powers and decay data, from tables that ship with their provenance."""

from .alphas import alpha_csda_range, alpha_stopping_power
from .bremsstrahlung import BremsstrahlungSpectrum, bremsstrahlung_spectrum
from .decay import (
    DecayChain,
    Nuclide,
    decay_chain,
    decay_data_edition,
    decay_emissions,
    get_nuclide,
    line_emission,
    nuclide_name,
    nuclides,
    radioactive_progeny,
)
from .elastic import elastic_moments, elastic_total
from .electrons import (
    StoppingPowers,
    csda_range,
    density_effect,
    positron_radiative_ratio,
    resonances,
    stopping_powers,
)
from .energy_absorption import fluorescence_fraction
from .materials import (
    atomic_weights,
    atoms_per_gram,
    electrons_per_gram,
    elements,
    get_material,
    materials_table,
    mean_excitation_energy,
)
from .photons import PhotonCrossSections, absorption_edges, element_cross_sections, photon_cross_sections
from .scattering import (
    AtomicShell,
    FluorescenceLine,
    atomic_shells,
    form_factor,
    incoherent_scattering_function,
    shell_fractions,
)
from .tables import about_table

__all__ = [
    "AtomicShell",
    "BremsstrahlungSpectrum",
    "DecayChain",
    "FluorescenceLine",
    "Nuclide",
    "PhotonCrossSections",
    "StoppingPowers",
    "about_table",
    "absorption_edges",
    "alpha_csda_range",
    "alpha_stopping_power",
    "atomic_shells",
    "atomic_weights",
    "atoms_per_gram",
    "bremsstrahlung_spectrum",
    "csda_range",
    "decay_chain",
    "decay_data_edition",
    "decay_emissions",
    "density_effect",
    "elastic_moments",
    "elastic_total",
    "electrons_per_gram",
    "element_cross_sections",
    "elements",
    "fluorescence_fraction",
    "form_factor",
    "get_material",
    "get_nuclide",
    "incoherent_scattering_function",
    "line_emission",
    "materials_table",
    "mean_excitation_energy",
    "nuclide_name",
    "nuclides",
    "photon_cross_sections",
    "positron_radiative_ratio",
    "radioactive_progeny",
    "resonances",
    "shell_fractions",
    "stopping_powers",
]
