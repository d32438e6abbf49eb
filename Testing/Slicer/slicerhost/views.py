"""Off-screen slice and 3D views made of Slicer's own slice logic and displayable managers, without Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
_THREED_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


class _View:
    """A render window in memory with displayable managers for one view node."""

    def __init__(self, core: Any, size: tuple[int, int]) -> None:
        self.core = core
        self.node: Any = None
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(*size)
        self.window.SetAlphaBitPlanes(1)
        self.window.SetMultiSamples(0)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)

    def _manage(self, factory: Any, names: tuple[str, ...]) -> None:
        factory.SetMRMLApplicationLogic(self.core.applicationLogic)
        for name in names:
            if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(self.node)

    def save(self, path: str | Path) -> Path:
        """Render and write a PNG."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(path))
        writer.SetInputData(grab.GetOutput())
        writer.Write()
        return Path(path)


class SliceView(_View):
    """One slice view of `core`, by its name in the application: Red, Yellow or Green."""

    def __init__(self, core: Any, name: str = "Red", size: tuple[int, int] = (512, 512)) -> None:
        super().__init__(core, size)
        self.logic = core.sliceLogics[name]
        self.node = self.logic.GetSliceNode()
        self.composite = self.logic.GetSliceCompositeNode()
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._manage(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), _SLICE_MANAGERS)
        # the image itself is a quad of the blended slice in pixel coordinates, as in the application's slice view
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self.mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(actor)
        self.fit()

    def fit(self, offset: float | None = None) -> None:
        """Show the whole background; optionally choose the slice by its offset, mm."""
        kept = self.logic.GetSliceOffset()
        self.logic.ResizeSliceNode(*self.window.GetSize())
        self.logic.FitSliceToBackground()
        self.logic.SetSliceOffset(kept if offset is None else offset)

    def save(self, path: str | Path) -> Path:
        self.logic.UpdatePipeline()
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        return super().save(path)


class ThreeDView(_View):
    """A 3D view of the scene of `core`."""

    def __init__(self, core: Any, name: str = "2", size: tuple[int, int] = (512, 512)) -> None:
        super().__init__(core, size)
        self.renderer.SetUseDepthPeeling(True)  # translucent segments
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(core.applicationLogic)
        core.applicationLogic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(core.scene)
        self.node = self.logic.AddViewNode(name)
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self._manage(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), _THREED_MANAGERS)

    def look(self, azimuth: float = 0.0, elevation: float = 0.0) -> None:
        """Look from anterior, turned by the angles given, degrees, at everything there is."""
        self.window.Render()
        camera = self.renderer.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(0, 500, 0)
        camera.SetViewUp(0, 0, 1)
        camera.Azimuth(azimuth)
        camera.Elevation(elevation)
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()
