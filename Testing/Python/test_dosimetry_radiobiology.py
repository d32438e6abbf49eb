import numpy as np
import pytest
from scipy.integrate import dblquad

from SynthDoseLib.core import DoseMap, SynthDoseError, VoxelGrid
from SynthDoseLib.dosimetry import (
    DoseRate,
    Radiobiology,
    bed,
    bed_map,
    bed_of_cycles,
    bed_sigma,
    eqd2,
    eqd2_sigma,
    lea_catcheside,
    radiobiology_table,
    rbe_weighted_dose,
)

LN2 = np.log(2)
TIMES = np.concatenate([[0.0], np.geomspace(1e-3, 3000, 4000)])


@pytest.mark.parametrize(("effective", "repair"), [(50.0, 2.8), (2.8, 2.8), (64.0, 0.5), (1.0, 30.0)])
def test_one_exponential_has_dales_factor(effective, repair):
    """G = T_rep / (T_rep + T_eff): Dale (1985) for complete decay."""
    expected = repair / (repair + effective)
    rate = DoseRate.fading(20.0, effective)
    assert rate.dose_Gy == pytest.approx(20.0)
    assert rate.protraction(repair) == pytest.approx(expected, rel=1e-12)
    assert lea_catcheside(TIMES, rate.at(TIMES), repair, tail_half_life_h=effective) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("repair", [0.5, 2.8, 20.0])
def test_two_exponentials_closed_form_equals_the_double_integral(repair):
    rate = DoseRate((0.3, 0.05), (6.0, 70.0))
    numerical = lea_catcheside(TIMES, rate.at(TIMES), repair, tail_half_life_h=70.0)
    assert rate.protraction(repair) == pytest.approx(numerical, rel=1e-4)
    mu = LN2 / repair
    inner = dblquad(lambda w, t: float(rate.at(t) * rate.at(w)) * np.exp(-mu * (t - w)), 0, 40, 0, lambda t: t, epsrel=1e-6)[0]
    short = np.linspace(0, 40, 2000)
    dose = np.trapezoid(rate.at(short), short)
    assert lea_catcheside(short, rate.at(short), repair) == pytest.approx(2 * inner / dose**2, rel=1e-4)


def test_uptake_is_a_negative_exponential():
    rate = DoseRate.fading(10.0, 60.0, uptake_half_life_h=5.0)
    assert rate.dose_Gy == pytest.approx(10.0)
    assert float(rate.at(0.0)) == pytest.approx(0.0, abs=1e-12)
    numerical = lea_catcheside(TIMES, rate.at(TIMES), 2.8, tail_half_life_h=60.0)
    assert rate.protraction(2.8) == pytest.approx(numerical, rel=1e-4)
    assert rate.protraction(2.8) < DoseRate.fading(10.0, 60.0).protraction(2.8)


def test_limits_of_fast_and_slow_decay():
    assert DoseRate.fading(5.0, 1e-4).protraction(10.0) == pytest.approx(1.0, rel=1e-4)
    assert DoseRate.fading(5.0, 1e6).protraction(1.0) == pytest.approx(1e-6, rel=1e-4)
    constant = lea_catcheside([0.0, 8.0], [2.0, 2.0], 1.5)
    x = LN2 / 1.5 * 8
    assert constant == pytest.approx(2 / x**2 * (x - 1 + np.exp(-x)), rel=1e-8)  # Lea and Catcheside for a constant rate
    assert lea_catcheside([0.0, 1e-3], [1.0, 1.0], 5.0) == pytest.approx(1.0, abs=1e-4)


def test_bed_of_a_published_example():
    """Kidney, 20 Gy with T_eff 50 h: alpha/beta 2.6 Gy and T_rep 2.8 h give 20 (1 + 20 x 2.8 / 52.8 / 2.6) Gy."""
    kidney = radiobiology_table()["kidneys"]
    rate = DoseRate.fading(20.0, 50.0)
    expected = 20 * (1 + 20 * 2.8 / 52.8 / 2.6)
    assert bed_of_cycles([rate], kidney) == pytest.approx(expected)
    assert bed_of_cycles([DoseRate.fading(10.0, 50.0)] * 2, kidney) == pytest.approx(20 * (1 + 10 * 2.8 / 52.8 / 2.6))
    assert float(eqd2(bed(2.0, 2.6, 1.0), 2.6)) == pytest.approx(2.0)  # one acute fraction of 2 Gy is itself
    assert float(bed(7.0, 3.0, 0.0)) == 7.0


def test_bed_per_voxel_carries_the_error():
    grid = VoxelGrid.from_spacing((1, 1, 3), (2.0, 2.0, 2.0))
    dose = DoseMap(grid, np.array([[[0.0, 5.0, 20.0]]]), np.array([[[0.0, 0.5, 1.0]]]))
    found = bed_map(dose, 2.5, 0.1)
    assert found.dose_Gy.ravel() == pytest.approx([0.0, 6.0, 36.0])
    step = 1e-6
    slope = (bed(20.0 + step, 2.5, 0.1) - bed(20.0 - step, 2.5, 0.1)) / (2 * step)
    assert float(found.sigma_Gy[0, 0, 2]) == pytest.approx(float(slope), rel=1e-6)
    assert float(bed_sigma(20.0, 1.0, 2.5, 0.1)) == pytest.approx(float(slope), rel=1e-6)
    assert bed_map(dose, 2.5, np.full(grid.shape, 0.1)).dose_Gy == pytest.approx(found.dose_Gy)


