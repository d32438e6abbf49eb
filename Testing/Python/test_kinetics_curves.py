"""Time-activity curves: fits against closed forms and certified values, uncertainty against repeated experiments."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from scipy import integrate, stats

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.kinetics import (
    curve_model,
    fit_curve,
    fit_models,
    fit_shared,
    hanscheid,
    integrate_trapezoid,
    madsen,
    population_half_life,
    time_activity,
)
from SynthDoseLib.kinetics.fit import ONE_SIGMA, fit_weighted, integrals, parameter_bounds

LU177_H = 159.5
LN2 = math.log(2)
FIVE = [4.0, 24.0, 48.0, 96.0, 168.0]
SIX = [1.0, 4.0, 12.0, 24.0, 72.0, 120.0]
TRUE = {
    "mono": {"amplitude_1": 100.0, "half_life_1_h": 50.0},
    "mono-uptake": {"amplitude_1": 100.0, "half_life_1_h": 50.0, "uptake_half_life_h": 3.0},
    "bi": {"amplitude_1": 60.0, "amplitude_2": 60.0, "half_life_1_h": 4.0, "half_life_2_h": 60.0},
    "bi-uptake": {
        "amplitude_1": 40.0,
        "amplitude_2": 60.0,
        "half_life_1_h": 8.0,
        "half_life_2_h": 70.0,
        "uptake_half_life_h": 2.0,
    },
    "tri": {
        "amplitude_1": 50.0,
        "amplitude_2": 40.0,
        "amplitude_3": 30.0,
        "half_life_1_h": 1.0,
        "half_life_2_h": 8.0,
        "half_life_3_h": 90.0,
    },
}


def course(model, times, parameters=None):
    """Activities of a model, written out by hand."""
    p = parameters or TRUE[model]
    t = np.asarray(times, float)
    rise = np.exp2(-t / p["uptake_half_life_h"]) if "uptake_half_life_h" in p else 0.0
    phases = [n for n in (1, 2, 3) if f"amplitude_{n}" in p]
    return sum(p[f"amplitude_{n}"] * (np.exp2(-t / p[f"half_life_{n}_h"]) - rise) for n in phases)


def true_integral(model, parameters=None):
    """Integral to infinity by quadrature."""
    return integrate.quad(lambda t: float(course(model, t, parameters)), 0, 4000, limit=500, epsabs=1e-9, points=[1, 20, 200])[
        0
    ]


@pytest.mark.parametrize("model", list(TRUE))
def test_exact_points_give_back_the_curve_and_its_integral(model):
    times = [0.5, 1.5, 4.0, 10.0, 24.0, 48.0, 96.0, 168.0]
    data = time_activity("organ", times, course(model, times), relative_sigma=0.03)
    fit = fit_curve(data, model, physical_half_life_h=LU177_H)
    assert fit.converged
    assert fit.tia_MBq_h == pytest.approx(true_integral(model), rel=1e-6)
    for name, value in TRUE[model].items():
        assert fit.parameters[name] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(fit.activity_MBq([3.0, 200.0]), course(model, [3.0, 200.0]), rtol=1e-5)
    assert fit.effective_half_life_h == pytest.approx(max(v for k, v in TRUE[model].items() if k.startswith("half")), rel=1e-5)
    assert fit.degrees_of_freedom == len(times) - len(TRUE[model])


def test_three_exponentials_agree_with_the_certified_values_of_nist():
    # NIST StRD nonlinear regression, problem Lanczos3 (24 points, "lower difficulty"), certified values and deviations
    y = [2.5134, 2.0443, 1.6684, 1.3664, 1.1232, 0.9269, 0.7679, 0.6389, 0.5338, 0.4479, 0.3776, 0.3197]
    y += [0.2720, 0.2325, 0.1997, 0.1723, 0.1493, 0.1301, 0.1138, 0.1000, 0.0883, 0.0783, 0.0698, 0.0624]
    certified = {
        1: (1.5825685901, 5.8371576281e-02, 4.9863565084, 3.4436403035e-02),
        2: (8.4400777463e-01, 4.1488663282e-02, 2.9515951832, 1.0766312506e-01),
        3: (8.6816414977e-02, 1.7197908859e-02, 9.5498101505e-01, 9.7041624475e-02),
    }
    residual_deviation = 2.9923229172e-05
    data = time_activity("Lanczos3", np.arange(24) * 0.05, y, np.full(24, residual_deviation))
    fit = fit_curve(data, "tri", physical_half_life_h=math.inf)
    assert fit.degrees_of_freedom == 18
    assert fit.chi_squared * residual_deviation**2 == pytest.approx(1.6117193594e-08, rel=1e-6)
    for n, (amplitude, amplitude_sigma, rate, rate_sigma) in certified.items():
        half_life = fit.parameters[f"half_life_{n}_h"]
        assert fit.parameters[f"amplitude_{n}"] == pytest.approx(amplitude, rel=1e-5)
        assert fit.sigmas[f"amplitude_{n}"] == pytest.approx(amplitude_sigma, rel=1e-4)
        assert LN2 / half_life == pytest.approx(rate, rel=1e-5)
        assert fit.sigmas[f"half_life_{n}_h"] / half_life * rate == pytest.approx(rate_sigma, rel=1e-4)


def test_uncertainty_of_one_exponential_with_a_fixed_half_life_is_that_of_a_weighted_mean():
    data = time_activity("organ", FIVE, course("mono", FIVE), [3.0, 2.0, 1.0, 1.0, 0.5])
    fit = fit_curve(data, "mono", physical_half_life_h=LU177_H, fixed={"half_life_1_h": 50.0})
    basis = np.exp2(-np.array(FIVE) / 50)
    expected = 1 / math.sqrt(((basis / data.sigma_MBq) ** 2).sum()) * 50 / LN2
    assert fit.tia_sigma_MBq_h == pytest.approx(expected, rel=1e-9)
    assert fit.sigmas["half_life_1_h"] == 0
    assert fit.degrees_of_freedom == 4


def test_two_points_and_one_exponential_propagate_as_by_hand():
    data = time_activity("organ", [24.0, 96.0], [80.0, 20.0], [4.0, 1.0])
    fit = fit_curve(data, "mono", physical_half_life_h=LU177_H)
    rate = math.log(4) / 72
    assert fit.effective_half_life_h == pytest.approx(36.0, rel=1e-9)
    # ln integral = ln A0 - ln k; both depend linearly on the two ln activities, each known to 5 %
    by_first = 96 / 72 - 1 / (72 * rate)
    by_second = -24 / 72 + 1 / (72 * rate)
    assert fit.tia_sigma_MBq_h / fit.tia_MBq_h == pytest.approx(0.05 * math.hypot(by_first, by_second), rel=1e-6)


@pytest.mark.parametrize("noise_known", [True, False])
@pytest.mark.parametrize(
    ("model", "times", "relative"),
    [
        ("mono", [24, 48, 96, 168], 0.05),
        ("mono", [4, 24, 72, 168], 0.10),
        ("mono-uptake", [2, 6, 24, 72, 168], 0.05),
        ("bi", SIX, 0.03),
    ],
)
def test_the_68_percent_interval_holds_the_truth_in_68_percent_of_4000_experiments(model, times, relative, noise_known):
    times = np.array(times, float)
    shape = curve_model(model)
    mean = course(model, times)
    rng = np.random.default_rng(2026)
    measured = mean[:, None] * (1 + relative * rng.standard_normal((times.size, 4000)))
    lower, upper = parameter_bounds(shape, times, LU177_H, {}, {})
    fitted = fit_weighted(shape, times, measured, relative * mean if noise_known else None, lower, upper, {})
    tia, sigma, _ = integrals(shape, fitted, np.ones(shape.size, bool))
    if not noise_known:  # as CurveFit.interval_68_MBq_h does
        left = times.size - shape.size
        sigma = sigma * np.sqrt(fitted.cost / left) * stats.t.ppf(ONE_SIGMA, left)
    covered = (np.abs(tia - true_integral(model)) <= sigma).mean()
    assert 0.65 <= covered <= 0.71


def test_noise_that_is_not_known_is_taken_from_the_scatter_with_students_factor():
    activity = course("mono", FIVE) * [1.04, 0.97, 1.02, 0.96, 1.01]
    fit = fit_curve(time_activity("organ", FIVE, activity), physical_half_life_h=LU177_H)
    assert not fit.noise_known
    assert fit.coverage_factor == pytest.approx(1.197, abs=1e-3)  # Student's t, 3 degrees of freedom, 68.27 %
    low, high = fit.interval_68_MBq_h
    assert high - low == pytest.approx(2 * 1.1968 * fit.tia_sigma_MBq_h, rel=1e-3)


def test_more_scatter_than_noise_enlarges_sigma_and_says_so():
    activity = course("mono", FIVE) * [1.2, 0.8, 1.2, 0.8, 1.2]
    fit = fit_curve(time_activity("organ", FIVE, activity, relative_sigma=0.02), physical_half_life_h=LU177_H)
    assert any("scatter more" in note for note in fit.notes)
    assert fit.tia_sigma_MBq_h / fit.tia_MBq_h > 0.05


def test_akaike_prefers_the_model_that_made_the_data():
    rng = np.random.default_rng(5)
    times = np.array([0.5, 1, 2, 4, 8, 16, 24, 48, 72, 96, 120, 168.0])
    for model in ("mono", "mono-uptake", "bi"):
        activity = course(model, times) * (1 + 0.02 * rng.standard_normal(times.size))
        chosen = fit_models(time_activity("organ", times, activity, relative_sigma=0.02), physical_half_life_h=LU177_H)
        assert chosen.best.model == model
        assert sum(chosen.weights) == pytest.approx(1)
        assert abs(chosen.tia_MBq_h - true_integral(model)) < 4 * chosen.tia_sigma_MBq_h


def test_akaike_weights_follow_from_the_criterion():
    times = [1.0, 4.0, 24.0, 72.0, 120.0, 168.0]
    data = time_activity("organ", times, course("mono", times) * [0.9, 1.02, 1.0, 0.98, 1.0, 1.01], relative_sigma=0.05)
    both = fit_models(data, ["mono", "mono-uptake"], physical_half_life_h=LU177_H)
    by_name = dict(zip((f.model for f in both.fits), both.weights, strict=True))
    assert set(by_name) == {"mono", "mono-uptake"}
    fits = {f.model: f for f in both.fits}
    # chi-squared + 2 K + 2 K (K + 1)/(N - K - 1) with K = 2 and 3, N = 6
    score = {"mono": fits["mono"].chi_squared + 4 + 12 / 3, "mono-uptake": fits["mono-uptake"].chi_squared + 6 + 24 / 2}
    expected = math.exp(-0.5 * (score["mono-uptake"] - score["mono"]))
    assert by_name["mono-uptake"] / by_name["mono"] == pytest.approx(expected, rel=1e-9)
    mean = sum(by_name[m] * fits[m].tia_MBq_h for m in fits)
    assert both.tia_MBq_h == pytest.approx(mean)
    spread = [by_name[m] * math.hypot(fits[m].tia_sigma_MBq_h, fits[m].tia_MBq_h - mean) for m in fits]
    assert both.tia_sigma_MBq_h == pytest.approx(sum(spread))
    assert both.band_MBq([24.0])[0] > 0


def test_few_points_take_the_simplest_model_and_say_so():
    data = time_activity("organ", [24, 96], [80, 30], relative_sigma=0.05)
    chosen = fit_models(data, physical_half_life_h=LU177_H)
    assert chosen.model == "mono"
    assert "do not tell the models apart" in chosen.notes[-1]
    assert "3 free parameters, 2 time points" in chosen.rejected["mono-uptake"]


def test_a_rise_that_four_points_show_is_not_forced_into_one_exponential():
    times = [4.0, 24.0, 72.0, 168.0]
    parameters = {"amplitude_1": 100.0, "half_life_1_h": 90.0, "uptake_half_life_h": 6.0}
    data = time_activity("tumour", times, course("mono-uptake", times, parameters), relative_sigma=0.03)
    chosen = fit_models(data, physical_half_life_h=LU177_H)
    assert chosen.best.model == "mono-uptake"
    assert "contradict the data" in chosen.notes[-1]
    assert chosen.tia_MBq_h == pytest.approx(true_integral("mono-uptake", parameters), rel=0.01)
    unknown = fit_models(time_activity("tumour", times, data.activity_MBq), physical_half_life_h=LU177_H)
    assert unknown.model == "mono"  # without noise nothing contradicts it
    assert "do not tell the models apart" in unknown.notes[-1]


def test_a_half_life_is_shared_between_regions_of_different_uptake():
    times = np.array(FIVE)
    rng = np.random.default_rng(4)  # of an ordinary scatter: chi-squared 11.2 for 11 degrees of freedom
    truth = {"left": 100.0, "right": 60.0, "lesion": 8.0}
    curves = [
        time_activity(
            name, times, a * np.exp2(-times / 50) * (1 + 0.05 * rng.standard_normal(5)), 0.05 * a * np.exp2(-times / 50)
        )
        for name, a in truth.items()
    ]
    fits = fit_shared(curves, shared=["half_life_1_h"], physical_half_life_h=LU177_H)
    alone = [fit_curve(c, physical_half_life_h=LU177_H) for c in curves]
    assert len({fit.effective_half_life_h for fit in fits}) == 1
    assert fits[0].degrees_of_freedom == 15 - 4
    for fit, own in zip(fits, alone, strict=True):
        assert fit.effective_half_life_sigma_h == pytest.approx(own.effective_half_life_sigma_h / math.sqrt(3), rel=0.1)
        assert abs(fit.tia_MBq_h - truth[fit.data.region] * 50 / LN2) < 4 * fit.tia_sigma_MBq_h
        assert fit.tia_sigma_MBq_h < own.tia_sigma_MBq_h


def test_a_shared_fit_of_one_region_is_its_own_fit():
    data = time_activity("organ", FIVE, course("mono", FIVE) * [1.03, 0.98, 1.0, 1.02, 0.97])
    shared = fit_shared([data], shared=["half_life_1_h"], physical_half_life_h=LU177_H)[0]
    own = fit_curve(data, physical_half_life_h=LU177_H)
    assert shared.tia_MBq_h == pytest.approx(own.tia_MBq_h, rel=1e-5)
    assert shared.tia_sigma_MBq_h == pytest.approx(own.tia_sigma_MBq_h, rel=1e-3)


def test_trapezoid_and_tails_are_the_sums_by_hand():
    data = time_activity("organ", [10.0, 20.0, 40.0], [80.0, 100.0, 40.0], [8.0, 5.0, 4.0])
    middle, tail = 900.0 + 1400.0, 40 * 60 / LN2
    physical = integrate_trapezoid(data, physical_half_life_h=60.0, start="linear")
    assert physical.tia_MBq_h == pytest.approx(400 + middle + tail)
    assert physical.tail_fraction == pytest.approx(tail / (400 + middle + tail))
    slopes = [10 / 2 + 10 / 2, 10 / 2 + 20 / 2, 20 / 2 + 60 / LN2]  # of the integral by each activity
    assert physical.tia_sigma_MBq_h == pytest.approx(np.linalg.norm(np.array(slopes) * data.sigma_MBq), rel=1e-6)
    assert integrate_trapezoid(data, physical_half_life_h=60.0, start="constant").tia_MBq_h == pytest.approx(
        800 + middle + tail
    )
    half_life = 20 * LN2 / math.log(2.5)
    fitted = integrate_trapezoid(data, physical_half_life_h=60.0, start="linear", tail="fitted")
    assert fitted.effective_half_life_h == pytest.approx(half_life)
    assert fitted.tia_MBq_h == pytest.approx(400 + middle + 40 * half_life / LN2)
    assert any("after the last time point" in note for note in fitted.notes)


def test_a_rising_last_point_never_clears_more_slowly_than_the_nuclide_decays():
    data = time_activity("lesion", [4, 24, 72], [10, 20, 25], relative_sigma=0.05)
    assert "rises at its last time point" in data.notes[0]
    result = integrate_trapezoid(data, physical_half_life_h=LU177_H, tail="fitted")
    assert result.effective_half_life_h == pytest.approx(LU177_H)
    assert any("do not fall faster" in note for note in result.notes)
    fit = fit_curve(data, "mono", physical_half_life_h=LU177_H)
    assert fit.effective_half_life_h == pytest.approx(LU177_H)
    assert any("clears as slowly as the nuclide decays" in note for note in fit.notes)
    assert math.isfinite(fit.tia_MBq_h)


def test_hanscheids_estimate_is_exact_at_one_and_two_half_lives():
    for half_lives, ratio in ((1.0, 1.0), (2.0, 1.0), (1 / LN2, 2 / math.e / LN2), (0.75, 1.5 * 2**-0.75), (2.5, 5 * 2**-2.5)):
        time = 50.0 * half_lives
        data = time_activity("kidneys", [time], [100 * 2**-half_lives])
        assert hanscheid(data).tia_MBq_h / (100 * 50 / LN2) == pytest.approx(ratio, rel=1e-12)
    assert 2 / math.e / LN2 == pytest.approx(1.0615, abs=1e-4)  # the +6.1 % that its note states
    assert abs(5 * 2**-2.5 - 0.884) < 1e-3  # and the -11.6 %
    result = hanscheid(time_activity("kidneys", [96.0], [10.0], relative_sigma=0.1))
    assert result.tia_sigma_MBq_h / result.tia_MBq_h == pytest.approx(math.hypot(0.1, result.method_error))
    assert "between 38.4 and 128 h" in result.notes[0]


@pytest.mark.parametrize("method", ["hanscheid", "population", "madsen"])
def test_the_stated_error_of_a_single_time_method_is_that_of_a_population(method):
    rng = np.random.default_rng(11)
    median, spread, time = 52.0, 9.0, 72.0
    width = math.sqrt(math.log(0.5 * (1 + math.sqrt(1 + 4 * (spread / median) ** 2))))
    if method == "madsen":
        mean, deviation = 0.0135, 0.0030
        width = math.sqrt(math.log1p((deviation / mean) ** 2))
        rates = mean * np.exp(-(width**2) / 2 + width * rng.standard_normal(200_000))
    else:
        rates = LN2 / (median * np.exp(width * rng.standard_normal(200_000)))
    data = time_activity("kidneys", [time], [10.0])
    estimate = {
        "hanscheid": lambda: hanscheid(data, half_life_h=median, half_life_sigma_h=spread),
        "population": lambda: population_half_life(data, median, spread),
        "madsen": lambda: madsen(data, 0.0135, 0.0030),
    }[method]()
    truth = 10.0 * np.exp(rates * time) / rates
    off = estimate.tia_MBq_h / truth - 1
    assert estimate.method_error == pytest.approx(math.sqrt((off**2).mean()), rel=0.02)
    assert estimate.method_bias == pytest.approx(off.mean(), abs=0.001)
    assert f"{estimate.method_error:.1%}" in " ".join(estimate.notes)


def test_a_method_without_the_spread_of_half_lives_says_that_its_error_is_not_known():
    data = time_activity("kidneys", [72.0], [10.0])
    noisy = time_activity("kidneys", [72.0], [10.0], relative_sigma=0.1)
    for estimate in (
        lambda d: population_half_life(d, 52.0),
        lambda d: madsen(d, 0.0135),
        lambda d: hanscheid(d, half_life_h=52),
    ):
        found = estimate(data)
        assert math.isnan(found.method_error)
        assert math.isnan(found.tia_sigma_MBq_h)
        assert "not known" in " ".join(found.notes)
        assert estimate(noisy).tia_sigma_MBq_h / found.tia_MBq_h == pytest.approx(0.1)  # the noise's


def test_the_formula_for_radioiodine_therapy_gives_its_dose():
    """EANM, Hänscheid et al., Eur. J. Nucl. Med. Mol. Imaging 40 (2013) 1126: the activity for a thyroid of mass M,

    highest uptake U % and effective half-life T d is 24.67 M D/(U T) MBq, from 2.808 Gy g/(MBq d).
    """
    mass_g, dose_Gy, uptake, half_life_h = 20.0, 200.0, 0.5, 5.5 * 24
    administered = 24.67 * mass_g * dose_Gy / (100 * uptake * half_life_h / 24)
    times = np.array([24.0, 96.0, 192.0])
    data = time_activity("thyroid", times, uptake * administered * 2 ** (-times / half_life_h), relative_sigma=0.02)
    fit = fit_curve(data, "mono", physical_half_life_h=8.0233 * 24)
    assert fit.tia_MBq_h / 24 * 2.808 / mass_g == pytest.approx(dose_Gy, rel=1e-3)
    late = time_activity("thyroid", [192.0], data.activity_MBq[-1:])
    assert hanscheid(late).tia_MBq_h / fit.tia_MBq_h == pytest.approx(2 * (192 / 132) * 2 ** (-192 / 132), rel=1e-3)


def test_madsens_estimate_hardly_depends_on_the_rate_at_one_mean_life():
    rate = 0.0135
    data = time_activity("kidneys", [1 / rate], [10.0])
    estimate = madsen(data, rate).tia_MBq_h
    for off in (0.9, 1.1):  # (k'/k) exp(1 - k'/k): second order only
        assert estimate / (10.0 * math.exp(off) / (off * rate)) == pytest.approx(off * math.exp(1 - off), rel=1e-9)
        assert off * math.exp(1 - off) == pytest.approx(1, abs=0.006)


def test_times_are_put_in_order_and_compared_as_instants():
    given = datetime(2024, 3, 30, 22, 0, tzinfo=timezone(timedelta(hours=1)))
    scans = [datetime(2024, 4, 1, 23, 0, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 3, 31, 21, 0, tzinfo=UTC)]
    data = time_activity("liver", scans, [5.0, 9.0], administered_at=given)
    assert data.times_h.tolist() == [24.0, 48.0]
    assert data.activity_MBq.tolist() == [9.0, 5.0]
    assert "not in order" in data.notes[0]


def test_a_decay_correction_is_taken_back_once():
    data = time_activity("liver", [0.0, LU177_H], [8.0, 8.0], decay_corrected=True, physical_half_life_h=LU177_H)
    assert data.activity_MBq.tolist() == pytest.approx([8.0, 4.0])
    assert "correction was taken back" in data.notes[0]


START = datetime(2024, 1, 31, 10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: time_activity("liver", [4, 24, 24], [3, 2, 1]), "two time points are equal"),
        (lambda: time_activity("liver", [4, -2], [3, 2]), "before the administration"),
        (
            lambda: time_activity("liver", [START, None], [3, 2], administered_at=START),
            "1 of 2 time points have no acquisition",
        ),
        (lambda: time_activity("liver", [START], [3]), "need the time of administration"),
        (lambda: time_activity("liver", [START.replace(tzinfo=UTC)], [3], administered_at=START), "time zone"),
        (lambda: time_activity("liver", [START, 24.0], [3, 2], administered_at=START), "all in one way"),
        (lambda: time_activity("liver", [4, 24], [3]), "2 times, 1 activities"),
        (lambda: time_activity("liver", [4, 24], [3, math.nan]), "not numbers"),
        (lambda: time_activity("liver", [4, 24], [3, -1]), "0 or more"),
        (lambda: time_activity("liver", [4, 24], [3, 1], [0.1, 0.0]), "above 0"),
        (lambda: time_activity("liver", [4, 24], [3, 1], decay_corrected=True), "physical half-life"),
        (
            lambda: fit_curve(time_activity("l", [4], [3]), physical_half_life_h=9),
            "2 free parameters, the data have 1 time point",
        ),
        (lambda: fit_models(time_activity("l", [4], [3]), physical_half_life_h=9), "2 free parameters, the data have 1 time"),
        (
            lambda: fit_curve(time_activity("l", [4, 9], [3, 2]), "quad", physical_half_life_h=9),
            "no time-activity model 'quad'",
        ),
        (
            lambda: fit_curve(time_activity("l", [4, 9], [3, 2]), physical_half_life_h=9, fixed={"half_life_1_h": 10}),
            "longer than the physical",
        ),
        (lambda: fit_curve(time_activity("l", [4, 9], [3, 2]), physical_half_life_h=9, fixed={"k": 1}), "no parameter 'k'"),
        (lambda: hanscheid(time_activity("l", [4, 9], [3, 2])), "needs one point"),
        (lambda: integrate_trapezoid(time_activity("l", [4], [3]), physical_half_life_h=9, tail="fitted"), "needs 2 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, says):
    with pytest.raises(SynthDoseError, match=says):
        call()
