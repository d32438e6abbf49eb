"""Nothing of the patient is left in what a de-identified run writes: every file is searched, archives included."""

from __future__ import annotations

import base64
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import body_mask, grid, hounsfield, labels

from SynthDoseLib.cli import main
from SynthDoseLib.core import DoseMap, ImageVolume, LabelMap, Organ
from SynthDoseLib.io import DicomStudy, read_image, write_dicom_seg, write_dicom_series, write_rtdose, write_rtstruct
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.io.identity import Identity, identity_of
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.deidentify import public, public_plan

WHO = (
    "Zebrowski", "Quentin", "Xaverius", "7734191", "19520417", "1952-04-17", "Hildegard", "Oberau", "Mondschein",
    "Ludovica", "ACC55512", "Rosenstrasse",
)  # fmt: skip
WHEN = ("20240131", "2024-01-31", "20240201", "2024-02-01")
TEXT = "Zebrowski Quentin 7734191 Hildegard Oberau Mondschein"
NEEDED = (
    "CodeValue", "CodingSchemeDesignator", "CodeMeaning", "Radiopharmaceutical", "ROIName", "LUTExplanation", "LUTLabel",
)  # fmt: skip
STARTED = datetime(2024, 1, 31, 10)

PLAN = """
[image]
path = "CT_Zebrowski"
[segmentation]
path = "structures_7734191.dcm"
[therapy]
nuclide = "Lu-177"
administered_MBq = 1000
administered_at = 2024-01-31T10:00:00
[[activity]]
path = "SPECT Zebrowski 19520417"
[kinetics]
rest_effective_half_life_h = 60.0
[kinetics.effective_half_life_h]
"Tumour Zebrowski" = 80.0
[dose]
histories = 3000
threads = 1
organs = ["Tumour Zebrowski"]
[output]
title = "Dosimetry of Quentin Zebrowski"
radiomics = false
"""


def plant(path: Path) -> None:
    """Write who the patient is into every text of a DICOM file, and into elements that it lacks."""
    dataset = pydicom.dcmread(path)
    for element in dataset.iterall():
        if element.VR in ("LO", "SH", "LT", "ST", "UT", "PN") and element.keyword not in NEEDED:
            element.value = TEXT[:16] if element.VR == "SH" else TEXT
    dataset.PatientName = "Zebrowski^Quentin^Xaverius"
    dataset.PatientID, dataset.PatientBirthDate, dataset.OtherPatientIDs = "MRN-7734191", "19520417", "7734191"
    dataset.PatientAddress, dataset.PatientMotherBirthName = "Rosenstrasse 5, Oberau", "Mondschein"
    dataset.InstitutionName, dataset.InstitutionAddress = "Hildegard Klinik", "Oberau"
    dataset.ReferringPhysicianName, dataset.OperatorsName = "Mondschein^Ludovica", "Mondschein^Ludovica"
    dataset.AccessionNumber, dataset.StationName = "ACC55512", "Hildegard-CT1"
    dataset.SeriesDescription, dataset.StudyDescription = TEXT, TEXT
    dataset.ProtocolName = dataset.PatientComments = dataset.ImageComments = dataset.StudyID = TEXT[:16]
    block = dataset.private_block(0x0009, "Zebrowski Quentin", create=True)
    block.add_new(0x01, "LO", TEXT)
    block.add_new(0x02, "UN", TEXT.encode())
    save_dataset(dataset, path)


def write_named_patient(folder: Path) -> Path:
    """CT, SPECT and contours that all say who the patient is; return the plan."""
    home = folder / "Zebrowski_Quentin_7734191"
    home.mkdir()
    study = DicomStudy(started_at=STARTED)
    where = grid()
    ct_files = write_dicom_series(home / "CT_Zebrowski", ImageVolume(where, hounsfield(where), "CT", "HU", STARTED), study)
    drawn = labels(where)
    named = LabelMap(where, drawn.labels, (Organ(1, "liver"), Organ(2, "Tumour Zebrowski"), Organ(3, "pancreas")))
    write_rtstruct(home / "structures_7734191.dcm", named, read_image(home / "CT_Zebrowski"), deidentify=False)
    activity = np.where(body_mask(where), 10.0, 0.0).astype(np.float32)
    activity[drawn.labels > 0] = 1e5
    image = ImageVolume(where, activity, "NM", "Bq/ml", STARTED + timedelta(days=1), {"radionuclide": "Lu-177"})
    spect_files = write_dicom_series(home / "SPECT Zebrowski 19520417", image, study)
    for path in (*ct_files, *spect_files, home / "structures_7734191.dcm"):
        plant(path)
    plan = home / "Zebrowski.toml"
    plan.write_text(PLAN, encoding="utf-8")
    return plan


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of a file, of the members of archives, of packed data of NRRD files, and of pictures in HTML."""
    yield from _inside(path.name, path.read_bytes())


def _inside(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _inside(f"{name}/{member}", archive.read(member))
    if name.endswith(".html"):
        for n, packed in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)):
            yield f"{name}/picture{n}", base64.b64decode(packed)
    if data[:4] == b"NRRD" and b"encoding: gzip" in data:
        yield f"{name}/data", zlib.decompress(data.split(b"\n\n", 1)[1], 31)


def leaks(folder: Path, words: tuple[str, ...]) -> list[str]:
    """What is found of `words` in names and contents of the files of a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        for name, data in contents(path) if path.is_file() else [(path.name, b"")]:
            text = (name.encode() + b"\n" + data).lower()
            wide = data.lower().replace(b"\0", b"")
            found += [f"{path.name}: {name}: {word}" for word in words if word.lower().encode() in text + wide]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    plan = write_named_patient(folder)
    assert main(["run", str(plan), "--out", str(folder / "Zebrowski")]) == 0
    return folder / "Zebrowski"


