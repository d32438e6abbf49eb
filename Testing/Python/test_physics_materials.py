"""Named materials and the tables' provenance."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from SynthDoseLib.core import Material, SynthDoseError, resource_path, sha256_of
from SynthDoseLib.physics import (
    about_table,
    electrons_per_gram,
    elements,
    get_material,
    materials_table,
    mean_excitation_energy,
    stopping_powers,
)
from SynthDoseLib.physics import tables as tables_module

TABLES = sorted(path for pattern in ("*.npz", "*.csv") for path in resource_path("physics").glob(pattern))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_table_has_a_sidecar_that_describes_these_bytes(path):
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert about["file"] == path.name
    assert about["sha256"] == sha256_of(path)
    for key in ("columns", "source", "edition", "retrieved", "licence", "changes", "checks"):
        assert about[key], key


def test_tables_stay_small_and_their_notices_travel():
    assert sum(path.stat().st_size for path in TABLES) < 3e6
    folder = resource_path("physics")
    assert "not-for-profit" in (folder / "LICENSE.ICRP-07.txt").read_text()
    assert "Universitat de Barcelona" in (folder / "NOTICE.PENELOPE.txt").read_text()
    assert "MIT License" in (folder / "NOTICE.packages.txt").read_text()
    assert about_table("decay")["licence"].startswith("ICRP-07")


def test_a_changed_table_is_refused(tmp_path, monkeypatch):
    for name in ("elastic.npz", "elastic.json"):
        shutil.copy(resource_path("physics", name), tmp_path / name)
    with open(tmp_path / "elastic.npz", "ab") as stream:
        stream.write(b"x")
    monkeypatch.setattr(tables_module, "resource_path", lambda *parts: tmp_path / parts[-1])
    tables_module.about_table.cache_clear()
    with pytest.raises(SynthDoseError, match="SHA-256"):
        tables_module.load_table.__wrapped__("elastic")
    tables_module.about_table.cache_clear()


def test_published_compositions():
    # ICRU 44: skeletal muscle H 10.2 C 14.3 N 3.4 O 71.0 Na 0.1 P 0.2 S 0.3 Cl 0.1 K 0.4, 1.05 g/cm3
    muscle = get_material("muscle")
    assert muscle.density_g_cm3 == pytest.approx(1.05)
    assert dict(muscle.mass_fractions)["O"] == pytest.approx(0.710)
    # ICRP 110: liver of the adult male, H 10.2 C 13.0 N 3.1 O 72.5 Na 0.2 P 0.2 S 0.3 Cl 0.2 K 0.3, 1.05 g/cm3
    assert get_material("icrp110_am_liver").mass_fractions["C"] == pytest.approx(0.130, abs=0.002)
    assert get_material("Titanium").density_g_cm3 == pytest.approx(4.54)
    assert electrons_per_gram(get_material("water")) == pytest.approx(3.343e23, rel=1e-3)


def test_all_materials_are_of_matter():
    table = materials_table()
    assert len(table) > 140
    for name, material in table.items():
        numbers, fractions = elements(material)
        assert (fractions > 0).all(), name
        assert fractions.sum() == pytest.approx(1)
        assert (numbers[1:] > numbers[:-1]).all()


def test_an_unknown_material_is_answered_with_the_nearest():
    with pytest.raises(SynthDoseError, match=r"'corticl bone'.*Nearest:.*cortical_bone"):
        get_material("corticl bone")


def test_a_mean_excitation_energy_that_is_given_counts():
    water = Material("water", 1.0, {"H": 0.111894, "O": 0.888106}, mean_excitation_eV=68.999)
    assert mean_excitation_energy(water) == 68.999
    lower, usual = (stopping_powers(m, [0.1, 1.0]).collision for m in (water, get_material("water")))
    # Bethe: of the 4.115 MeV cm2/g of ESTAR at 0.1 MeV, 0.1535 Z/A / beta^2 times 2 ln(75 / 69)
    change = 0.15354 * 0.55508 / 0.30054 * 2 * math.log(75 / 68.999) / 4.115
    assert lower[0] / usual[0] - 1 == pytest.approx(change, rel=0.01)
    with pytest.raises(SynthDoseError, match=r"mean_excitation_eV has to be between 10 and 1000 eV"):
        Material("water", 1.0, {"H": 0.111894, "O": 0.888106}, mean_excitation_eV=0.075)
