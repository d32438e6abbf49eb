"""Phase-space files: every layout a header may describe, and every way in which file and header may not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import ParticleList, SynthDoseError
from SynthDoseLib.io import read_phase_space

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "images" / "phsp"

KINDS = np.array([1, 2, -1, 3, 1])  # photon, electron, photon that flies back, positron, photon
ENERGY = np.array([0.25, 1.5, 3.0, 0.75, 2.0])
FIRST = np.array([True, False, True, True, False])
U = np.array([0.0, 0.6, 0.0, -0.28, 0.36])
V = np.array([0.0, 0.0, 0.8, 0.0, 0.48])
W = np.array([1.0, 0.8, -0.6, 0.96, 0.8])


def write_iaea(
    folder: Path, *, order: str = "<", flags: str = "110110100", constants: tuple[float, ...] = (26.7,), **changes: str
) -> Path:
    """An IAEA pair of five particles; `changes` replace sections of the header."""
    names = ["x", "y", "z", "u", "v", "w", "weight"]
    fields = [("kind", "i1"), ("energy", f"{order}f4")]
    fields += [(name, f"{order}f4") for name, flag in zip(names, flags, strict=False) if flag == "1" and name != "w"]
    fields += [(f"f{n}", f"{order}f4") for n in range(int(flags[7]))] + [(f"i{n}", f"{order}i4") for n in range(int(flags[8]))]
    records = np.zeros(5, np.dtype(fields))
    values = {"x": np.arange(5.0), "y": -np.arange(5.0), "z": np.full(5, 3.5), "u": U, "v": V, "weight": np.arange(1.0, 6.0)}
    for name in records.dtype.names[2:]:
        records[name] = values.get(name, 7)
    records["kind"], records["energy"] = KINDS, np.where(FIRST, -ENERGY, ENERGY)
    records.tofile(folder / "beam.IAEAphsp")
    extra = [f"{n + 1} // a type" for n in range(int(flags[7]) + int(flags[8]))]
    sections = {
        "RECORD_CONTENTS": "\n".join([f"   {flag}  // stored ?" for flag in flags] + extra),
        "RECORD_CONSTANT": "\n".join(f"  {value} // a constant" for value in constants),
        "RECORD_LENGTH": str(records.dtype.itemsize), "BYTE_ORDER": "1234" if order == "<" else "4321",
        "ORIG_HISTORIES": "1000", "PARTICLES": "5", "PHOTONS": "3",
    }  # fmt: skip
    sections.update(changes)
    text = "\n\n".join(f"${name}:\n{value}" for name, value in sections.items() if value)
    (folder / "beam.IAEAheader").write_text(text)
    return folder / "beam.IAEAphsp"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("flags", "constants"),
    [("110111100", (26.7,)), ("110110100", (26.7, 0.5)), ("110110100", (26.7,)), ("111111123", ()), ("110111000", (26.7, 1.0))],
)
def test_every_layout_of_an_iaea_header_is_read(tmp_path, order, flags, constants):
    found = read_phase_space(write_iaea(tmp_path, order=order, flags=flags, constants=constants))
    z_mm = 35.0 if flags[2] == "1" else 267.0
    assert found.position_mm == pytest.approx(np.stack([np.arange(5) * 10, np.arange(5) * -10, np.full(5, z_mm)], axis=-1))
    assert found.direction == pytest.approx(np.stack([U, V, W], axis=-1), abs=1e-6)
    assert found.energy_MeV == pytest.approx(ENERGY)
    assert found.particle.tolist() == [0, 1, 0, 2, 0]
    assert found.first_of_history.tolist() == FIRST.tolist()
    assert found.weight.tolist() == ([1, 2, 3, 4, 5] if flags[6] == "1" else [1] * 5)
    assert (found.original_histories, found.histories, found.notes) == (1000, 3, ())
    assert read_phase_space(tmp_path / "beam.IAEAheader", original_histories=50).original_histories == 50


def test_particles_that_are_not_followed_are_counted_and_their_histories_kept(tmp_path):
    path = write_iaea(tmp_path)
    data = bytearray(path.read_bytes())
    data[0] = 5  # the first particle of the first history is a proton
    path.write_bytes(bytes(data))
    found = read_phase_space(path)
    assert found.particle.tolist() == [1, 0, 2, 0]
    assert found.first_of_history.tolist() == [True, True, True, False]
    assert any("1 proton" in note for note in found.notes)
    assert any("3 photons where there are 2" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RECORD_LENGTH": "33"}, "RECORD_LENGTH 33, but"), ({"RECORD_CONTENTS": "1\n1"}, "nine numbers"),
        ({"RECORD_CONTENTS": "1\n1\n1\n1\n1\n1\n1\n900000000\n0"}, "nine numbers"), ({"RECORD_CONSTANT": ""}, "stores no z"),
        ({"BYTE_ORDER": "2143"}, "BYTE_ORDER"), ({"ORIG_HISTORIES": ""}, "ORIG_HISTORIES"),
        ({"ORIG_HISTORIES": "many"}, "not a number"), ({"ORIG_HISTORIES": "2"}, "more than the 2"),
        ({"PARTICLES": "6"}, "truncated"), ({"PARTICLES": "-6"}, "0 or more"), ({"RECORD_CONSTANT": "deep"}, "no number"),
    ],
)  # fmt: skip
def test_an_iaea_header_that_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(SynthDoseError, match=message):
        read_phase_space(write_iaea(tmp_path, **changes))


def test_damaged_files_are_refused(tmp_path):
    path = write_iaea(tmp_path)
    whole = path.read_bytes()
    for data, message in (
        (whole[:-3], "whole number of records"), (b"", "no particle"), (whole[:5] + b"\x00\x00\xc0\x7f" + whole[9:], "finite"),
        (b"\x00" * len(whole), "no photon, electron"), (whole[:13] + b"\x00\x00\x00\x40" + whole[17:], "squares sum"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(SynthDoseError, match=message):
            read_phase_space(path)
    path.unlink()
    with pytest.raises(SynthDoseError, match="no phase-space file"):
        read_phase_space(path)
    with pytest.raises(SynthDoseError, match="lacks its other file"):
        read_phase_space(tmp_path / "beam.IAEAheader")
    (tmp_path / "other.header").write_text("something else")
    (tmp_path / "other.phsp").write_bytes(whole)
    with pytest.raises(SynthDoseError, match="neither IAEA"):
        read_phase_space(tmp_path / "other.phsp")
    with pytest.raises(SynthDoseError, match="no phase-space file that is known"):
        read_phase_space(tmp_path / "beam.root")


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    path = write_iaea(tmp_path, PARTICLES="")
    with path.open("r+b") as stream:
        stream.truncate(25 * 10**11)  # a hole: takes no room on the disk
    with pytest.raises(SynthDoseError, match="GiB of memory"):
        read_phase_space(path)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_a_linac_phase_space_with_a_wrong_header_is_read_and_said_to_be(tmp_path):
    found = read_phase_space(SHARED / "iaea_truebeam6x_1000" / "test_iaea.phsp")
    assert np.bincount(found.particle).tolist() == [9919, 79, 2]
    assert found.energy_MeV.max() == pytest.approx(6.09, abs=0.01)
    assert np.all(found.position_mm[:, 2] == np.float32(267))
    assert (found.direction[:, 2] > 0).mean() > 0.99
    assert any("speaks of 1000 particles, the file holds 10000" in note for note in found.notes)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_topas_files_ascii_and_binary_agree():
    lists = [read_phase_space(SHARED / "topas" / f"{name}-phasespace.phsp") for name in ("ascii", "binary")]
    for found in lists:
        assert found.particle.tolist() == [1] * 4
        assert found.original_histories == 100
        assert "100 of 104" in found.notes[0]
        assert "100 proton" in found.notes[0]
        assert found.energy_MeV.min() == pytest.approx(0.0411577, rel=1e-5)  # as the headers say
        assert found.energy_MeV.max() == pytest.approx(0.297634, rel=1e-5)
    for name in ("position_mm", "direction", "energy_MeV"):
        assert getattr(lists[0], name) == pytest.approx(getattr(lists[1], name), rel=2e-5, abs=1e-5)


TOPAS_COLUMNS = [
    ("f4", "Position X [cm]"), ("f4", "Position Y [cm]"), ("f4", "Position Z [cm]"), ("f4", "Direction Cosine X"),
    ("f4", "Direction Cosine Y"), ("f4", "Energy [MeV]"), ("f4", "Weight"), ("i4", "Particle Type (in PDG Format)"),
    ("b1", "Flag to tell if Third Direction Cosine is Negative (1 means true)"),
    ("b1", "Flag to tell if this is the First Scored Particle from this History (1 means true)"), ("i4", "Run ID"),
]  # fmt: skip


def test_newer_binary_topas_headers_and_more_columns(tmp_path):
    types = {"f4": "<f4", "i4": "<i4", "b1": "i1"}
    records = np.zeros(3, np.dtype([(f"c{n}", types[kind]) for n, (kind, _) in enumerate(TOPAS_COLUMNS)]))
    records["c0"], records["c5"], records["c6"] = [1, 2, 3], [0.5, 1.0, 0.1], [1, 2, -40]
    records["c7"], records["c8"], records["c9"] = [22, -11, 0], [0, 1, 0], [1, 0, 1]
    records.tofile(tmp_path / "a.phsp")
    text = "TOPAS Binary Phase Space\n\nNumber of Original Histories: 50\nNumber of Scored Particles: 3\n"
    text += f"Number of Bytes per Particle: {records.dtype.itemsize}\n\nByte order of each record is as follows:\n"
    (tmp_path / "a.header").write_text(text + "\n".join(f"{kind}: {name}" for kind, name in TOPAS_COLUMNS))
    found = read_phase_space(tmp_path / "a.phsp")  # the last stands for 40 histories that reached nothing
    assert found.particle.tolist() == [0, 2]
    assert found.direction[:, 2].tolist() == [1, -1]
    assert found.histories == 1
    (tmp_path / "a.header").write_text(text + "\n".join(f"{kind}: {name}" for kind, name in TOPAS_COLUMNS[1:]))
    with pytest.raises(SynthDoseError, match="position x"):
        read_phase_space(tmp_path / "a.phsp")


CSV = "particle,energy_MeV,x_mm,y_mm,z_mm,u,v,w,weight,history\nphoton,1.0,1,2,3,0,0,1,1,5\nelectron,2.0,1,2,3,0,1,0,0.5,5\n"


def test_a_csv_list_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(CSV + "positron,0.1,0,0,0,-1,0,0,1,6\n")
    found = read_phase_space(path)
    assert found.particle.tolist() == [0, 1, 2]
    assert found.weight.tolist() == [1, 0.5, 1]
    assert found.first_of_history.tolist() == [True, False, True]
    assert found.original_histories == 2
    assert read_phase_space(path, original_histories=7).original_histories == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("photon,1.0", "proton,1.0", "Allowed: photon"), ("photon,1.0", "photon,abc", "not a number"),
        ("photon,1.0", "photon,-1.0", "energy of 0 or less"), ("photon,1.0", "photon,nan", "not a finite"),
        ("0,0,1,1,5", "0,0,2,1,5", "no unit vector"), ("0,0,1,1,5", "0,0,1,-1,5", "negative weight"),
        ("0,0,1,1,5", "0,0,1,1", "has 9 cells"), ("x_mm", "x_cm", "columns particle"), (CSV, "", "found nothing"),
    ],
)  # fmt: skip
def test_a_bad_csv_list_is_refused(tmp_path, old, new, message):
    path = tmp_path / "list.csv"
    assert old in CSV
    path.write_text(CSV.replace(old, new, 1))
    with pytest.raises(SynthDoseError, match=message):
        read_phase_space(path)


def test_an_empty_list_is_refused():
    none = np.zeros(0, np.float32)
    with pytest.raises(SynthDoseError, match="empty"):
        ParticleList(none.reshape(0, 3), none.reshape(0, 3), none, none.astype(np.uint8), none, none.astype(bool), 1.0)
