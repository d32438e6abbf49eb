"""Voxel-wise time-activity fits: right, fast enough for a patient, and honest about what failed."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.kinetics import fit_voxels
from SynthDoseLib.kinetics.voxelwise import AT_PHYSICAL, EMPTY, FITTED, OUTSIDE, STATUS, TOO_FEW

LU177_H = 159.5
TIMES = (4.0, 24.0, 72.0, 168.0)


def images(shape, seed=1):
    rng = np.random.default_rng(seed)
    height, half_life = rng.uniform(10, 100, shape), rng.uniform(20, 120, shape)
    truth = height * half_life / math.log(2)
    return [(height * np.exp2(-t / half_life)).astype(np.float32) for t in TIMES], truth, half_life


def test_noiseless_voxels_give_back_their_integrals_and_half_lives():
    stack, truth, half_life = images((20, 21, 22))
    fit = fit_voxels(TIMES, stack, physical_half_life_h=LU177_H)
    np.testing.assert_allclose(fit.tia_h, truth, rtol=2e-6)
    np.testing.assert_allclose(fit.half_life_h, half_life, rtol=2e-5)
    assert fit.counts == {STATUS[FITTED]: stack[0].size}
    assert "0 of them failed" in fit.notes[0]
    assert fit.degrees_of_freedom == 2


def test_a_rise_is_found_voxel_by_voxel():
    rng = np.random.default_rng(4)
    shape = (8, 9, 10)
    height, half_life = rng.uniform(10, 100, shape), rng.uniform(40, 100, shape)
    times = (1.0, 3.0, 24.0, 72.0, 168.0)
    stack = [(height * (np.exp2(-t / half_life) - np.exp2(-t / 2.0))).astype(np.float32) for t in times]
    fit = fit_voxels(times, stack, physical_half_life_h=LU177_H, model="mono-uptake")
    np.testing.assert_allclose(fit.tia_h, height * (half_life - 2.0) / math.log(2), rtol=1e-4)
    fixed = fit_voxels(times, stack, physical_half_life_h=LU177_H, model="mono-uptake", fixed={"uptake_half_life_h": 2.0})
    np.testing.assert_allclose(fixed.tia_h, fit.tia_h, rtol=1e-4)


def test_the_noise_given_becomes_the_sigma_of_the_integral():
    rng = np.random.default_rng(7)
    shape = (10, 20, 20)
    mean = [100 * 2 ** (-t / 50) for t in TIMES]
    noise = [np.full(shape, 0.05 * m, np.float32) for m in mean]
    stack = [(m + n * rng.standard_normal(shape)).astype(np.float32) for m, n in zip(mean, noise, strict=True)]
    fit = fit_voxels(TIMES, stack, physical_half_life_h=LU177_H, noise=noise)
    covered = (np.abs(fit.tia_h - 100 * 50 / math.log(2)) < fit.sigma_h).mean()
    assert 0.65 <= covered <= 0.71  # 4000 voxels


def test_voxels_that_fail_are_counted_marked_and_still_integrated():
    stack, _, _ = images((4, 4, 4))
    for n, volume in enumerate(stack):
        volume[0, 0, 0] = 0.0  # nothing there
        volume[1, 1, 1] = 10.0 if n == 2 else -0.1  # one positive point of four
        volume[2, 2, 2] = 10.0 * (1 + n)  # rises to the end
        volume[3, 3, 3] = 1e-6  # below the threshold
    fit = fit_voxels(TIMES, stack, physical_half_life_h=LU177_H, threshold=0.0)
    assert fit.status[0, 0, 0] == EMPTY
    assert fit.tia_h[0, 0, 0] == 0
    assert fit.status[1, 1, 1] == TOO_FEW
    assert fit.tia_h[1, 1, 1] == pytest.approx(10 * (168 - 24) / 2, rel=1e-6)
    assert np.isnan(fit.sigma_h[1, 1, 1])
    assert fit.status[2, 2, 2] == AT_PHYSICAL
    assert fit.half_life_h[2, 2, 2] == pytest.approx(LU177_H, rel=1e-4)
    assert "64 voxels, 2 of them failed" in fit.notes[0]
    assert "2 clear as slowly as the nuclide decays" in fit.notes[0]  # the constant voxel is the other
    assert fit_voxels(TIMES, stack, physical_half_life_h=LU177_H, threshold=1e-3).status[3, 3, 3] == OUTSIDE


def test_a_patients_voxels_take_seconds():
    small, _, _ = images((32, 64, 64))  # a sixteenth of 128 cubed
    stack = [(v + 0.5 * np.random.default_rng(n).standard_normal(v.shape)).astype(np.float32) for n, v in enumerate(small)]
    begun = time.process_time()
    fit = fit_voxels(TIMES, stack, physical_half_life_h=LU177_H)
    seconds = time.process_time() - begun
    assert seconds * 16 < 20  # 3 s of one core for 128 cubed when it was written; slow computers exist
    assert fit.status.min() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"times_h": (4.0, 24.0, 24.0, 168.0)}, "have to increase"),
        ({"times_h": (4.0, 24.0)}, "one image for each time"),
        ({"model": "bi-uptake"}, "5 free parameters"),
        ({"mask": np.ones((2, 2, 2), bool)}, "mask has shape"),
        ({"noise": [np.ones((4, 4, 4), np.float32)]}, "one array for each"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, says):
    stack, _, _ = images((4, 4, 4))
    arguments = {"times_h": TIMES, "activities": stack, "physical_half_life_h": LU177_H} | change
    with pytest.raises(SynthDoseError, match=says):
        fit_voxels(**arguments)


def test_voxels_that_are_no_numbers_are_refused():
    stack, _, _ = images((4, 4, 4))
    stack[1][0, 0, 0] = np.nan
    with pytest.raises(SynthDoseError, match="1 of 64 voxels at 24 h"):
        fit_voxels(TIMES, stack, physical_half_life_h=LU177_H)
