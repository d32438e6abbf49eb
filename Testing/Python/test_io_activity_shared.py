"""A real PET in Bq/ml against the same PET as SUV, slice by slice as stored, without resampling."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from SynthDoseLib.io import read_native_slices
from SynthDoseLib.kinetics import suv_factor_Bq_ml

IMAGES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "images"
ARCHIVE = IMAGES / "pet_fdg_raw_sts001" / "FDG_PET_image_267.tar.xz"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    if not ARCHIVE.exists():
        pytest.skip("../shared with the real PET is not there")
    folder = tmp_path_factory.mktemp("sts001")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return read_native_slices(folder / "FDG_PET")


def test_suv_of_the_raw_pet_is_that_of_the_ibsi_pet_to_one_stored_unit(raw):
    folder = IMAGES / "petctmr_sts001_ibsi" / "PET" / "image"
    suv = read_native_slices(folder)
    assert (raw.unit, raw.values.shape, suv.unit) == ("Bq/ml", (267, 128, 128), "g/ml")
    says = raw.metadata
    factor = suv_factor_Bq_ml(
        "bw",
        injected_MBq=says["injected_activity_MBq"],
        weight_kg=says["patient_weight_kg"],
        seconds_since_injection=(raw.acquired_at - says["injected_at"]).total_seconds(),
        physical_half_life_s=says["half_life_s"],
    )
    slopes = {p: float(pydicom.dcmread(p, stop_before_pixels=True).RescaleSlope) for p in suv.source_files}
    heights = np.array([p.position[2] for p in raw.placements])
    off = []
    for values, placement, path in zip(suv.values, suv.placements, suv.source_files, strict=True):
        k = int(np.argmin(np.abs(heights - placement.position[2])))
        assert heights[k] == pytest.approx(placement.position[2], abs=0.3)  # the SUV image was put on even positions
        i, j = (
            ((np.array(placement.position[:2]) - raw.placements[k].position[:2]) / raw.placements[k].spacing)
            .round()
            .astype(int)
        )
        ours = raw.values[k, j : j + values.shape[0], i : i + values.shape[1]].astype(np.float64) / factor
        # one stored unit of the SUV image, and the rounding of our float32
        assert (np.abs(ours - values) <= slopes[path] + np.spacing(values.max())).all()
        off.append(abs(ours.sum() / values.sum(dtype=np.float64) - 1))
    assert len(off) == 59
    assert sum(x < 2e-4 for x in off) == 58
    # the SUV image was cut off to stored units, not rounded: in one slice nearly every voxel lost a whole one
    assert max(off) < 3e-4
