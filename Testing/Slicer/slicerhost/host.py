"""Puts together what a scripted module expects to find: ``slicer``, ``qt``, ``ctk``, the application and its modules."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


class ScriptedModule:
    """What a module file gets as ``parent``, and what ``slicer.modules.<name>`` is."""

    def __init__(self, host: Host, path: str | Path) -> None:
        self.host, self.path = host, os.path.abspath(path)
        self.name = Path(path).stem
        self.title, self.hidden, self.index = self.name, False, -1
        self.pythonModule: Any = None
        self._widget: Any = None

    def widgetRepresentation(self) -> Any:
        """The panel, built on first use: setup() first, then the scene, as in the application."""
        import qt
        import slicer

        if self._widget is None:
            parent = slicer.qMRMLWidget()
            parent.setObjectName(f"{self.name}Panel")
            parent.setLayout(qt.QVBoxLayout())
            widget = getattr(self.pythonModule, f"{self.name}Widget")(parent)
            setattr(slicer.modules, f"{self.name}Widget", widget)
            widget.setup()
            parent.setMRMLScene(slicer.mrmlScene)
            parent.self = lambda: widget
            self._widget = parent
        return self._widget

    def logic(self) -> Any:
        return getattr(self.pythonModule, f"{self.name}Logic")()

    def discard(self) -> None:
        """Clean the panel up, as when the application ends; the next `widgetRepresentation` builds a new one."""
        if self._widget is not None:
            self._widget.self().cleanup()
            self._widget.hide()
            self._widget.deleteLater()
            self._widget = None


class CoreModule:
    """``slicer.modules.<name>`` of a built-in loadable module: only its logic exists here."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self._logic, self.path = name, logic, ""

    def logic(self) -> Any:
        return self._logic


class LayoutManager:
    """The part of the layout manager that needs no widgets."""

    def __init__(self, core: Any) -> None:
        self._core = core

    @property
    def layout(self) -> int:
        return int(self._core.scene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement())

    def setLayout(self, arrangement: int) -> None:
        self._core.setLayout(arrangement)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._core.sliceLogics)

    def resetThreeDViews(self) -> None:
        """Views are made by tests, who point their cameras themselves."""

    def sliceWidget(self, name: str) -> None:
        raise NotImplementedError("the harness has no slice widgets: work on slice nodes and composite nodes")


