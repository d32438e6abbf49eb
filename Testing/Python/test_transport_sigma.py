"""Sigma is honest, and histories go where they lower it most."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.pipeline.nuclides import emissions_of
from SynthDoseLib.transport import RunSettings
from SynthDoseLib.transport.allotment import best_share

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from Testing.Benchmarks.pulls import SOURCE, pulls_of, two_organs


@pytest.mark.parametrize(
    ("nuclide", "progeny", "histories", "organs"),
    [("Lu-177", None, 100_000, ()), ("Ra-223", "all", 20_000, ("source",))],
    ids=["beta-gamma", "alpha"],
)
def test_pulls_between_seeds_have_mean_0_and_width_1(nuclide, progeny, histories, organs):
    """A source organ, another one 2 cm away, the body; every voxel with 100 scores. See `pulls`."""
    emissions, _ = emissions_of(nuclide, progeny, progeny_max_half_life_d=20)
    settings = RunSettings(histories=histories, organs=organs, threads=1, seed=100)
    of_organs, of_voxels = pulls_of(two_organs(), SOURCE, emissions, settings, 16)
    assert of_organs.number >= 1
    assert of_voxels.number >= 27
    for pulls in (of_organs, of_voxels):
        mean, error = pulls.bias
        assert abs(mean) < 4 * error
        square, error = pulls.width
        assert error < 0.4
        assert abs(square - 1) < 4 * error


def test_the_shares_have_the_least_variance_in_a_given_time():
    """Closed form (Lagrange): n_g ~ y_g sqrt(V_g / t_g) gives variance x time of (sum of y_g sqrt(V_g t_g))^2 / D^2."""
    yields, costs = np.array([1.0, 0.2, 3.0]), np.array([0.5, 2.0, 0.1])
    means, variances = np.array([[2.0], [1.0], [0.1]]), np.array([[4.0], [9.0], [0.5]])
    dose = float(yields @ means[:, 0])
    share, per_history = best_share(yields, means, variances, costs)
    assert share.sum() == pytest.approx(1)
    expected = float((yields * np.sqrt(variances[:, 0] * costs)).sum()) ** 2 / dose**2
    assert per_history[0] * (share @ costs) == pytest.approx(expected)
    for other in np.random.default_rng(1).dirichlet(np.ones(3), 2000):
        variance = float((yields**2 * variances[:, 0] / other).sum()) / dose**2
        assert variance * (other @ costs) >= expected * (1 - 1e-12)


def test_no_group_is_starved():
    scores = np.array([[1.0], [0.0]])
    share, variance = best_share(np.ones(2), scores, scores, np.ones(2), least=np.array([0.0, 0.1]))
    assert share == pytest.approx([1 / 1.1, 0.1 / 1.1])
    assert variance == pytest.approx([1.1])
