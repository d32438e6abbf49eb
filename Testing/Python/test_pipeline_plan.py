import tomllib
from pathlib import Path

import pytest

from SynthDoseLib.core import SynthDoseError, resource_path
from SynthDoseLib.pipeline.nuclides import emissions_of
from SynthDoseLib.pipeline.plan import RunPlan, plan_from_values, read_plan, write_plan

PLANS = Path(__file__).resolve().parents[1] / "Plans"
MINIMAL = """
[image]
path = "ct"
[segmentation]
method = "tissue"
[therapy]
nuclide = "Lu-177"
[[organ_activity]]
organ = "lungs"
tia_MBq_s = 1
[dose]
histories = 1000
"""


def plan(text: str) -> RunPlan:
    return plan_from_values(tomllib.loads(text), Path("data"))


def test_relative_paths_refer_to_the_data_folder():
    assert plan(MINIMAL).image.path == Path("data/ct")


def test_the_template_is_valid_and_shows_every_key():
    text = resource_path("plan_template.toml").read_text(encoding="utf-8")
    plan(text)
    import dataclasses

    from SynthDoseLib.pipeline import plan as module

    tables = [getattr(module, name) for name in dir(module) if name.endswith("Plan") and name != "RunPlan"]
    for table in tables:
        for field in dataclasses.fields(table):
            assert f"{field.name}" in text, (table.__name__, field.name)


def test_a_written_plan_reads_back_the_same(tmp_path):
    first = plan(MINIMAL)
    write_plan(first, tmp_path / "plan.toml")
    second = read_plan(tmp_path / "plan.toml")
    assert second.dose == first.dose
    assert second.image.path == first.image.path.absolute()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "tissue"', 'metod = "tissue"', r"unknown key 'metod'.*Did you mean 'method'.*Valid keys: path, labels"),
        ("[dose]", "[doses]", r"unknown table 'doses'.*Did you mean 'dose'"),
        ("histories = 1000", "histories = -1", "has to be positive; found -1"),
        ("histories = 1000", 'histories = "many"', r"^\[dose\] histories has to be a whole number; found 'many'"),
        ("histories = 1000", "hystories = 1", r"^\[dose\] has an unknown key 'hystories'.*Did you mean 'histories'"),
        ("[dose]", "[phantom.patient]\nheight_m = true\n[dose]", r"^\[phantom\.patient\] height_m has to be a number"),
        ("[dose]", "[[dosimetry.previous]]\nfactor = 'x'\n[dose]", r"^\[\[dosimetry\.previous\]\] factor has to be a number"),
        ("[dose]", "[[output]]\n[dose]", r"^\[output\] has to be a table"),
        ("[dose]", "[[organ_activity]]\norgan = 5\n[dose]", r"^\[\[organ_activity\]\] organ has.*\(Table 2 of 2\.\)$"),
        ("tia_MBq_s = 1", "tia_MBq_s = [1]", r"^\[\[organ_activity\]\] tia_MBq_s has to be a number"),
        ("histories = 1000", "relative_sigma = 0.01", "needs organs"),
        ("histories = 1000", 'histories = 1\nengine = "kernels"', "Allowed: monte-carlo"),
        ("histories = 1000", "", "needs a stop"),
        ('method = "tissue"', 'method = "tissue"\nbundle = "x"', "exactly one of path, bundle and method"),
        ("tia_MBq_s = 1", "", "exactly one of tia_MBq_s"),
        ("tia_MBq_s = 1", "tia_MBq_s = nan", "has to be 0 or more"),
        ("tia_MBq_s = 1", "residence_time_h = 1", "needs .therapy. administered_MBq"),
        ('nuclide = "Lu-177"', "", r"lacks the key 'nuclide'"),
        ("[image]", "schema = 2\n[image]", "schema 2"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(old, new, message):
    assert old in MINIMAL
    with pytest.raises(SynthDoseError, match=message):
        plan(MINIMAL.replace(old, new, 1))


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_plans_of_the_real_patients_are_valid(path):
    read_plan(path)


@pytest.mark.parametrize("path", sorted(resource_path("plans").glob("*.toml")), ids=lambda p: p.stem)
def test_the_documented_examples_are_valid_and_their_nuclides_known(path):
    example = read_plan(path)
    therapy = example.therapy
    emissions, _ = emissions_of(therapy.nuclide, therapy.progeny, progeny_max_half_life_d=therapy.progeny_max_half_life_d)
    assert emissions
