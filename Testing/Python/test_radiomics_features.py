import csv
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import Cancelled, ImageVolume, LabelMap, MissingPackageError, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.radiomics import RadiomicsSettings, extract_features, write_features_csv

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_pyradiomics = pytest.mark.skipif(importlib.util.find_spec("radiomics") is None, reason="needs pyradiomics")

# IBSI tags whose definition pyradiomics shares (3D, merged over directions by averaging, symmetric, base-2 logarithms);
# shape by mesh. Kurtosis (not excess) and other known differences are left out, see the documentation of pyradiomics.
IBSI = {
    "stat_mean": "firstorder_Mean",
    "stat_var": "firstorder_Variance",
    "stat_skew": "firstorder_Skewness",
    "stat_median": "firstorder_Median",
    "stat_p10": "firstorder_10Percentile",
    "stat_energy": "firstorder_Energy",
    "stat_rms": "firstorder_RootMeanSquared",
    "stat_mad": "firstorder_MeanAbsoluteDeviation",
    "stat_rmad": "firstorder_RobustMeanAbsoluteDeviation",
    "ih_entropy": "firstorder_Entropy",
    "ih_uniformity": "firstorder_Uniformity",
    "morph_volume": "shape_MeshVolume",
    "morph_vol_approx": "shape_VoxelVolume",
    "morph_area_mesh": "shape_SurfaceArea",
    "morph_av": "shape_SurfaceVolumeRatio",
    "morph_sphericity": "shape_Sphericity",
    "morph_diam": "shape_Maximum3DDiameter",
    "morph_pca_maj_axis": "shape_MajorAxisLength",
    "morph_pca_min_axis": "shape_MinorAxisLength",
    "morph_pca_least_axis": "shape_LeastAxisLength",
    "morph_pca_elongation": "shape_Elongation",
    "morph_pca_flatness": "shape_Flatness",
    "cm_joint_max_3D_avg": "glcm_MaximumProbability",
    "cm_joint_avg_3D_avg": "glcm_JointAverage",
    "cm_joint_entr_3D_avg": "glcm_JointEntropy",
    "cm_contrast_3D_avg": "glcm_Contrast",
    "cm_corr_3D_avg": "glcm_Correlation",
    "cm_inv_diff_3D_avg": "glcm_Id",
    "cm_auto_corr_3D_avg": "glcm_Autocorrelation",
    "cm_clust_prom_3D_avg": "glcm_ClusterProminence",
    "rlm_sre_3D_avg": "glrlm_ShortRunEmphasis",
    "rlm_lre_3D_avg": "glrlm_LongRunEmphasis",
    "rlm_glnu_3D_avg": "glrlm_GrayLevelNonUniformity",
    "rlm_rl_entr_3D_avg": "glrlm_RunEntropy",
    "szm_sze_3D": "glszm_SmallAreaEmphasis",
    "szm_lze_3D": "glszm_LargeAreaEmphasis",
    "szm_zs_entr_3D": "glszm_ZoneEntropy",
    "ngt_coarseness_3D": "ngtdm_Coarseness",
    "ngt_busyness_3D": "ngtdm_Busyness",
    "ngt_strength_3D": "ngtdm_Strength",
    "ngl_lde_3D": "gldm_SmallDependenceEmphasis",
    "ngl_hde_3D": "gldm_LargeDependenceEmphasis",
}


def ball_case(radius_mm=30.0, spacing=(2.0, 2.0, 4.0), size=(30, 60, 60)):
    grid = VoxelGrid.from_spacing(size, spacing)
    k, j, i = np.indices(grid.shape)
    r = np.linalg.norm(grid.to_ras(np.stack([i, j, k], -1)), axis=-1)
    labels = np.where(r < radius_mm, 1, 0)
    labels[0, 0, :5] = 2
    values = np.random.default_rng(3).normal(40, 10, grid.shape)
    return (
        ImageVolume(grid, values, "CT", "HU"),
        LabelMap(grid, labels, organ_table(["liver", "cyst", "spleen", "rest_of_body"])),
    )


