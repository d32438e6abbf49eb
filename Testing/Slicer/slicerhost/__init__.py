"""Runs scripted modules of 3D Slicer without Slicer: real MRML (slicer-core), PySide6 in the manner of PythonQt.

A test reads like using the program::

    host = install()                                   # makes qt, ctk, slicer.app, slicer.modules, slicer.mrmlScene ...
    module = host.loadModule("SynthDose/SynthDose.py")  # as the application's module factory does
    widget = host.show(module)                         # setup(), scene, enter()
    widget.ui.inputSelector.setCurrentNode(ct)
    widget.ui.applyButton.click()
    host.screenshot(module.widgetRepresentation(), "panel.png")

Module code stays ordinary Slicer code and knows nothing of this package. What it cannot show: the PythonQt bridge itself,
the look of CTK widgets, the DICOM browser, the layout manager's widgets, and the extension build.
"""

from .host import Host, ScriptedModule, install
from .observers import observerErrors

__all__ = ["Host", "ScriptedModule", "install", "observerErrors"]