def test_nothing_says_who_the_patient_is_or_when_it_was(finished):
    assert leaks(finished, WHO + WHEN) == []


def test_the_written_plan_is_valid_and_keeps_the_times_between(finished):
    plan = read_plan(finished / "plan.toml")
    assert (plan.image.path.name, plan.segmentation.path.name) == ("input-1", "input-2.dcm")
    assert plan.therapy.administered_at == datetime(2000, 1, 1, 10)
    assert plan.dose.organs == ("Tumour anon",)
    fields = (finished / "activity_fields.csv").read_text(encoding="utf-8")
    assert "acquired_at,2000-01-02 10:00:00" in fields
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "ct.nrrd" in html  # a file of the run, whatever the input was called
    assert "Tumour anon" in (finished / "organ_doses.csv").read_text(encoding="utf-8")


def test_it_is_told_by_choice(tmp_path):
    who = Identity(names=(("Doe",),), days=(STARTED.date(),))
    plan = read_plan(write_named_patient(tmp_path))
    assert public_plan(plan, None).therapy == plan.therapy
    assert public(("Doe 2024-01-31",), None) == ("Doe 2024-01-31",)
    assert public(("Doe 2024-02-01",), who) == ("anon 2000-01-02",)


@pytest.mark.parametrize(
    ("text", "name", "cleaned"),
    [
        ("Long scans take long", False, "anon scans take long"),
        ("GTV_long", True, "GTV_anon"),
        ("liver, Liver", True, "liver, Liver"),  # although the patient's middle name is Liver
        ("GTVWojciechowski2", True, "GTVanon2"),
        ("1000 MBq, 1.25e+06 Bq", False, "1000 MBq, 1.25e+06 Bq"),
        ("PTV 1000", True, "PTV anon"),
        ("1.2.840.1000.447711.3 of 447711", False, "1.2.840.1000.447711.3 of anon"),
        ("Lu-177, monte-carlo", False, "Lu-177, monte-carlo"),
        ("Li Bo came", False, "anon came"),
        ("born 03.05.1961 or 5/3/61, 19610503", False, "born anon or 5/3/61, anon"),
    ],
)
def test_names_go_and_words_that_only_look_like_them_stay(text, name, cleaned):
    who = Identity(
        names=(("Wojciechowski", "Long", "Liver"), ("Li", "Bo")), numbers=("447711", "PAT1000"), births=(date(1961, 5, 3),)
    )
    assert who.clean(text, name=name) == cleaned


def test_a_patient_called_like_a_key_of_the_plan_does_not_spoil_it(tmp_path):
    plan = read_plan(write_named_patient(tmp_path))
    told = public_plan(plan, Identity(names=(("Monte", "Carlo", "Auto"),)))
    assert (told.dose, told.therapy.nuclide) == (plan.dose, "Lu-177")


def test_objects_written_without_a_run_hide_the_patient_too(tmp_path):
    write_named_patient(tmp_path)
    home = tmp_path / "Zebrowski_Quentin_7734191"
    ct, where = read_image(home / "CT_Zebrowski"), grid()
    named = LabelMap(where, labels(where).labels, (Organ(1, "liver"), Organ(2, "Quentin_GTV"), Organ(3, "gtv 7734191")))
    dose = DoseMap(where, np.ones(where.shape, np.float32), np.zeros(where.shape, np.float32))
    out = tmp_path / "out"
    out.mkdir()
    write_rtstruct(out / "rs.dcm", named, ct, deidentify=True)
    write_dicom_seg(out / "seg.dcm", named, ct, deidentify=True)
    write_rtdose(out / "rd.dcm", dose, ct, deidentify=True)
    assert leaks(out, WHO + WHEN) == []
    write_rtdose(out / "rd.dcm", dose, ct, deidentify=False)
    assert leaks(out, ("Zebrowski", "20240131"))


def test_notes_beside_the_series_do_not_hide_whose_it_is(tmp_path):
    write_named_patient(tmp_path)
    folder = tmp_path / "Zebrowski_Quentin_7734191" / "CT_Zebrowski"
    for name in ("00_readme.txt", "01_licence.txt", "02_notes.txt"):
        (folder / name).write_text("text", encoding="utf-8")
    assert identity_of([folder]).clean("quentin_gtv", name=True) == "anon_gtv"


def test_interfile_headers_say_who_it_is(tmp_path):
    header = "!INTERFILE :=\n!patient name := Zebrowski Quentin\npatient ID := 7734191\n!institution := Oberau\n"
    (tmp_path / "spect.h33").write_text(header, encoding="latin-1")
    who = identity_of([tmp_path / "spect.h33", tmp_path / "gone"])
    assert who.clean("Zebrowski, 7734191, Oberau, spect.h33") == "anon, anon, anon, input-1.h33"
