"""Decay data against ICRP-107's totals, DDEP half-lives and chains worked by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.physics import decay_chain, decay_emissions, get_nuclide, nuclide_name, nuclides, radioactive_progeny

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
LABELS = {
    "gamma": "gamma",
    "xray": "x-ray",
    "ce": "conversion electron",
    "auger": "auger electron",
    "alpha": "alpha",
    "alpha_recoil": "alpha recoil",
    "beta_minus_branches": "beta-",
    "beta_plus_branches": "beta+",
}


def by_label(emissions, label):
    return next(e for e in emissions if e.label == label)


def test_lutetium_177_has_the_numbers_of_icrp_107():
    lutetium = get_nuclide("Lu-177")
    assert lutetium.half_life_s == pytest.approx(6.647 * 86400, rel=1e-6)
    beta = by_label(lutetium.emissions, "beta-")
    assert beta.particle == "electron"
    assert beta.mean_energy_MeV == pytest.approx(0.13327, rel=1e-3)
    assert beta.max_energy_MeV == pytest.approx(0.4983, rel=2e-3)
    gamma = by_label(lutetium.emissions, "gamma")
    line = 2 * int(np.argmin(np.abs(gamma.edges_MeV[::2] - 0.208366)))
    assert gamma.edges_MeV[line] == gamma.edges_MeV[line + 1] == pytest.approx(0.208366)
    assert gamma.yield_per_decay * gamma.probability[line] == pytest.approx(0.11, rel=1e-3)


@pytest.mark.parametrize(("nuclide", "mean"), [("Y-90", 0.9329), ("I-131", 0.1819), ("Lu-177", 0.1333), ("F-18", 0.2498)])
def test_mean_beta_energies(nuclide, mean):
    betas = [e for e in get_nuclide(nuclide).emissions if e.label.startswith("beta")]
    assert len(betas) == 1
    assert betas[0].mean_energy_MeV == pytest.approx(mean, rel=2e-3)


@needs_shared
def test_every_nuclide_keeps_its_energy_and_yield_per_kind():
    reference = json.loads((SHARED / "data" / "decay" / "decay_icrp107.json").read_text())["nuclides"]
    assert set(nuclides()) >= set(reference)
    for name, entry in reference.items():
        nuclide = get_nuclide(name)
        assert nuclide.half_life_s == pytest.approx(entry["half_life_s"], rel=1e-4)
        found = {e.label: e for e in nuclide.emissions}
        for key, label in LABELS.items():
            energy, count = entry["totals_E_MeV_and_yield"].get(key, (0.0, 0.0))
            if count == 0:
                assert label not in found
                continue
            assert found[label].yield_per_decay == pytest.approx(count, rel=1e-4), (name, label)
            # the spectrum of Ho-166m is that far from the mean of its branches in ICRP-107 itself
            assert found[label].yield_per_decay * found[label].mean_energy_MeV == pytest.approx(energy, rel=3e-3), (name, label)


@needs_shared
def test_half_lives_agree_with_ddep():
    with open(SHARED / "data" / "decay" / "decay_crosscheck.csv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(line for line in stream if not line.startswith("#")) if row["DDEP"]]
    checked = 0
    for row in rows:
        if row["quantity"] == "half_life_s" and row["nuclide"] in nuclides() and float(row["DDEP"]) > 3600:
            assert get_nuclide(row["nuclide"]).half_life_s == pytest.approx(float(row["DDEP"]), rel=0.03), row["nuclide"]
            checked += 1
    assert checked > 20


def test_positron_emitters_list_no_annihilation_quanta_because_positrons_annihilate_in_the_engine():
    for name in ("F-18", "Ga-68", "Cu-64", "I-124", "Zr-89", "Rb-82"):
        emissions = get_nuclide(name).emissions
        assert any(e.particle == "positron" for e in emissions)
        assert all(e.label != "annihilation" for e in emissions)


def test_copper_64_parts_its_composite_spectrum_into_both_betas():
    # means of ICRP-107's branches: 190.4 and 278.2 keV
    emissions = get_nuclide("Cu-64").emissions
    minus, plus = by_label(emissions, "beta-"), by_label(emissions, "beta+")
    assert (minus.yield_per_decay, plus.yield_per_decay) == pytest.approx((0.39, 0.174083))
    assert minus.mean_energy_MeV == pytest.approx(0.1904, rel=0.01)
    assert plus.mean_energy_MeV == pytest.approx(0.2782, rel=0.01)


@pytest.mark.parametrize("spelling", ["Lu-177", "Lu177", "lu-177", "177Lu", "177-lu", " LU 177 "])
def test_spellings_of_a_nuclide(spelling):
    assert nuclide_name(spelling) == "Lu-177"
    assert nuclide_name("99mTc") == nuclide_name("TC99M") == "Tc-99m"


def test_an_unknown_nuclide_is_answered_with_the_nearest_and_the_known_ones():
    with pytest.raises(SynthDoseError, match=r"'Lu-178'.*Nearest: Lu-177.*Known: H-3.*Y-90"):
        get_nuclide("Lu-178")
    with pytest.raises(SynthDoseError, match="Known:"):
        get_nuclide("gold")


def test_chain_of_actinium_225_down_to_bismuth_209():
    decays = dict(decay_chain("Ac-225").decays)
    assert next(iter(decays)) == "Ac-225"
    assert decays["At-217"] == pytest.approx(1)
    assert decays["Bi-213"] == pytest.approx(0.99988)
    assert decays["Po-213"] == pytest.approx(0.99988 * 0.9791)
    # both branches of Bi-213 meet again in Pb-209
    assert decays["Pb-209"] == pytest.approx(0.99988)
    alphas = sum(e.yield_per_decay * e.mean_energy_MeV for e in decay_emissions("Ac-225", "all") if e.label.endswith("alpha"))
    assert alphas == pytest.approx(27.5, rel=0.02)  # four alphas of 5.8, 6.3, 7.1 and 8.4 MeV


def test_energy_of_radium_223_and_its_progeny_is_that_of_the_label():
    """28.2 MeV per decay down to lead-207: 95.3 % of alphas, 3.6 % of betas, 1.1 % of gammas (Xofigo, prescribing information).

    Recoil nuclei are of the alphas' decays; conversion and Auger electrons go with the betas, X rays with the gammas.
    """
    energy = dict.fromkeys(("alpha", "electron", "photon", "positron"), 0.0)
    for emission in decay_emissions("Ra-223", "all"):
        energy[emission.particle] += emission.yield_per_decay * emission.mean_energy_MeV
    total = sum(energy.values())
    assert total == pytest.approx(28.2, rel=0.01)
    assert [100 * energy[kind] / total for kind in ("alpha", "electron", "photon")] == pytest.approx([95.3, 3.6, 1.1], abs=0.4)


def test_long_lived_progeny_are_left_out_and_named():
    chain = decay_chain("Th-227")
    assert dict(chain.decays) == {"Th-227": 1.0}
    assert chain.left_out[0][0] == "Ra-223"
    assert "Ra-223 (half-life 11.4 d" in chain.note()
    followed = dict(decay_chain("Th-227", progeny_max_half_life_d=20).decays)
    assert followed["Ra-223"] == pytest.approx(1)
    assert followed["Bi-211"] == pytest.approx(1)
    assert dict(decay_chain("At-211").decays).keys() == {"At-211", "Po-211"}


def test_chosen_progeny_take_their_fraction():
    emissions = decay_emissions("Bi-212", {"Tl208": 0.5})
    thallium = [e for e in emissions if e.label == "Tl-208 gamma"]
    alone = by_label(get_nuclide("Tl-208").emissions, "gamma")
    assert thallium[0].yield_per_decay == pytest.approx(0.5 * 0.3594 * alone.yield_per_decay)
    assert not any("Po-212" in e.label for e in emissions)
    assert decay_emissions("Lu-177", "none")[0].label == "beta-"


@pytest.mark.parametrize(
    ("progeny", "message"),
    [("some", "'none', 'all'"), ({"Y-90": 1.0}, "not among the progeny"), ({"Tl-208": 2.0}, "between 0 and 1")],
)
def test_bad_progeny_are_refused(progeny, message):
    with pytest.raises(SynthDoseError, match=message):
        decay_chain("Bi-212", progeny)


def test_radioactive_progeny_of_a_generator_and_of_a_stable_daughter():
    assert radioactive_progeny("Mo-99") == ("Tc-99m", "Tc-99")
    assert radioactive_progeny("Lu-177") == ()