@needs_pyradiomics
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_digital_phantom_has_the_values_of_the_image_biomarker_standardisation_initiative():
    import SimpleITK

    folder = SHARED / "data/images/ibsi"
    image = SimpleITK.ReadImage(str(folder / "digital_phantom/image.nii.gz"))
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "digital_phantom/mask.nii.gz")))
    grid = VoxelGrid.from_spacing(mask.shape, image.GetSpacing())
    volume = ImageVolume(grid, SimpleITK.GetArrayFromImage(image), "CT", "")
    labels = LabelMap(grid, mask, organ_table(["phantom"]))
    table = extract_features(volume, labels, settings=RadiomicsSettings(bin_width=1, spacing_mm=None))
    found = {row.feature: row.value for row in table.rows}
    with open(folder / "reference_values/ibsi_1_dig_phantom.csv", newline="") as stream:
        reference = {row["tag"]: row for row in csv.DictReader(stream, delimiter=";")}
    wrong = {}
    for tag, feature in IBSI.items():
        value = float(reference[tag]["reference value"])
        # the table gives three digits
        allowed = float(reference[tag]["tolerance"]) + 0.006 * abs(value)
        if abs(found[feature] - value) > allowed:
            wrong[tag] = (found[feature], value)
    assert not wrong


@needs_pyradiomics
def test_volume_of_a_ball_survives_resampling_and_small_or_empty_organs_are_named(capfd):
    image, labels = ball_case()
    table = extract_features(image, labels)
    values = {row.feature: row.value for row in table.rows}
    assert {row.organ for row in table.rows} == {"liver"}
    assert {row.image for row in table.rows} == {"CT"}
    assert values["shape_VoxelVolume"] == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.02)
    assert values["shape_Sphericity"] == pytest.approx(0.92, abs=0.03)  # steps of the voxels add to the surface
    assert len(values) > 90
    assert "25 HU" in table.notes[0]
    assert "3 mm" in table.notes[0]
    assert "cyst" in table.notes[1]
    assert "spleen (empty)" in table.notes[1]
    assert capfd.readouterr().err == ""


@needs_pyradiomics
def test_one_voxel_and_flat_organs_do_not_stop_the_others():
    image, labels = ball_case()
    flat = ImageVolume(image.grid, np.full(image.grid.shape, 7.0), "PT", "Bq/ml")
    settings = RadiomicsSettings(minimum_voxels=1, spacing_mm=None)
    single = labels.labels.copy()
    single[0, 0, :4] = 0
    table = extract_features(flat, LabelMap(labels.grid, single, labels.organs), settings=settings)
    values = {row.feature: row.value for row in table.rows if row.organ == "liver"}
    assert values["firstorder_Mean"] == pytest.approx(7.0)
    assert all(np.isfinite(row.value) for row in table.rows)
    assert "32 grey levels" in table.notes[0]


@needs_pyradiomics
def test_large_organs_stay_quick():
    image, labels = ball_case(radius_mm=75.0, spacing=(1.0, 1.0, 1.0), size=(160, 160, 160))  # 1.8 l, as a liver
    start = time.perf_counter()
    extract_features(image, labels, organs=["liver"])
    assert time.perf_counter() - start < 20


@needs_pyradiomics
def test_an_organ_with_a_huge_surface_gets_no_shape_features_and_that_is_said():
    image, labels = ball_case()
    table = extract_features(image, labels, organs=["liver"], settings=RadiomicsSettings(maximum_surface_voxels=100))
    assert not [row for row in table.rows if row.feature.startswith("shape")]
    assert [row for row in table.rows if row.feature.startswith("glcm")]
    assert "No shape features of liver" in table.notes[1]


@needs_pyradiomics
def test_a_cancelled_extraction_stops(tmp_path):
    image, labels = ball_case()

    def stop(report):
        raise Cancelled

    with pytest.raises(Cancelled):
        extract_features(image, labels, progress=stop)
    settings = RadiomicsSettings(classes=("firstorder",))
    write_features_csv(tmp_path / "radiomics.csv", extract_features(image, labels, settings=settings))
    with open(tmp_path / "radiomics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["organ", "image", "feature", "value", "filter"]
    assert len(rows) == 18


def test_a_missing_package_is_named_with_its_recipe(monkeypatch):
    monkeypatch.setitem(sys.modules, "radiomics", None)
    image, labels = ball_case()
    with pytest.raises(MissingPackageError, match=r"SynthDoseLib\.radiomics\.install"):
        extract_features(image, labels)


def test_settings_are_checked():
    with pytest.raises(SynthDoseError, match="Known: firstorder"):
        RadiomicsSettings(classes=("shapes",))
    with pytest.raises(SynthDoseError, match="bin_width"):
        RadiomicsSettings(bin_width=-1)
