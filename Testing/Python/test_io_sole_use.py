"""Two processes never write into one folder of results, and one that was killed does not keep others out for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, write_patient

from SynthDoseLib.cli import BAD_INPUT, FAILURE, main
from SynthDoseLib.core import ProgressReport, SynthDoseError, silent
from SynthDoseLib.io import sole_use as module
from SynthDoseLib.io.sole_use import NOTE, sole_use
from SynthDoseLib.pipeline.plan import read_plan
from SynthDoseLib.pipeline.run import run_patient

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from SynthDoseLib.io.sole_use import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in tmp_path / "out"."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        yield process
        process.kill()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Signs of life every 50 ms, and death after half a second without."""
    for name, seconds in (("BEAT_S", 0.05), ("SILENCE_S", 0.5), ("LOOK_S", 0.02)):
        monkeypatch.setattr(module, name, seconds)


def note_of(folder: Path, **changes: object) -> Path:
    """A note that a process of another computer left."""
    said = {"pid": 4242, "host": "node17", "place": "elsewhere", "born_s": 1.0, "started": "2031-01-01T00:00:00+00:00"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).write_text(json.dumps({**said, "token": "theirs", **changes}), encoding="utf-8")
    return folder / NOTE


def test_the_second_process_stops_and_names_the_first(tmp_path, other, capsys):
    plan = write_patient(tmp_path)
    for verb in (["run", str(plan), "--resume"], ["run", str(plan), "--overwrite"], ["people", "--count", "1"]):
        assert main([*verb, "--out", str(tmp_path / "out")]) == BAD_INPUT
        said = capsys.readouterr().err
        assert f"process {other.pid} on" in said
        assert "started 20" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NOTE}


def test_a_killed_process_keeps_nobody_out(tmp_path, other):
    other.kill()
    began = time.monotonic()
    with sole_use(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / NOTE).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 5  # not even when nobody has asked for its exit status
    assert not list((tmp_path / "out").iterdir())


def test_a_living_process_elsewhere_is_seen_whatever_its_clock_says(tmp_path, quick):
    note = note_of(tmp_path / "out")
    stop = threading.Event()

    def beat() -> None:
        moment = 10.0  # of 1970: its clock is wrong
        while not stop.wait(0.05):
            moment += 5
            os.utime(note, (moment, moment))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(SynthDoseError, match="process 4242 on node17, started 2031"), sole_use(tmp_path / "out"):
            pass
    finally:
        stop.set()
        thread.join()
    assert note.exists()


@pytest.mark.parametrize(
    "changes",
    [{}, {"place": module._place(), "pid": os.getpid(), "born_s": 12.0}, {"token": 5, "pid": "no number"}],
    ids=["another computer", "its number is another's now", "a note that is none"],
)
def test_a_silent_process_is_taken_for_dead_after_a_while(tmp_path, quick, changes):
    note = note_of(tmp_path / "out", **changes)
    os.utime(note, (4e9, 4e9))  # touched in the future
    told: list[str] = []
    with sole_use(tmp_path / "out", lambda report: told.append(report.message)) as use:
        use.require()
    assert told
    assert "looking whether it still is" in told[0]
    assert not list((tmp_path / "out").iterdir())


def test_who_was_taken_over_stops(tmp_path, quick):
    with sole_use(tmp_path / "out") as use:
        note_of(tmp_path / "out")
        use._thread.join(timeout=5)  # it has seen the note, and ends
        tell = use.watched(silent)
        with pytest.raises(SynthDoseError, match="taken over by process 4242 on node17"):
            tell(ProgressReport("transport", 0.5))
    assert (tmp_path / "out" / NOTE).exists()  # it is the other's


def test_a_note_that_somebody_removed_comes_back(tmp_path, quick):
    with sole_use(tmp_path / "out"):
        (tmp_path / "out" / NOTE).unlink()
        end = time.monotonic() + 5
        while not (tmp_path / "out" / NOTE).exists():
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_long_run_touches_its_note(tmp_path, quick):
    with sole_use(tmp_path / "out"):
        first = (tmp_path / "out" / NOTE).stat().st_mtime_ns
        end = time.monotonic() + 5
        while (tmp_path / "out" / NOTE).stat().st_mtime_ns == first:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_threads_of_one_process_do_not_share_a_folder_either(tmp_path):
    with sole_use(tmp_path / "out"):
        with pytest.raises(SynthDoseError, match=f"process {os.getpid()} "), sole_use(tmp_path / "out"):
            pass
        assert (tmp_path / "out" / NOTE).exists()


def test_of_many_that_begin_at_once_one_goes_on(tmp_path):
    note_of(tmp_path / "out", place=module._place(), pid=2**22 + 1)  # of a process that there is not
    inside, together, refused, gate = [0], [], [], threading.Barrier(8)

    def begin() -> None:
        gate.wait()
        try:
            with sole_use(tmp_path / "out"):
                inside[0] += 1
                together.append(inside[0])
                time.sleep(0.2)
                inside[0] -= 1
        except SynthDoseError:
            refused.append(1)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(together) == {1}
    assert len(together) + len(refused) == 8
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("quick")
def test_who_died_while_it_took_over_keeps_nobody_out(tmp_path):
    note_of(tmp_path / "out").with_name(f"{NOTE}.taking").touch()
    with sole_use(tmp_path / "out") as use:
        use.require()


def test_a_bad_plan_leaves_no_folder(tmp_path):
    plan = read_plan(write_patient(tmp_path))
    (tmp_path / "ct.nrrd").unlink()
    with pytest.raises(SynthDoseError, match="does not exist"):
        run_patient(plan, tmp_path / "new" / "folders" / "out")
    assert not (tmp_path / "new").exists()


def test_a_batch_reports_the_patient_whose_folder_is_in_use_and_goes_on(tmp_path, capsys):
    for name in ("anna", "bert"):
        (tmp_path / "patients" / name).mkdir(parents=True)
        write_patient(tmp_path / "patients" / name, PLAN.replace("histories = 4000", 'engine = "local"'))
    plan = tmp_path / "patients" / "anna" / "plan.toml"
    command = ["batch", str(tmp_path / "patients"), "--plan", str(plan), "--out", str(tmp_path / "runs")]
    with sole_use(tmp_path / "runs" / "anna"):
        assert main(command) == FAILURE
        rows = (tmp_path / "runs" / "batch.csv").read_text(encoding="utf-8").splitlines()
        assert rows[1].startswith("anna,failed,")
        assert f"process {os.getpid()}" in rows[1]
        assert rows[2].startswith("bert,finished,")
    with sole_use(tmp_path / "runs"):
        assert main(command) == BAD_INPUT
    assert main(command) == 0
