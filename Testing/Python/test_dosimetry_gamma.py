"""The gamma index against closed forms: uniform fields and linear gradients."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from SynthDoseLib.core import DoseMap, MissingPackageError, SynthDoseError, VoxelGrid
from SynthDoseLib.dosimetry import gamma_index

GRID = VoxelGrid.from_spacing((16, 18, 20), (3.0, 2.5, 2.0))


def dose_of(values) -> DoseMap:
    return DoseMap(GRID, np.broadcast_to(np.asarray(values, np.float32), GRID.shape), np.zeros(GRID.shape, np.float32))


def test_equal_doses_agree_everywhere():
    dose = dose_of(np.random.default_rng(1).uniform(1, 2, GRID.shape))
    index = gamma_index(dose, dose)
    assert index.pass_rate == 1.0
    assert index.points == GRID.size
    assert np.nanmax(index.values) == pytest.approx(0, abs=1e-6)


def test_an_even_field_differs_by_dose_alone():
    pytest.importorskip("pymedphys")
    for scale, expected in ((1.015, 0.5), (0.97, 1.0), (1.045, 1.5)):
        index = gamma_index(dose_of(2.0), dose_of(2.0 * scale))
        assert index.values == pytest.approx(expected, rel=1e-3)
        assert index.pass_rate == pytest.approx(1.0 if expected <= 1.0005 else 0.0, abs=1 if expected == 1.0 else 0)


def test_in_a_linear_gradient_distance_helps():
    """A dose that is off by delta where it rises by g per mm: gamma = delta / sqrt(D2 + (g d)2), with criteria D and d."""
    pytest.importorskip("pymedphys")
    along = np.arange(20) * 3.0
    slope, delta = 0.02, 0.05  # of 1 Gy, and a largest dose of 1.57 Gy
    reference = 0.5 + slope * along
    index = gamma_index(dose_of(reference), dose_of(reference + delta), dose_percent=2.0, distance_mm=3.0)
    highest = np.quantile(np.broadcast_to(reference, GRID.shape), 0.999)
    expected = delta / np.hypot(0.02 * highest, slope * 3.0)
    assert index.values[8, 9, 3:-3] == pytest.approx(expected, rel=0.02)  # steps of 3 mm / 5


def test_low_doses_and_points_beyond_the_number_are_not_judged():
    pytest.importorskip("pymedphys")
    values = np.ones(GRID.shape)
    values[:8] = 0.05
    assert gamma_index(dose_of(values), dose_of(values)).points == GRID.size // 2
    index = gamma_index(dose_of(values), dose_of(1.5 * values), points=500)
    assert 400 < index.points <= 500
    assert np.count_nonzero(np.isfinite(index.values)) == index.points
    assert index.pass_rate == pytest.approx(1 / 8)  # the layer beside the low dose finds its own on the way there


def test_bad_input_is_refused(monkeypatch):
    other = VoxelGrid.from_spacing((16, 18, 20), (3.0, 2.5, 2.1))
    elsewhere = DoseMap(other, np.ones(other.shape, np.float32), np.zeros(other.shape, np.float32))
    with pytest.raises(SynthDoseError, match="on one grid"):
        gamma_index(dose_of(1.0), elsewhere)
    with pytest.raises(SynthDoseError, match="no dose anywhere"):
        gamma_index(dose_of(0.0), dose_of(1.0))
    with pytest.raises(SynthDoseError, match="above 0"):
        gamma_index(dose_of(1.0), dose_of(1.0), distance_mm=0.0)
    monkeypatch.setitem(sys.modules, "pymedphys", None)
    with pytest.raises(MissingPackageError, match="pymedphys"):
        gamma_index(dose_of(1.0), dose_of(1.0))
