"""The lines of Docs/slicer-scripts.md do what they say; the calculation itself is the fake worker's."""

from __future__ import annotations

import re
import sys

from surroundings import HERE, REPOSITORY

PAGE = (REPOSITORY / "Docs" / "slicer-scripts.md").read_text(encoding="utf-8")


def test_the_script_of_the_page_ends_in_a_dose(host, scene, module, monkeypatch, tmp_path):
    import slicer

    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    logic = module.pythonModule.SynthDoseLogic
    monkeypatch.setitem(sys.modules, "SynthDose", module.pythonModule)
    monkeypatch.setattr(module.pythonModule, "SynthDoseLogic", lambda: logic(worker, lambda requirements: True))

    def worker(arguments):
        return [sys.executable, str(HERE / "fake_worker.py"), "quick", *arguments]

    names: dict[str, object] = {"slicer": slicer}
    parameters = logic().getParameterNode()
    parameters.outputFolder = tmp_path
    exec(script, names)
    assert names["dose"].GetAttribute("DicomRtImport.DoseUnitName") == "GY"
    assert names["doses"]["kidney_left"] > 0
    assert names["sigma"] is not None
    assert list(tmp_path.glob("*.mrb"))