class Host:
    """The application. Use `install`: there can be only one."""

    def __init__(self, pythonSource: str | None = None) -> None:
        from .pythonqt import qtModule

        qt = qtModule()
        import slicer

        from . import sampledata
        from .application import SlicerCore
        from .coreio import CoreIOManager

        self.app = _application(self, qt)
        self.core = SlicerCore()
        self.io = CoreIOManager(self.core)
        self.layoutManager, self.hasMainWindow = LayoutManager(self.core), True
        self.settings = qt.QSettings(os.path.join(self.core.temporaryPath, "Slicer.ini"), qt.QSettings.Format.IniFormat)
        self.manager = _moduleManager(qt)
        slicer.app, slicer.mrmlScene = self.app, self.core.scene
        _publishWidgets()
        sys.modules["SampleData"] = sampledata
        for name in ("modules", "moduleNames"):
            module = types.ModuleType(f"slicer.{name}")
            setattr(slicer, name, module)
            sys.modules[f"slicer.{name}"] = module
        for name, logic in self.core.logics.items():
            setattr(slicer.modules, name.lower(), CoreModule(name, logic))
            setattr(slicer.moduleNames, name, name)
        import slicer.util

        if pythonSource:
            slicer.__path__.append(pythonSource)  # Slicer's own base classes and parameter nodes, from a checkout
        else:
            _publishBaseClasses()

    def loadModule(self, path: str | Path) -> ScriptedModule:
        """Import a module file as the application's factory does; return ``slicer.modules.<name>``."""
        import slicer

        module = ScriptedModule(self, path)
        folder = os.path.dirname(module.path)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(module.name, module.path)
        assert spec is not None
        assert spec.loader is not None
        module.pythonModule = importlib.util.module_from_spec(spec)
        sys.modules[module.name] = module.pythonModule
        spec.loader.exec_module(module.pythonModule)
        setattr(slicer.modules, module.name.lower(), module)
        setattr(slicer.moduleNames, module.name, module.name)
        setattr(slicer.modules, f"{module.name}Instance", getattr(module.pythonModule, module.name)(module))
        return module

    def show(self, module: ScriptedModule, width: int = 460, height: int = 900) -> Any:
        """Show a module's panel as if it were chosen in the module list; return its widget object."""
        panel = module.widgetRepresentation()
        panel.resize(width, height)
        panel.show()
        widget = panel.self()
        if hasattr(widget, "enter"):
            widget.enter()
        self.app.processEvents()
        return widget

    def screenshot(self, widget: Any, path: str | Path) -> bool:
        """Write a picture of a Qt widget."""
        self.app.processEvents()
        return bool(widget.grab().save(str(path)))

    def waitUntil(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> float:
        """Run the event loop until `condition` holds; return the seconds it took, fail after `timeout_s`."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > timeout_s:
                raise TimeoutError(f"nothing happened within {timeout_s} s")
            self.app.processEvents()
            time.sleep(0.005)
        return time.monotonic() - start


def _application(host: Host, qt: Any) -> Any:
    import slicer

    class Application(qt.QApplication):
        """``slicer.app``; the names are Slicer's."""

        majorVersion, minorVersion, revision = 5, 12, "harness"
        os = platform = sys.platform
        startupCompleted = qt.Signal()
        temporaryPath = property(lambda self: host.core.temporaryPath)
        slicerHome = property(lambda self: str(Path(slicer.__file__).parents[1]))

        def testingEnabled(self) -> bool:
            return True

        def mrmlScene(self) -> Any:
            return host.core.scene

        def applicationLogic(self) -> Any:
            return host.core.applicationLogic

        def coreIOManager(self) -> Any:
            return host.io

        ioManager = coreIOManager

        def moduleManager(self) -> Any:
            return host.manager

        def moduleLogic(self, name: str) -> Any:
            return host.core.logics.get(name)

        def layoutManager(self) -> Any:
            return host.layoutManager if host.hasMainWindow else None

        def pythonConsole(self) -> None:
            return None

        def userSettings(self) -> Any:
            return host.settings

        settings = userSettings

        def pauseRender(self) -> None:
            """There is nothing to pause."""

        def resumeRender(self) -> None:
            """There is nothing to resume."""

        def commandOptions(self) -> Any:
            return types.SimpleNamespace(noMainWindow=True, runPythonAndExit=False, testingEnabled=True)

        def errorLogModel(self) -> None:
            return None

        def tr(self, *args: str) -> str:
            return args[-1]

    application = qt.QApplication.instance() or Application(["SlicerHost"])
    application.setApplicationName("Slicer")
    return application


def _moduleManager(qt: Any) -> Any:
    import slicer

    class ModuleManager(qt.QObject):
        """``slicer.app.moduleManager()``."""

        moduleAboutToBeUnloaded = qt.Signal(str)
        cppSignals = {"moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"}  # noqa: RUF012

        def module(self, name: str) -> Any:
            return getattr(slicer.modules, name.lower(), None)

        def modulesNames(self) -> list[str]:
            return [name for name in vars(slicer.moduleNames) if not name.startswith("_")]

        def factoryManager(self) -> Any:
            return types.SimpleNamespace(loadedModuleNames=self.modulesNames)

    return ModuleManager()


def _publishWidgets() -> None:
    """Make the ``ctk`` module and the widget classes of ``slicer``; other widget classes may be named, not made."""
    import slicer

    from . import widgets

    ctk = types.ModuleType("ctk")
    for name, cls in widgets.CTK.items():
        setattr(ctk, name, cls)
    sys.modules["ctk"] = ctk
    for name, cls in widgets.QMRML.items():
        setattr(slicer, name, cls)
    placeholder = functools.cache(widgets.placeholder)
    ctk.__getattr__ = slicer.__getattr__ = placeholder  # type: ignore[method-assign]


def _publishBaseClasses() -> None:
    import slicer

    from . import parameters, scripted

    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text, *args: text  # type: ignore[attr-defined]
    i18n.translate = lambda context, text, *args: text  # type: ignore[attr-defined]
    i18n.getContext = lambda path: Path(path).stem  # type: ignore[attr-defined]
    for name, module in (("ScriptedLoadableModule", scripted), ("parameterNodeWrapper", parameters), ("i18n", i18n)):
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


@functools.cache
def install(pythonSource: str | None = None) -> Host:
    """Make the application once per process; `pythonSource` is a checkout's ``Base/Python/slicer`` folder, if there is one."""
    return Host(pythonSource)
