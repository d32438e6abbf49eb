"""Says in the summary why tests of nodes and panels did not run."""

from __future__ import annotations

import pytest
from surroundings import MISSING


@pytest.mark.skipif(
    bool(MISSING), reason=f"nodes and panels need {', '.join(MISSING)}: pip install slicer-core PySide6-Essentials"
)
def test_slicer_libraries_are_there():
    import slicer

    assert slicer.vtkMRMLScene().GetNumberOfNodes() >= 0
