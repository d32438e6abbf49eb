"""Memory and time of a bundle's inference against the size of the image.

python -m Testing.Benchmarks.segmentation_memory [--memory 3] [--largest 400] [--out FILE]

The network is one convolution of single voxels with eight classes at the image's own resolution, so that the logic of
windows, sums and probabilities is measured and not the network; one row is the shipped bundle. Every row is a process of its
own. Memory is what cannot be given back (on Linux anonymous pages), on top of the image and the loaded libraries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from SynthDoseLib.core import ImageVolume, VoxelGrid
from SynthDoseLib.segmentation import BundleOptions, segment_image, shipped_bundles

from .results import RESULTS, write_section

HEADING = "Segmentation: memory and time against the size of the image"
SIZES = ((64, 128, 128), (128, 256, 256), (100, 512, 512), (200, 512, 512), (400, 512, 512))
CLASSES = 8
NETWORK = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES, "channels": [2, 2], "strides": [1],
    "kernel_size": 1, "up_kernel_size": 1, "num_res_units": 0, "norm": None,
}  # fmt: skip
CONFIGURATION = {
    "network_def": NETWORK,
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 1000, "b_min": -1, "b_max": 1},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "overlap": 0.25, "mode": "gaussian"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "nearest_interp": False},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}


def write_tiny_bundle(folder: Path) -> Path:
    """Write a bundle whose network costs next to nothing."""
    import torch
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(**{key: value for key, value in NETWORK.items() if key != "_target_"})
    names = {str(n): "background" if n == 0 else f"organ_{n}" for n in range(CLASSES)}
    image = {"image": {"modality": "CT"}}
    metadata = {"name": "tiny", "network_data_format": {"inputs": image, "outputs": {"pred": {"channel_def": names}}}}
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIGURATION), encoding="utf-8")
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


class PeakMemory:
    """Largest memory of this process that cannot be given back, bytes, looked at twenty times a second."""

    def __init__(self) -> None:
        self.start = self.peak = held_bytes()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, held_bytes())

    def grown(self) -> int:
        """Stop watching; bytes above the start."""
        self._stop.set()
        self._watcher.join()
        return max(self.peak, held_bytes()) - self.start


def held_bytes() -> int:
    """Memory of this process without pages that are copies of files, bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        import psutil

        return int(psutil.Process().memory_info().rss)


def measure(shape: tuple[int, int, int], bundle: str, memory_GB: float, samples: int) -> dict[str, Any]:
    """Run one inference in this process."""
    import monai.inferers
    import monai.transforms  # noqa: F401
    import torch

    torch.set_num_threads(1)
    grid = VoxelGrid.from_spacing(shape, (1.0, 1.0, 1.0) if bundle == "tiny" else (0.8, 0.8, 1.0))
    values = np.full(shape, -1000.0, np.float32)
    middle = np.array(shape)[:, None, None, None] / 2
    for k in range(shape[0]):
        place = np.indices((1, *shape[1:]), dtype=np.float32) + np.array([k, 0, 0], np.float32)[:, None, None, None] - middle
        values[k] = np.where(np.hypot(place[1, 0] / shape[1], place[2, 0] / shape[2]) < 0.35, 40.0, -1000.0)
        values[k] += 10 * np.sin(0.1 * place[1, 0]) * np.sin(0.13 * place[2, 0] + 0.1 * k)
    image = ImageVolume(grid, values, modality="CT", unit="HU")
    with tempfile.TemporaryDirectory() as folder:
        chosen = write_tiny_bundle(Path(folder) / "tiny") if bundle == "tiny" else bundle
        peak, start, cpu = PeakMemory(), time.perf_counter(), time.process_time()
        options = BundleOptions(device="cpu", max_memory_bytes=int(memory_GB * 1e9), clean=False, samples=samples)
        found = segment_image(image, chosen, options)
        wall, used = time.perf_counter() - start, time.process_time() - cpu
    note = next(note for note in found.labels.notes if "MONAI bundle" in note).rsplit("; ", 1)[-1]
    return {"grown": peak.grown(), "wall_s": wall, "cpu_s": used, "note": note}


def row(shape: tuple[int, int, int], bundle: str, memory_GB: float, samples: int = 0) -> str:
    """Measure in a process of its own; one line of the table."""
    job = json.dumps({"shape": shape, "bundle": bundle, "memory": memory_GB, "samples": samples})
    command = [sys.executable, "-m", "Testing.Benchmarks.segmentation_memory", "--job", job]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    found = json.loads(done.stdout.splitlines()[-1])
    size = " x ".join(str(n) for n in reversed(shape))
    voxels = shape[0] * shape[1] * shape[2]
    what = bundle + (f", {samples + 1} inferences" if samples else "")
    print(size, what, done.stdout.splitlines()[-1], file=sys.stderr)
    return (
        f"| {size} | {what} | {memory_GB:g} | {found['grown'] / 1e9:.2f} | {found['note']} | {found['cpu_s']:.1f} | "
        f"{found['wall_s']:.1f} | {1e6 * found['cpu_s'] / voxels:.2f} |"
    )


def main() -> int:
    """Measure all sizes and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=3.0, help="bound, GB (default 3)")
    parser.add_argument("--largest", type=int, default=400, help="slices of the largest image (default 400)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        print(json.dumps(measure(tuple(job["shape"]), job["bundle"], job["memory"], job["samples"])))
        return 0
    sizes = [shape for shape in SIZES if shape[0] <= arguments.largest]
    lines = [
        "| voxels | bundle | bound / GB | measured / GB | kept | CPU s | wall s | CPU µs per voxel |",
        "|---|---|---:|---:|---|---:|---:|---:|",
        *(row(shape, "tiny", arguments.memory) for shape in sizes),
        row(sizes[1], "tiny", 0.5),
        row(sizes[1], "tiny", arguments.memory, 2),
        row(sizes[-1], shipped_bundles()[0], arguments.memory),
    ]
    text = (
        f"{CLASSES} classes, windows of 96³ voxels, overlap 0.25, one thread; tiny: the network works at the image's own "
        "resolution and its probabilities are interpolated. Memory is on top of the image itself; the clock runs on a computer "
        "with other work."
    )
    command = f"python -m Testing.Benchmarks.segmentation_memory --memory {arguments.memory:g} --largest {arguments.largest}"
    write_section(HEADING, command, "\n".join([text, "", *lines, ""]), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
