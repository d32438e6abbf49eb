"""Every panel can be read, understood and used without a mouse: its forms, and the words in its sources."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest
from surroundings import REPOSITORY

FOLDER = REPOSITORY / "SynthDose"
MODULES = ("SynthDoseMonteCarlo", "SynthDosePhantom", "SynthDoseRadiomics", "SynthDoseSegmentation")
INPUTS = {
    "QComboBox", "QLineEdit", "QTextEdit", "QSpinBox", "QDoubleSpinBox", "QCheckBox", "QPushButton", "ctkSliderWidget",
    "ctkPathLineEdit", "qMRMLNodeComboBox", "qMRMLTableView",
}  # fmt: skip
UNITS = {
    "mm": "mm", "cm": "cm", "kg": "kg", "y": "years", "%": "%", "min": "min", "s": "s", "GB": "GB", "MBq s": "MBq s",
    "inferences": "inferences",
}  # fmt: skip
"""Suffixes of spin boxes, and how the tooltip has to name the unit."""

SHOWN_ATTRIBUTES = {"text", "toolTip", "windowTitle", "title", "helpText", "acknowledgementText", "placeholderText"}
SHOWN_CALLS = {"showStatus", "setText", "setPlainText", "addItem", "addItems", "addButton", "confirmOkCancelDisplay"}
SHOWN_RETURNS = {
    "problem", "taskProblem", "comparisonProblem", "calibrationProblem", "done", "missingText", "missingPyradiomics",
    "ibsiSummary", "question", "label", "describe", "failure", "precisionText", "verdict",
}  # fmt: skip


class Form:
    """A form as Qt Designer writes it."""

    def __init__(self, name: str) -> None:
        self.root = ElementTree.parse(FOLDER / "Resources" / "UI" / f"{name}.ui").getroot()
        self.widgets = list(self.root.iter("widget"))

    @staticmethod
    def value(widget: ElementTree.Element, name: str) -> str | None:
        return next(((p[0].text or "") for p in widget.findall("property") if p.get("name") == name), None)

    def inputs(self) -> list[ElementTree.Element]:
        return [widget for widget in self.widgets if widget.get("class") in INPUTS]


@pytest.fixture(params=MODULES)
def form(request) -> Form:
    return Form(request.param)


def test_names_are_unique(form):
    names = [widget.get("name") for widget in form.widgets]
    assert len(names) == len(set(names))


def test_every_input_has_a_tooltip_that_names_its_unit(form):
    for widget in form.inputs():
        tip, name = form.value(widget, "toolTip") or "", widget.get("name")
        assert len(tip) >= 8, name
        suffix = (form.value(widget, "suffix") or "").strip()
        if suffix:
            assert re.search(rf"(?<!\w){re.escape(UNITS[suffix])}(?!\w)", tip, re.IGNORECASE), f"{name}: {tip}"


def test_labels_lead_to_their_inputs_and_letters_are_given_once(form):
    names = {widget.get("name") for widget in form.widgets}
    letters: list[str] = []
    for layout in form.root.iter("layout"):
        if layout.get("class") != "QFormLayout":
            continue
        for item in layout:
            label = item[0]
            alone = item.get("colspan") is not None
            if label.get("class") == "QLabel" and item.get("column") == "0" and not alone:
                assert form.value(label, "buddy") in names, label.get("name")
    for widget in form.widgets:
        if widget.get("class") in ("QLabel", "QPushButton", "QCheckBox"):
            letters += re.findall(r"&(\w)", form.value(widget, "text") or "")
    assert len(letters) >= 12
    assert len({letter.lower() for letter in letters}) == len(letters)
    assert any("&" in (form.value(w, "text") or "") for w in form.widgets if w.get("name") == "runButton")


def test_no_text_is_kept_from_translation(form):
    for string in form.root.iter("string"):
        assert string.get("notr") != "true", string.text


@pytest.mark.parametrize("name", MODULES)
def test_tab_goes_through_the_panel_from_top_to_bottom(host, scene, name):
    from PySide6.QtCore import QPoint, Qt

    module = host.loadModule(FOLDER / f"{name}.py")
    widget = host.show(module, 480, 3000)
    top = module.widgetRepresentation()
    for child in top.findChildren(type(widget.ui.logButton)):
        child.collapsed = False
    host.app.processEvents()
    host.app.processEvents()
    visited, current = [], top.nextInFocusChain()
    while current is not top:
        policy = current.focusPolicy.value if hasattr(current.focusPolicy, "value") else int(current.focusPolicy)
        if policy & Qt.FocusPolicy.TabFocus.value and top.isAncestorOf(current) and current.isVisible():
            visited.append(current)
        current = current.nextInFocusChain()
    found = {widget.objectName for widget in visited} | {w.parent().objectName for w in visited if w.parent() is not None}
    for entry in Form(name).inputs():
        assert entry.get("name") in found, f"{entry.get('name')} cannot be reached by the keyboard"
    places = [current.mapTo(top, QPoint(0, 0)) for current in visited]
    for before, after, here, there in zip(visited, visited[1:], places, places[1:], strict=False):
        assert there.y() >= here.y() - 14, f"from {before.objectName} back up to {after.objectName}"
    module.discard()


@pytest.mark.parametrize("name", MODULES)
def test_tab_leaves_tables_and_texts(host, scene, name):
    module = host.loadModule(FOLDER / f"{name}.py")
    ui = host.show(module).ui
    for widget in Form(name).widgets:
        if widget.get("class") in ("QTextEdit", "QPlainTextEdit"):
            assert getattr(ui, widget.get("name")).tabChangesFocus
        if widget.get("class") == "qMRMLTableView":
            assert not getattr(ui, widget.get("name")).tabKeyNavigation
    module.discard()


@pytest.mark.parametrize("name", MODULES)
def test_the_module_says_what_it_is_and_who_made_it(host, name):
    from slicerhost.host import ScriptedModule

    module: ScriptedModule = host.loadModule(FOLDER / f"{name}.py")
    assert module.title.startswith("SynthDose ")
    assert "not for clinical use" in module.helpText
    assert len(module.acknowledgementText) > 20
    assert module.contributors
    assert module.categories[0] in ("Radiotherapy", "Segmentation", "Quantification")
    assert (FOLDER / "Resources" / "Icons" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    module.discard()


def untranslated(source: str) -> list[tuple[int, str]]:
    """Line and text of the words that a user would see but that no translator would."""
    tree = ast.parse(source)
    shown: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute) and target.attr in SHOWN_ATTRIBUTES:
                    shown.append(node.value)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SHOWN_CALLS:
                shown += node.args
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if getattr(node.exc.func, "id", "") in ("RuntimeError", "ValueError"):
                shown += node.exc.args
        elif isinstance(node, ast.FunctionDef) and node.name in SHOWN_RETURNS:
            shown += [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value is not None]
    return sorted({found for expression in shown for found in _bare(expression)})


def _bare(node: ast.AST) -> list[tuple[int, str]]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in ("_", "tr", "translate"):
            return []
    if isinstance(node, (ast.Compare, ast.Subscript)):  # keys and comparisons are not shown
        return []
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[A-Za-z]{3}", node.value):
        return [] if node.value.startswith(("color:", "SynthDose")) else [(node.lineno, node.value)]
    if isinstance(node, ast.Dict):
        return [found for value in node.values for found in _bare(value)]
    if isinstance(node, ast.Call):  # arguments of other calls are names and roles, the object of a method is text
        return _bare(node.func.value) if isinstance(node.func, ast.Attribute) else []
    return [found for child in ast.iter_child_nodes(node) for found in _bare(child)]


def test_the_search_for_untranslated_words_finds_them():
    source = "def problem(self):\n    return 'Choose the image' if self.a == 'abc' else _('Good')\nx.toolTip = f'{a} of all'\n"
    assert untranslated(source) == [(2, "Choose the image"), (3, " of all")]


@pytest.mark.parametrize(
    "file", [*(f"SynthDose/{name}.py" for name in MODULES), "SynthDoseLib/mrml/panel.py", "SynthDoseLib/mrml/packages.py"]
)
def test_every_word_that_a_user_sees_can_be_translated(file):
    assert untranslated((REPOSITORY / file).read_text(encoding="utf-8")) == []
