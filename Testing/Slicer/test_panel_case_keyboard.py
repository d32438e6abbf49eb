"""The guided case without a mouse, and what its fields say of themselves."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from surroundings import REPOSITORY

UI = REPOSITORY / "SynthDose" / "Resources" / "UI" / "SynthDose.ui"
FIELDS = ("QComboBox", "QSpinBox", "QDoubleSpinBox", "QLineEdit", "QTextEdit", "QCheckBox", "QPushButton", "qMRMLNodeComboBox",
          "ctkPathLineEdit", "qMRMLTableView")  # fmt: skip
UNITS = {
    "administeredSpinBox": "MBq", "restHalfLifeSpinBox": "h", "halfLivesEdit": "hours", "calibrationSpinBox": "%",
    "sigmaSpinBox": "%", "minutesSpinBox": "minutes", "voxelSpinBox": "mm", "ctSelector": "HU", "previousSelector": "Gy",
    "timePointView": "Bq/ml", "organTableView": "Gy",
}  # fmt: skip


def fields() -> list[ElementTree.Element]:
    return [widget for widget in ElementTree.parse(UI).getroot().iter("widget") if widget.get("class") in FIELDS]


def propertyText(widget: ElementTree.Element, name: str) -> str:
    found = widget.find(f"property[@name='{name}']")
    return "" if found is None else "".join(found.itertext()).strip()


def test_every_field_says_what_it_is_and_in_which_unit():
    tips = {widget.get("name"): propertyText(widget, "toolTip") for widget in fields()}
    assert [name for name, tip in tips.items() if len(tip) < 10] == []
    for name, unit in UNITS.items():
        assert re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", tips[name]), f"{name}: {tips[name]}"


def test_every_label_belongs_to_its_field():
    names = {widget.get("name") for widget in fields()}
    labels = [w for w in ElementTree.parse(UI).getroot().iter("widget") if "LayoutLabel" in w.get("name", "")]
    buddies = [propertyText(label, "buddy") for label in labels]
    assert len(labels) > 20
    assert set(buddies) <= names
    assert len(set(buddies)) == len(buddies)


def test_the_tab_key_goes_through_the_panel_from_top_to_bottom(host, module):
    from PySide6.QtCore import QPoint, Qt

    widget = host.show(module, 460, 1400)
    ui = widget.ui
    for name in ("moreButton", "doseButton", "logButton"):
        getattr(ui, name).collapsed = False
    host.app.processEvents()
    named = [getattr(ui, element.get("name")) for element in fields()]
    start, order = ui.sampleButton, []
    at = start
    while True:
        owner = next((field for field in named if field is at or field.isAncestorOf(at)), None)
        if owner is not None and at.focusPolicy & Qt.FocusPolicy.TabFocus and owner not in order:
            order.append(owner)
        at = at.nextInFocusChain()
        if at is start:
            break
    shown = [field for field in named if field.isVisible()]
    assert [field.objectName for field in shown if field not in order] == []  # all can be reached
    heights = [field.mapTo(widget.parent, QPoint(0, 0)).y() for field in order]
    assert heights == sorted(heights)


def test_dose_and_cancel_have_keys_of_their_own(host, module):
    widget = host.show(module)
    assert widget.ui.runButton.text == "Calculate &dose"
    assert widget.ui.cancelButton.text == "Ca&ncel"
    assert widget.ui.runButton.shortcut.toString() == "Alt+D"
    assert widget.ui.cancelButton.shortcut.toString() == "Alt+N"


def test_every_text_of_the_code_can_be_translated():
    """Words that the module shows are given to `tr`: no bare text is put into a widget."""
    source = (REPOSITORY / "SynthDose" / "SynthDose.py").read_text(encoding="utf-8")
    assert re.findall(r"showStatus\(\s*f?\"", source) == []
    assert re.findall(r"\.(?:text|toolTip|title) = f?\"(?!\")", source.replace('.parent.title = "SynthDose"', "")) == []
    assert re.findall(r"attempt\(.*, f?\"", source) == []
    assert re.findall(r"(?:RuntimeError|ValueError)\(f?\"", source) == []
