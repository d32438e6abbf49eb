"""HU to density and composition."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.phantom import CalibrationRangeError, HUCalibration, read_calibration, schneider_calibration
from SynthDoseLib.physics import get_material

WATER = (get_material("water"),)


def test_schneider_has_the_published_densities_and_24_tissues():
    curve = schneider_calibration()
    # Schneider 2000: air, the soft-tissue line 1.018 + 0.893e-3 H at -50, the skeletal line 1.017 + 0.592e-3 H at 1000
    assert curve.density([-1000, -50, 1000]) == pytest.approx([0.00121, 1.018 - 0.0447, 1.017 + 0.592], rel=2e-3)
    assert len(curve.materials) == 24
    assert curve.materials[int(curve.material_number([-700])[0])].name == "schneider_lung"
    # table 6: H 10.3 C 13.4 N 3.0 O 72.3 for soft tissue at HU 19 to 80
    soft = curve.materials[int(curve.material_number([40])[0])]
    assert (soft.mass_fractions["C"], soft.mass_fractions["O"]) == pytest.approx((0.134, 0.723))


def test_schneider_density_never_falls_and_keeps_the_published_mass():
    curve = schneider_calibration()
    hu = np.linspace(-1000, 1600, 26001)
    assert (np.diff(curve.density(hu)) >= 0).all()
    published = np.interp(
        hu, [-1000, -98, -97, 14, 23, 100, 101, 1600], [0.00121, 0.93, 0.930486, 1.03, 1.031, 1.1199, 1.0762, 1.9642]
    )
    assert np.abs(curve.density(hu) / published - 1).max() < 0.025
    assert np.trapezoid(curve.density(hu), hu) == pytest.approx(np.trapezoid(published, hu), rel=1e-5)


def test_below_the_lowest_knot_is_air_and_above_the_highest_is_refused():
    curve = schneider_calibration()
    assert curve.density([-3024, -1000])[0] == curve.density([-1000])[0]
    with pytest.raises(CalibrationRangeError, match=r"1 of 2 CT numbers lie above.*1600 HU"):
        curve.density([0, 1700])


@pytest.mark.parametrize(
    ("hu", "density", "message"),
    [
        ((0, 0), (1, 1.1), "CT numbers have to increase"),
        ((0, 100), (1.1, 1.0), "densities have to not decrease"),
        ((0, 100), (0.0, 1.0), "positive"),
        ((0,), (1.0,), "two or more knots"),
        ((0, float("nan")), (1.0, 1.1), "finite"),
    ],
)
def test_a_curve_that_is_none_is_refused(hu, density, message):
    with pytest.raises(SynthDoseError, match=message):
        HUCalibration(hu, density, (-1000,), WATER)


def test_a_scanners_csv_curve(tmp_path):
    path = tmp_path / "scanner.csv"
    path.write_text(
        "hu,density_g_cm3,material\n-1000,0.001,air\n-200,0.8,adipose\n0,1.0,\n100,1.1,muscle\n3000,2.8,cortical bone\n"
    )
    curve = read_calibration(path)
    assert curve.density([-500, 1550]) == pytest.approx([0.001 + 500 / 800 * 0.799, 1.95])
    names = [curve.materials[n].name for n in curve.material_number([-1000, -500, -100, 50, 200, 3000])]
    assert names == ["air", "air", "adipose_icru44", "adipose_icru44", "muscle_icru44", "bone_cortical_icru44"]
    plain = tmp_path / "plain.csv"
    plain.write_text("hu,density_g_cm3\n-1000,0.001\n2000,2.2\n")
    assert read_calibration(plain).materials == schneider_calibration().materials


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HU,rho\n0,1\n", "columns hu,density_g_cm3"),
        ("hu,density_g_cm3\n0,one\n1,2\n", "line 2: density_g_cm3 has to be a number"),
        ("hu,density_g_cm3,material\n0,1,unobtainium\n1,2,\n", "no material 'unobtainium'"),
        ("", "columns"),
    ],
)
def test_a_bad_csv_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SynthDoseError, match=message):
        read_calibration(path)
    with pytest.raises(SynthDoseError, match="Cannot read"):
        read_calibration(tmp_path / "missing.csv")
