"""Histograms against bodies whose dose-volume histogram is known in closed form, and against a second program."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pydicom.dicomio
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from scipy.optimize import brentq

from SynthDoseLib.core import DoseMap, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.dosimetry import ContourBody, DoseVolumeHistogram, contour_histogram, label_histogram, label_histograms
from SynthDoseLib.io import read_labels, write_volume
from SynthDoseLib.io.polygons import outline_mask
from SynthDoseLib.pipeline.drawn import histograms as structure_histograms
from SynthDoseLib.pipeline.plan import SegmentationPlan
from SynthDoseLib.segmentation import match_organs

RADIUS = (3 * 2000 / (4 * np.pi)) ** (1 / 3)  # 2 ml
OPENKBP = Path(__file__).resolve().parents[3] / "shared" / "data" / "images" / "openkbp" / "pt_246"
GRADIENT = 0.03  # of the dose in the middle, per mm
DIRECTIONS = ([0, 0, 1], [1, 0, 0], [0, 0, -1], [1, 1, 1])


def circle(radius, height, centre=(0.0, 0.0), corners=72):
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    x, y = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
    return np.stack([x, y, np.full(corners, height)], axis=1)


def sphere(offset, apart=3.0, radius=RADIUS):
    heights = offset + apart * np.arange(-20, 21)
    return [circle(np.sqrt(radius**2 - z**2), z) for z in heights if abs(z) < radius]


def linear_dose(grid, direction, gradient=GRADIENT):
    unit = np.array(direction, float) / np.linalg.norm(direction)
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    dose = 1 + gradient * (ras @ unit)
    return DoseMap(grid, dose.astype(np.float32), np.zeros(grid.shape, np.float32))


def sphere_depth(fraction, radius=RADIUS):
    """Distance from the centre of the plane that cuts off `fraction` of a sphere."""
    height = brentq(lambda h: h**2 * (3 * radius - h) / (4 * radius**3) - fraction, 0, 2 * radius)
    return height - radius


GRID = VoxelGrid.from_spacing((12, 12, 12), (3.0, 3.0, 3.0))


@pytest.mark.parametrize("direction", DIRECTIONS, ids=str)
@pytest.mark.parametrize("offset", [0.0, 0.7, 1.5, 2.3])
def test_sphere_of_contours_in_a_steep_gradient(offset, direction):
    """2 ml on 3 mm voxels and planes, 3 %/mm: D95 within 0.5 % of the mean dose is asked for; here 0.1 %."""
    histogram = contour_histogram(linear_dose(GRID, direction), sphere(offset), "lesion")
    assert histogram.volume_ml == pytest.approx(2.0, rel=0.003)  # the 72 corners lie on the circle: 0.13 % less
    for fraction in (0.95, 0.5, 0.05):
        expected = 1 + GRADIENT * sphere_depth(1 - fraction)
        assert float(histogram.dose_at(fraction)) == pytest.approx(expected, abs=0.001)
    assert histogram.mean_Gy == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("apart", [1.0, 2.0, 5.0])
def test_cylinder_ends_half_way_to_the_next_plane(apart):
    """A cylinder along z: its histogram in a gradient along z is a straight line, along x that of a circle."""
    planes = 8
    contours = [circle(10.0, apart * n, corners=180) for n in range(planes)]
    grid = VoxelGrid.from_spacing((30, 15, 15), (2.0, 2.0, 2.0), origin_ras_mm=(-14.0, -14.0, -10.0))
    histogram = contour_histogram(linear_dose(grid, [0, 0, 1], 0.01), contours, "rod")
    length, middle = planes * apart, apart * (planes - 1) / 2
    assert histogram.volume_ml == pytest.approx(np.pi * 100 * length / 1000, rel=0.003)
    for fraction in (0.98, 0.7, 0.2, 0.02):
        expected = 1 + 0.01 * (middle + length * (0.5 - fraction))
        assert float(histogram.dose_at(fraction)) == pytest.approx(expected, abs=5e-4)
    across = contour_histogram(linear_dose(grid, [1, 0, 0], 0.01), contours, "rod")
    share = lambda x: np.arccos(x / 10) / np.pi - x / 10 * np.sqrt(1 - (x / 10) ** 2) / np.pi  # noqa: E731
    for x in (-6.0, 0.0, 4.0):
        assert float(across.volume_fraction_at(1 + 0.01 * x)) == pytest.approx(share(x), abs=2e-3)


def test_cone_ellipsoid_hole_and_two_pieces_have_their_volumes():
    cone = [circle(10 - z, z, corners=180) for z in np.arange(0.5, 10, 1.0)]
    # the base ends half a plane below its first contour, as wide as that
    expected = np.pi * (9.5**3 / 3 + 9.5**2 * 0.5)
    assert ContourBody(cone).volume_ml * 1000 == pytest.approx(expected, rel=0.005)
    ellipsoid = [circle(1, z) * [8 * np.sqrt(1 - (z / 15) ** 2), 5 * np.sqrt(1 - (z / 15) ** 2), 1] for z in range(-13, 15, 3)]
    assert ContourBody(ellipsoid).volume_ml * 1000 == pytest.approx(4 / 3 * np.pi * 8 * 5 * 15, rel=0.005)
    tube = [c for z in range(0, 20, 2) for c in (circle(10.0, z, corners=180), circle(5.0, z, corners=180))]
    assert ContourBody(tube).volume_ml * 1000 == pytest.approx(np.pi * 75 * 20, rel=0.002)
    pieces = [circle(4.0, z, corners=180) for z in (0, 2, 4, 20, 22, 24)]
    assert ContourBody(pieces).volume_ml * 1000 == pytest.approx(2 * np.pi * 16 * 6, rel=0.002)


def test_planes_may_be_oblique():
    turn = np.linalg.qr(np.array([[1.0, 0.3, 0.2], [0.1, 1.0, -0.4], [0.0, 0.5, 1.0]]))[0]
    contours = [c @ turn.T for c in sphere(0.7)]
    direction = turn @ np.array([0.0, 0.0, 1.0])
    histogram = contour_histogram(linear_dose(GRID, direction), contours, "lesion")
    assert float(histogram.dose_at(0.95)) == pytest.approx(1 + GRADIENT * sphere_depth(0.05), abs=0.001)


def test_one_plane_needs_the_distance_of_slices():
    single = [circle(6.0, 0.0, corners=180)]
    with pytest.raises(SynthDoseError, match="slab_mm"):
        contour_histogram(linear_dose(GRID, [0, 0, 1]), single, "dot")
    histogram = contour_histogram(linear_dose(GRID, [0, 0, 1]), single, "dot", slab_mm=3.0)
    assert histogram.volume_ml == pytest.approx(np.pi * 36 * 3 / 1000, rel=0.002)
    assert float(histogram.dose_at(0.9)) == pytest.approx(1 - GRADIENT * 1.2, abs=1e-3)


def test_structures_that_are_empty_damaged_or_outside_are_refused_in_one_sentence():
    dose = linear_dose(GRID, [0, 0, 1])
    with pytest.raises(SynthDoseError, match="'nothing' is empty"):
        contour_histogram(dose, [], "nothing")
    with pytest.raises(SynthDoseError, match="three or more corners"):
        contour_histogram(dose, [np.zeros((2, 3))], "line")
    with pytest.raises(SynthDoseError, match="parallel"):
        contour_histogram(dose, [circle(5, 0), circle(5, 0)[:, [2, 0, 1]]], "cross")
    with pytest.raises(SynthDoseError, match="outside the dose grid"):
        contour_histogram(dose, [c + np.array([15, 0, 0]) for c in sphere(0.0)], "far")
    labels = LabelMap(GRID, np.zeros(GRID.shape, np.uint16), organ_table(["spleen"]))
    with pytest.raises(SynthDoseError, match="'spleen' is empty"):
        label_histogram(dose, labels, "spleen")


def labelled(grid, mask):
    return LabelMap(grid, mask.astype(np.uint16), organ_table(["organ"]))


def test_a_block_of_voxels_in_a_gradient_is_a_straight_line():
    mask = np.zeros(GRID.shape, bool)
    mask[3:9, 4:8, 4:8] = True
    histogram = label_histogram(linear_dose(GRID, [0, 0, 1]), labelled(GRID, mask), "organ", smooth=False)
    for fraction in (0.98, 0.6, 0.1):
        assert float(histogram.dose_at(fraction)) == pytest.approx(1 + GRADIENT * 18 * (0.5 - fraction), abs=1e-3)
    assert histogram.volume_ml == pytest.approx(6 * 4 * 4 * 0.027)


def test_one_voxel_has_the_doses_inside_it():
    mask = np.zeros(GRID.shape, bool)
    mask[6, 6, 6] = True
    dose = linear_dose(GRID, [1, 0, 0])
    histogram = label_histogram(dose, labelled(GRID, mask), "organ")
    centre = float(dose.dose_Gy[6, 6, 6])
    assert histogram.volume_ml == pytest.approx(0.027)
    assert histogram.mean_Gy == pytest.approx(centre, abs=1e-3)
    assert centre - 0.045 <= histogram.min_Gy < histogram.max_Gy <= centre + 0.045 + 1e-6


@pytest.mark.parametrize("offset", [0.0, 0.4, 1.0])
def test_a_smooth_surface_is_nearer_to_the_sphere_than_its_voxels(offset):
    centre = np.array([offset, 0.7 * offset, 0.3 * offset])
    k, j, i = np.indices(GRID.shape)
    ras = GRID.to_ras(np.stack([i, j, k], axis=-1))
    mask = ((ras - centre) ** 2).sum(axis=-1) < RADIUS**2
    dose = linear_dose(GRID, [0, 0, 1])
    histogram = label_histogram(dose, labelled(GRID, mask), "organ")
    expected = 1 + GRADIENT * (centre[2] + sphere_depth(0.05, RADIUS * (histogram.volume_ml / 2) ** (1 / 3)))
    voxels = np.quantile(dose.dose_Gy[mask], 0.05, method="hazen")
    assert abs(float(histogram.dose_at(0.95)) - expected) < 0.012  # 0.4 mm: what 3 mm labels leave open
    assert abs(float(histogram.dose_at(0.95)) - expected) < abs(voxels - expected)


def test_labels_finer_than_the_dose_are_sampled_where_they_are():
    fine = VoxelGrid.from_spacing((48, 48, 48), (0.75, 0.75, 0.75))
    k, j, i = np.indices(fine.shape)
    ras = fine.to_ras(np.stack([i, j, k], axis=-1))
    labels = labelled(fine, (ras**2).sum(axis=-1) < RADIUS**2)
    histogram = label_histograms(linear_dose(GRID, [1, 1, 1]), labels)[0]
    assert float(histogram.dose_at(0.95)) == pytest.approx(1 + GRADIENT * sphere_depth(0.05), abs=0.002)


def test_the_edge_of_a_short_ranged_dose_is_not_smeared_into_the_organ():
    """An organ with 10 Gy and none around it, as betas of short range make it: every part of it has 10 Gy."""
    mask = np.zeros(GRID.shape, bool)
    mask[3:8, 3:8, 3:8] = True
    dose = DoseMap(GRID, 10.0 * mask, np.zeros(GRID.shape))
    histogram = label_histogram(dose, labelled(GRID, mask), "organ", smooth=False)
    assert (histogram.min_Gy, histogram.mean_Gy, histogram.max_Gy) == (10.0, 10.0, 10.0)


def test_samples_keep_the_mean_of_every_voxel():
    rng = np.random.default_rng(4)
    dose = DoseMap(GRID, rng.random(GRID.shape) + 1, np.zeros(GRID.shape))
    mask = rng.random(GRID.shape) < 0.3
    histogram = label_histogram(dose, labelled(GRID, mask), "organ", smooth=False)
    assert histogram.mean_Gy == pytest.approx(float(dose.dose_Gy[mask].mean()), rel=2e-3)


def test_no_dose_below_zero_where_three_slopes_meet():
    """exp(-x - y - z) per voxel falls so fast along all axes that the slopes together would pass zero in the far corner."""
    k, j, i = np.indices(GRID.shape)
    falling = np.exp(-(i + j + k).astype(float)).astype(np.float32)
    labels = LabelMap(GRID, np.ones(GRID.shape, np.uint16), organ_table(["body"]))
    dose = DoseMap(GRID, falling, np.zeros(GRID.shape, np.float32))
    histogram = label_histogram(dose, labels, "body", smooth=False)
    assert 0 <= histogram.min_Gy < falling.min()
    assert histogram.mean_Gy == pytest.approx(falling.mean(dtype=float), rel=0.02)


def test_metrics_of_a_ramp_in_closed_form():
    ramp = DoseVolumeHistogram("ramp", 10.0, (np.arange(20000) + 0.5) / 2000)  # 0 to 10 Gy, 1 ml per Gy
    assert ramp.mean_Gy == pytest.approx(5.0)
    assert ramp.dose_at_volume(2.0) == pytest.approx(8.0, abs=1e-3)
    assert ramp.volume_at(7.5) == pytest.approx(2.5, abs=1e-3)
    for a in (1.0, 4.0, 10.0):
        assert ramp.generalised_eud(a) == pytest.approx(10 * (a + 1) ** (-1 / a), rel=1e-4)
    assert ramp.generalised_eud(500.0) == pytest.approx(10.0, rel=0.02)
    alpha = 0.3
    assert ramp.survival_eud(alpha) == pytest.approx(-np.log((1 - np.exp(-10 * alpha)) / (10 * alpha)) / alpha, rel=1e-5)
    uniform = DoseVolumeHistogram("even", 1.0, np.full(5, 2.0))
    assert [uniform.generalised_eud(a) for a in (-20.0, 1.0, 8.0)] == pytest.approx([2.0] * 3)
    assert uniform.survival_eud(0.35) == pytest.approx(2.0)
    assert DoseVolumeHistogram("cold", 1.0, np.array([0.0, 4.0])).generalised_eud(-10) == 0.0
    with pytest.raises(SynthDoseError, match="hottest 20 ml"):
        ramp.dose_at_volume(20.0)
    with pytest.raises(SynthDoseError, match="exponent"):
        ramp.generalised_eud(0.0)


def test_the_band_covers_shift_and_noise():
    rng = np.random.default_rng(5)
    truth = np.linspace(1.0, 3.0, 400)
    level = np.array([1.5, 2.0, 2.7])
    histogram = DoseVolumeHistogram("organ", 4.0, truth)
    shifted = histogram.uncertainty(level, relative_sigma=0.05)
    assert shifted == pytest.approx(0.05 * level / 2, rel=0.02)  # the slope of the curve is 1/2 per Gy
    by_mean = DoseVolumeHistogram("organ", 4.0, truth, mean_sigma_Gy=0.1).uncertainty(level)
    assert by_mean == pytest.approx(shifted)
    noisy = truth + 0.3 * rng.standard_normal((4000, truth.size))
    spread = (noisy[:, :, None] >= level).mean(axis=1).std(axis=0)
    assert histogram.uncertainty(level, voxel_sigma_Gy=np.full(400, 0.3)) == pytest.approx(spread, rel=4 / np.sqrt(2 * 4000))
    with pytest.raises(SynthDoseError, match="standard errors"):
        histogram.uncertainty(level, voxel_sigma_Gy=[0.1])


def openkbp(direction=None):
    """Dose and masks of a head and neck plan, by a function of the structure's name; the files count with the slice last."""
    shape = (128, 128, 128)
    spacing = np.loadtxt(OPENKBP / "voxel_dimensions.csv")

    def sparse(name):
        with open(OPENKBP / f"{name}.csv", newline="") as stream:
            rows = list(csv.reader(stream))[1:]
        index = np.array([int(row[0]) for row in rows])
        volume = np.zeros(128**3, np.float32)
        volume[index] = [float(row[1]) if row[1] else 1.0 for row in rows]
        return np.ascontiguousarray(volume.reshape(shape).transpose(2, 0, 1))

    steps = (float(spacing[1]), float(spacing[0]), float(spacing[2]))
    grid = VoxelGrid.from_spacing(shape, steps, (0.0, 0.0, 0.0), np.eye(3) if direction is None else direction)
    return DoseMap(grid, sparse("dose"), np.zeros(shape, np.float32)), sparse


