"""Write the Slicer scene of a run folder: ``python -m SynthDoseLib.mrml.scene RUN`` makes ``RUN/scene.mrb``.

A process of its own, so that a calculation neither needs Slicer's libraries nor can be brought down by them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..core import MissingPackageError, SynthDoseError


def writeScene(run: str | Path, out: str | Path | None = None, *, title: str = "SynthDose") -> Path:
    """Write the scene of a run folder as a Slicer bundle that opens with the dose over the CT.

    Parameters
    ----------
    run : path-like
        Folder written by ``synthdose run`` or ``synthdose demo``.
    out : path-like, optional
        ``.mrb`` file; ``RUN/scene.mrb`` if not given.
    title : str
        Of the study in the Data module.

    Returns
    -------
    Path
        The file; it appears only when it is complete.

    Raises
    ------
    SynthDoseError
        If the run folder cannot be read, or the file cannot be written.
    MissingPackageError
        Without slicer-core.
    """
    try:
        import slicer
        import vtk

        from .display import showDoseOverImage, showTableAndChart
        from .headless import HeadlessScene
        from .runs import loadRun
    except ModuleNotFoundError as error:
        if error.name not in ("slicer", "vtk", "vtkmodules"):
            raise
        raise MissingPackageError("slicer-core", "A Slicer scene", 'pip install "slicer-core>=5.12,<5.13"') from error
    vtk.vtkOutputWindow.GetInstance().SetDisplayModeToAlwaysStdErr()  # not a window, as on Windows
    folder = Path(run).absolute()  # Slicer's writer does not take relative paths
    target = Path(out).absolute() if out is not None else folder / "scene.mrb"
    core = HeadlessScene()
    nodes = loadRun(folder, core.scene, title=title)
    showDoseOverImage(core.scene, nodes.dose, nodes.image)
    core.fitSlices(nodes.hottestRas)
    layouts = slicer.vtkMRMLLayoutNode
    core.setLayout(layouts.SlicerLayoutFourUpPlotTableView if nodes.chart else layouts.SlicerLayoutFourUpView)
    showTableAndChart(core.applicationLogic, nodes.organTable, nodes.chart)
    try:
        # a folder of its own: Slicer names the folder inside the bundle after the file, and unpacks beside it
        with tempfile.TemporaryDirectory(prefix=".scene-", dir=target.parent, ignore_cleanup_errors=True) as temporary:
            written = Path(temporary) / target.name
            core.scene.SetURL(str(written))
            if not core.scene.WriteToMRB(str(written)) or not written.is_file():
                raise SynthDoseError(
                    f"Slicer could not write {target}. Check the free space and the permissions of the folder."
                )
            os.replace(written, target)
    except OSError as error:
        raise SynthDoseError(f"Cannot write {target}: {error.strerror or error}.") from error
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, or 1 with one message on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m SynthDoseLib.mrml.scene",
        description="Write the Slicer scene of a run folder: dose over CT, segments, tables and dose volume histograms.",
        epilog="example: python -m SynthDoseLib.mrml.scene runs/patient-017",
    )
    parser.add_argument("run", metavar="RUN", help="folder written by 'synthdose run' or 'synthdose demo'")
    parser.add_argument("--out", metavar="FILE", help="scene file (default: RUN/scene.mrb)")
    options = parser.parse_args(arguments)
    if options.out is not None and not options.out.endswith(".mrb"):
        parser.error(f"a scene file ends in .mrb; found {options.out}")
    try:
        path = writeScene(options.run, options.out)
    except SynthDoseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stderr.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
