"""Label tables: names and codes of other programs lead to the organs the library knows."""

from __future__ import annotations

import csv
import doctest
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib import segmentation
from SynthDoseLib.core import LabelMap, Organ, SynthDoseError, VoxelGrid, resource_path
from SynthDoseLib.segmentation import tables

SHARED = Path(__file__).resolve().parents[3] / "shared"
TORSO = SHARED / "data" / "images" / "ct_torso_totalseg"


def label_map(values, organs) -> LabelMap:
    labels = np.asarray(values, np.uint16).reshape(1, 1, -1)
    return LabelMap(VoxelGrid.from_spacing(labels.shape, (1.0, 1.0, 1.0)), labels, tuple(organs))


def test_examples_in_the_documentation_run():
    assert doctest.testmod(tables).failed == 0


@pytest.mark.parametrize(("name", "count"), [("totalsegmentator", 117), ("totalsegmentator-mr", 50), ("monai-wholebody", 104)])
def test_every_class_of_the_shipped_tables_is_a_known_organ(name, count):
    table = segmentation.label_table(name)
    assert sorted(table) == list(range(1, count + 1))
    assert {organ.name for organ in table.values()} <= set(segmentation.canonical_organs())


def test_monai_whole_body_has_the_order_of_its_metadata():
    table = segmentation.label_table("monai-wholebody")
    places = {1: "spleen", 18: "vertebrae_L5", 55: "small_bowel", 81: "rib_right_12", 93: "face", 104: "urinary_bladder"}
    assert {index: table[index].name for index in places} == places


def test_snomed_codes_have_the_meaning_that_dicom_gives_them():
    from pydicom.sr._concepts_dict import concepts

    meanings: dict[str, str] = {}
    for entry in concepts["SCT"].values():
        for code, (meaning, _) in entry.items():
            meanings[code] = meanings.get(code, "") + " | " + meaning.lower()
    checked = 0
    for organ in segmentation.canonical_organs().values():
        if organ.snomed_code in meanings:
            assert organ.snomed_meaning.lower() in meanings[organ.snomed_code]
            checked += 1
    assert checked > 120


@pytest.mark.parametrize(
    ("foreign", "organ"),
    [
        ("Left Kidney", "kidney_left"),
        ("Kidney_L", "kidney_left"),
        ("kidney right", "kidney_right"),
        ("RightKidney", "kidney_right"),
        ("Liver", "liver"),
        ("LIVER", "liver"),
        ("Bladder", "urinary_bladder"),
        ("SpinalCord", "spinal_cord"),
        ("Lung_R", "lung_right"),
        ("Lungs", "lungs"),
        ("LeftParotid", "parotid_gland_left"),
        ("Bowel_Small", "small_bowel"),
        ("Upper lobe of left lung", "lung_upper_lobe_left"),
        ("L3", "vertebrae_L3"),
        ("Vertebra T4", "vertebrae_T4"),
        ("first rib right", "rib_right_1"),
        ("Femur_Head_R", "femoral_head_right"),
        ("Adrenal Gland, Left", "adrenal_gland_left"),
        ("Oesophagus", "esophagus"),
    ],
)
def test_names_of_other_programs_are_understood(foreign, organ):
    assert segmentation.find_organ(foreign).name == organ


def test_names_and_numbers_of_the_foundational_model_of_anatomy_are_known():
    rows = list(csv.DictReader((resource_path("terminologies") / "fma.csv").open(encoding="utf-8")))
    assert len({row["fma_id"] for row in rows if row["fma_id"]}) == sum(bool(row["fma_id"]) for row in rows)
    for row in rows:
        assert segmentation.find_organ(row["name"]).name == row["organ"]
        if row["fma_id"]:
            assert segmentation.find_organ(f"FMA{row['fma_id']}").name == row["organ"]
            assert segmentation.find_organ("part 7", f"FMA:{row['fma_id']}").name == row["organ"]
    assert segmentation.find_organ("FMA99999999") is None


@pytest.mark.parametrize("foreign", ["GTV_Mass", "tumour", "ptv 56", "left", "kidney left right", "nonsense"])
def test_unknown_names_are_not_guessed(foreign):
    assert segmentation.find_organ(foreign) is None


def test_code_decides_where_the_name_is_unknown():
    assert segmentation.find_organ("Leber", "10200004").name == "liver"
    assert segmentation.find_organ("Segment 3", "18639004").name == "kidney_left"
    assert segmentation.find_organ("Segment_3_left", "64033007").name == "kidney_left"
    assert segmentation.find_organ("Segment 3", "64033007") is None  # which side?