@pytest.mark.shared
@pytest.mark.skipif(not OPENKBP.is_dir(), reason="needs ../shared/data/images/openkbp/pt_246")
def test_openkbp_patient_has_the_indices_of_its_voxels():
    """Head and neck plan: for whole voxels the indices as published (percentiles of voxels), for fine ones near them."""
    dose, sparse = openkbp()
    grid = dose.grid
    extremes = ndimage.minimum_filter(dose.dose_Gy, 3), ndimage.maximum_filter(dose.dose_Gy, 3)
    for name in ("PTV70", "Brainstem", "LeftParotid", "SpinalCord"):
        mask = sparse(name) > 0
        labels = LabelMap(grid, mask.astype(np.uint16), organ_table([name]))
        values = dose.dose_Gy[mask]
        fine = label_histogram(dose, labels, name)
        assert fine.volume_ml == pytest.approx(mask.sum() * grid.voxel_volume_ml)
        assert fine.mean_Gy == pytest.approx(float(values.mean()), abs=0.01 * float(values.max()))
        plain = DoseVolumeHistogram(name, fine.volume_ml, values)
        for percent in (99, 95, 50, 1):
            published = float(np.percentile(values, 100 - percent))
            assert float(plain.dose_at(percent / 100)) == pytest.approx(published, abs=0.01 * plain.max_Gy)
            # a sample lies between the lowest and highest dose of its voxel and the neighbours
            least, most = (float(np.percentile(extreme[mask], 100 - percent)) for extreme in extremes)
            assert least <= float(fine.dose_at(percent / 100)) <= most


