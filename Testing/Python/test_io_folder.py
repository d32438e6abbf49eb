"""Output folders and tables: whole or not at all, and nothing overwritten by accident."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.io import atomic_folder, prepare_output_folder, write_csv


def test_a_new_folder_is_made_and_left_empty(tmp_path):
    folder = prepare_output_folder(tmp_path / "runs" / "patient 1")
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_earlier_results_are_kept_unless_told_otherwise(tmp_path):
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(SynthDoseError, match="already holds the results"):
        prepare_output_folder(tmp_path)
    assert prepare_output_folder(tmp_path, overwrite=True) == tmp_path


def test_a_file_in_the_way_too_little_space_or_no_permission_is_told_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthDoseError, match="is a file"):
        prepare_output_folder(tmp_path / "file")
    with pytest.raises(SynthDoseError, match="MB are needed"):
        prepare_output_folder(tmp_path / "a", needed_MB=1e12)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SynthDoseError, match="No space left"):
        prepare_output_folder(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SynthDoseError, match="Cannot write"):
        prepare_output_folder(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_tables_are_plain_with_seven_digits(tmp_path):
    rows = [("liver", np.float32(1 / 3), 1234567.891, None), ('bone, "hard"', 2, np.float64(1e-12), np.nan)]
    write_csv(tmp_path / "t.csv", ("organ", "a", "b", "c"), rows)
    assert (tmp_path / "t.csv").read_bytes() == (b'organ,a,b,c\nliver,0.3333333,1234568,\n"bone, ""hard""",2,1e-12,nan\n')


def test_a_table_that_fails_leaves_the_old_one(tmp_path):
    write_csv(tmp_path / "t.csv", ("a", "b"), [(1, 2)])
    with pytest.raises(SynthDoseError, match="a row has 1 fields, the header 2"):
        write_csv(tmp_path / "t.csv", ("a", "b"), [(3, 4), (5,)])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,2\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_files_appears_whole_or_not_at_all(tmp_path):
    class Trouble(Exception):
        pass

    def fail():
        with atomic_folder(tmp_path / "ct") as folder:
            (folder / "1.dcm").write_text("x")
            raise Trouble

    with pytest.raises(Trouble):
        fail()
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "ct") as folder:
        (folder / "1.dcm").write_text("x")
    assert [p.name for p in (tmp_path / "ct").iterdir()] == ["1.dcm"]