def test_sigma_of_bed_and_eqd2_is_the_scatter_of_sampled_parameters():
    rng = np.random.default_rng(4)
    count = 100_000
    dose, ratio, factor = (m + s * rng.standard_normal(count) for m, s in ((20.0, 0.2), (2.6, 0.02), (0.053, 0.0006)))
    stated = {"alpha_beta_sigma_Gy": 0.02, "protraction_sigma": 0.0006}
    sampled = dose * (1 + factor * dose / ratio)
    tolerance = 4 / np.sqrt(2 * count) + 0.002  # and what the first order leaves out
    assert float(bed_sigma(20.0, 0.2, 2.6, 0.053, **stated)) == pytest.approx(sampled.std(), rel=tolerance)
    in_fractions = sampled / (1 + 2 / ratio)
    assert float(eqd2_sigma(20.0, 0.2, 2.6, 0.053, **stated)) == pytest.approx(in_fractions.std(), rel=tolerance)


def test_the_rate_of_a_permanent_implant_has_dales_relative_effectiveness():
    """Dale, Br. J. Radiol. 58 (1985) 515: BED = R/l (1 + R/((mu + l) alpha/beta)) of a decaying source; I-125, 145 Gy."""
    decay, repair = LN2 / (59.4 * 24), LN2 / 1.5
    start = 145.0 * decay
    expected = start / decay * (1 + start / ((repair + decay) * 10.0))
    rate = DoseRate((start,), (59.4 * 24,))
    assert bed_of_cycles([rate], Radiobiology("prostate", 10.0, 1.5)) == pytest.approx(expected, rel=1e-9)


def test_alpha_particles_are_weighted_and_others_count_once():
    weighted = rbe_weighted_dose({"alpha": np.array([0.5, 1.0]), "electron": np.array([0.1, 0.0])}, {"alpha": 5.0})
    assert weighted == pytest.approx([2.6, 5.0])
    with pytest.raises(SynthDoseError, match="RBE of alpha"):
        rbe_weighted_dose({"alpha": 1.0}, {})
    with pytest.raises(SynthDoseError, match="'proton'"):
        rbe_weighted_dose({"alpha": 1.0}, {"alpha": 5.0, "proton": 1.1})


def test_own_tables_are_read_and_their_faults_named(tmp_path):
    own = tmp_path / "mine.csv"
    own.write_text("organ,alpha_beta_Gy,repair_half_life_h,reference\nlungs,3,,own\nspleen,4,1.5,own\n")
    table = radiobiology_table(own)
    assert table["spleen"] == Radiobiology("spleen", 4.0, 1.5, "own")
    with pytest.raises(SynthDoseError, match="No repair half-life is known for 'lungs'"):
        bed_of_cycles([DoseRate.fading(10.0, 50.0)], table["lungs"])
    assert not table["spleen"].states_uncertainty
    own.write_text(
        "organ,alpha_beta_Gy,repair_half_life_h,reference,alpha_beta_sigma_Gy,repair_half_life_sigma_h\nliver,3,2,own,0.5,\n"
    )
    liver = radiobiology_table(own)["liver"]
    assert liver.alpha_beta_sigma_Gy == 0.5
    assert np.isnan(liver.repair_half_life_sigma_h)
    own.write_text(own.read_text().replace("0.5", "-0.5"))
    with pytest.raises(SynthDoseError, match="'liver': standard uncertainties have to be 0 or more"):
        radiobiology_table(own)
    own = tmp_path / "bad.csv"
    own.write_text("organ,alpha_beta_Gy,repair_half_life_h,reference\nlungs,three,1,own\n")
    with pytest.raises(SynthDoseError, match="row 'lungs, three', column alpha_beta_Gy: 'three' is not a number"):
        radiobiology_table(own)
    own = tmp_path / "short.csv"
    own.write_text("organ,alpha_beta_Gy\nlungs,3\n")
    with pytest.raises(SynthDoseError, match="lacks the column repair_half_life_h"):
        radiobiology_table(own)


def test_bad_curves_are_refused():
    with pytest.raises(SynthDoseError, match="negative"):
        DoseRate((-1.0, 0.5), (10.0, 20.0))
    with pytest.raises(SynthDoseError, match="half-lives positive"):
        DoseRate((1.0,), (0.0,))
    with pytest.raises(SynthDoseError, match="faster than clearance"):
        DoseRate.fading(1.0, 5.0, uptake_half_life_h=6.0)
    with pytest.raises(SynthDoseError, match="increasing times"):
        lea_catcheside([0.0, 0.0], [1.0, 1.0], 2.0)
    with pytest.raises(SynthDoseError, match="not negative"):
        lea_catcheside([0.0, 1.0], [1.0, -1.0], 2.0)
    with pytest.raises(SynthDoseError, match="repair half-life"):
        DoseRate.fading(1.0, 5.0).protraction(0.0)