def as_dicom(folder, dose, structures):
    """RTDOSE and RTSTRUCT with what a second program reads of them; contours in RAS, slices along z."""
    grid = dose.grid
    nk, nj, ni = grid.shape
    origin = grid.ijk_to_ras[:3, 3] * [-1, -1, 1]
    step = grid.spacing_mm
    files = []
    for modality, storage in (("RTDOSE", "1.2.840.10008.5.1.4.1.1.481.2"), ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3")):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = storage, generate_uid(), modality
        dataset.FrameOfReferenceUID = "1.2.3"
        if modality == "RTDOSE":
            dataset.ImagePositionPatient = [float(x) for x in origin]
            # rows and columns of the array run along RAS: to the right and to the back in LPS
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing = [step[1], step[0]]
            dataset.Rows, dataset.Columns, dataset.NumberOfFrames = nj, ni, nk
            dataset.GridFrameOffsetVector = [n * step[2] for n in range(nk)]
            dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
            dataset.DoseGridScaling = float(f"{dose.dose_Gy.max() / 4e9:.6e}")
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 0
            dataset.PixelData = np.round(dose.dose_Gy.astype(float) / dataset.DoseGridScaling).astype("<u4").tobytes()
        else:
            dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence([]), Sequence([])
            dataset.RTROIObservationsSequence = Sequence([])
            for n, (name, contours) in enumerate(structures.items(), start=1):
                roi, drawn = Dataset(), Dataset()
                roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = n, name, "1.2.3"
                drawn.ReferencedROINumber, drawn.ROIDisplayColor, drawn.ContourSequence = n, [255, 0, 0], Sequence([])
                for contour in contours:
                    item = Dataset()
                    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(contour)
                    item.ContourData = [float(f"{x:.6f}") for x in (contour * [-1, -1, 1]).ravel()]
                    drawn.ContourSequence.append(item)
                dataset.StructureSetROISequence.append(roi)
                dataset.ROIContourSequence.append(drawn)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
            storage,
            dataset.SOPInstanceUID,
        )
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files.append(folder / f"{modality}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


@pytest.fixture
def dvhcalc(monkeypatch):
    """The histograms of dicompyler-core, whose version 0.5.6 asks pydicom for a name that pydicom 3 has dropped."""
    monkeypatch.setattr(pydicom.dicomio, "read_file", pydicom.dcmread, raising=False)
    warnings.filterwarnings("ignore", "The 'pydicom.pixel_data_handlers' module", DeprecationWarning)
    return pytest.importorskip("dicompylercore.dvhcalc", reason="dicompyler-core is not installed")


@pytest.mark.shared
@pytest.mark.skipif(not OPENKBP.is_dir(), reason="needs ../shared/data/images/openkbp/pt_246")
@pytest.mark.parametrize("name", ["PTV70", "Brainstem"])
def test_a_second_program_finds_the_same_histogram_of_a_real_plan(tmp_path, dvhcalc, name):
    """dicompyler-core on the outlines of the masks; it counts voxels by their centres: indices within 1 Gy of 70 Gy."""
    dose, sparse = openkbp(np.diag([-1.0, -1.0, 1.0]))
    contours = []
    for k, plane in enumerate(sparse(name) > 0):
        for outline in outline_mask(plane) if plane.any() else []:
            contours.append(dose.grid.to_ras(np.column_stack([outline, np.full(len(outline), k)])))
    dose_file, structure_file = as_dicom(tmp_path, dose, {name: contours})
    other = dvhcalc.get_dvh(str(structure_file), str(dose_file), 1)
    ours = contour_histogram(dose, contours, name)
    assert ours.volume_ml == pytest.approx(other.volume, rel=0.03)
    assert ours.mean_Gy == pytest.approx(other.mean, abs=0.5)
    for percent in (98, 95, 50, 5, 2):
        theirs = other.statistic(f"D{percent}").value
        assert float(ours.dose_at(percent / 100)) == pytest.approx(theirs, abs=1.0), percent


def test_a_second_program_finds_the_same_histogram(tmp_path, dvhcalc):
    """dicompyler-core on the same rod, 1 mm voxels: it counts voxels by their centres, 1 % fewer at this size."""
    # seen from RAS with x and y reversed the world is LPS: a grid whose array runs so lies alike in both
    lps = VoxelGrid.from_spacing((31, 51, 51), (1.0, 1.0, 1.0), (25.0, 25.0, -15.0), np.diag([-1.0, -1.0, 1.0]))
    dose = linear_dose(lps, [1, 0, 0], 0.02)
    contours = [circle(15.0, z, (3.0, -2.0), corners=180) for z in range(-8, 9)]
    dose_file, structure_file = as_dicom(tmp_path, dose, {"rod": contours})
    other = dvhcalc.get_dvh(str(structure_file), str(dose_file), 1)
    ours = contour_histogram(dose, contours, "rod")
    assert ours.volume_ml == pytest.approx(other.volume, rel=0.015)
    assert ours.mean_Gy == pytest.approx(other.mean, rel=0.002)
    for percent in (95, 50, 5):
        theirs = other.statistic(f"D{percent}").value
        assert float(ours.dose_at(percent / 100)) == pytest.approx(theirs, abs=0.02)  # one voxel of 1 mm


def test_structures_drawn_as_contours_have_the_histograms_of_their_contours(tmp_path):
    """A tumour of 2 ml inside the liver on 3 mm voxels: both keep their volumes, where a label map gives voxels to one only."""
    grid = VoxelGrid.from_spacing((24, 24, 24), (3.0, 3.0, 3.0))
    radius = (3 * 2000 / (4 * np.pi)) ** (1 / 3)
    heights = np.arange(-36, 37, 3.0)
    balls = {
        name: [circle(np.sqrt(r**2 - z**2), z) for z in heights if abs(z) < r] for name, r in (("Liver", 30), ("GTV", radius))
    }
    path = as_dicom(tmp_path, linear_dose(GRID, [1, 0, 0]), balls)[1]
    labels = match_organs(read_labels(path, reference=grid))
    k, j, i = np.indices(grid.shape)
    slope = grid.to_ras(np.stack([i, j, k], axis=-1))[..., 0] * 0.03
    dose = DoseMap(grid, 4 + 4 * slope, np.zeros(grid.shape))
    plan = SegmentationPlan(path=path)
    found, notes = structure_histograms(plan, dose, labels, {"liver": 0.1})
    by_name = {h.organ: h for h in found}
    assert list(by_name) == ["liver", "GTV"]
    assert by_name["liver"].volume_ml == pytest.approx(4 / 3 * np.pi * 27, rel=0.004)
    assert by_name["GTV"].volume_ml == pytest.approx(2.0, rel=0.003)
    assert by_name["liver"].mean_sigma_Gy == 0.1
    assert float(by_name["GTV"].dose_at(0.95)) == pytest.approx(4 * (1 - 0.03 * 0.7293 * radius), abs=0.02)  # 0.5 %
    assert "drawn as contours" in notes[-1]
    other = LabelMap(grid, labels.labels, labels.organs)
    write_volume(tmp_path / "labels.nrrd", other.labels, grid)
    of_voxels, silent = structure_histograms(SegmentationPlan(path=tmp_path / "labels.nrrd"), dose, other, {})
    assert of_voxels[1].volume_ml == pytest.approx(labels.voxel_counts()["GTV"] * 0.027)
    assert silent == ()