def test_names_decide_before_codes_and_doubles_keep_their_names():
    labels = label_map([1, 2, 3, 4], [Organ(1, "Liver"), Organ(2, "Leber", "10200004"), Organ(3, "GTV"), Organ(4, "Kidney_L")])
    matched = segmentation.match_organs(labels)
    assert [organ.name for organ in matched.organs] == ["liver", "Leber", "GTV", "kidney_left"]
    assert matched.organ("liver").snomed_code == "10200004"
    assert any("GTV" in note for note in matched.notes)
    assert any("Leber" in note for note in matched.notes)


def test_table_names_a_raw_map_and_refuses_values_it_does_not_list():
    raw = label_map([0, 1, 3, 5], [Organ(1, "label_1"), Organ(3, "label_3"), Organ(5, "label_5")])
    named = segmentation.apply_table(raw, segmentation.label_table("totalsegmentator"))
    assert [organ.name for organ in named.organs] == ["spleen", "kidney_left", "liver"]
    strange = label_map([0, 1, 300, 400], [Organ(1, "a"), Organ(300, "b"), Organ(400, "c")])
    with pytest.raises(SynthDoseError, match="300, 400"):
        segmentation.apply_table(strange, segmentation.label_table("totalsegmentator"))


def test_user_table_may_carry_codes_and_own_names(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("index,name,snomed_code\n0,background,\n1,Leber,10200004\n2,lesion 4,\n", encoding="utf-8")
    raw = label_map([0, 1, 2], [Organ(1, "label_1"), Organ(2, "label_2")])
    named = segmentation.apply_table(raw, segmentation.label_table(path))
    assert [organ.name for organ in named.organs] == ["liver", "lesion 4"]
    assert any("lesion 4" in note for note in named.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,organ\n1,liver\n", "columns index and name"),
        ("index,name\none,liver\n", "'one' is not a whole number"),
        ("index,name\n1,liver\n1,spleen\n", "repeats the index 1"),
        ("index,name\n1,liver\n2,liver\n", "repeats"),
        ("index,name\n-1,liver\n", "from 1 to 65535"),
        ("index,name\n", "lists no organs"),
    ],
)
def test_bad_tables_are_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SynthDoseError, match=message):
        segmentation.label_table(path)


def test_unknown_table_names_those_there_are():
    with pytest.raises(SynthDoseError, match="totalsegmentator, totalsegmentator-mr, monai-wholebody"):
        segmentation.label_table("totalsegmentor")


def test_groups_stand_for_their_members():
    assert set(segmentation.organ_group("lungs")) == {
        *(f"lung_{lobe}_lobe_{side}" for lobe, side in [("upper", "left"), ("lower", "left"), ("upper", "right")]),
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
        "lung_left",
        "lung_right",
        "lungs",
    }
    assert len([name for name in segmentation.organ_group("ribs") if name != "ribs"]) == 24
    assert {"femur_left", "skull", "sacrum", "vertebrae_T1", "skeleton"} <= set(segmentation.organ_group("skeleton"))
    assert segmentation.organ_group("liver") == ("liver",)


def test_merge_joins_members_and_group_mask_finds_them():
    labels = label_map([1, 2, 3, 0], [Organ(1, "kidney_right"), Organ(2, "liver"), Organ(3, "kidney_left")])
    assert segmentation.group_mask(labels, "kidneys").ravel().tolist() == [True, False, True, False]
    merged = segmentation.merge(labels, {"kidneys": segmentation.organ_group("kidneys")})
    assert merged.voxel_counts() == {"kidneys": 2, "liver": 1}
    with pytest.raises(SynthDoseError, match="no organ or group 'spleen'"):
        segmentation.group_mask(labels, "spleen")
    with pytest.raises(SynthDoseError, match="Nothing to merge"):
        segmentation.merge(labels, {"lungs": segmentation.organ_group("lungs")})


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_tables_agree_with_the_class_lists_they_come_from():
    for name, file in (("totalsegmentator", "labels_total.csv"), ("totalsegmentator-mr", "labels_total_mr.csv")):
        with (TORSO / file).open() as stream:
            expected = {int(row["index"]): row["name"] for row in csv.DictReader(stream)}
        assert {index: organ.name for index, organ in segmentation.label_table(name).items()} == expected
