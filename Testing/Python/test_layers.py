"""The dependency rule: who may import whom, read with ast."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "SynthDoseLib"
STAGES = {"segmentation", "prediction", "generative", "phantom", "kinetics", "dosimetry", "radiomics", "transport"}
ALLOWED = {
    "core": set(),
    "physics": {"core"},
    "io": {"core"},
    "segmentation": {"core"},
    "prediction": {"core"},
    "generative": {"core"},
    "phantom": {"core", "physics"},
    "kinetics": {"core", "physics"},
    "dosimetry": {"core", "physics"},
    "radiomics": {"core", "physics"},
    "transport": {"core", "physics"},
    "pipeline": {"core", "physics", "io"} | STAGES,
    "population": {"core", "io", "pipeline"},
    "mrml": {"core", "io"},
}
SLICER_ONLY = {"slicer", "qt", "ctk", "vtkmodules"}
PACKAGES = sorted(path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists())


def imports(path: Path) -> set[str]:
    """Absolute dotted names of everything a file imports, at any depth of its code."""
    package = ("SynthDoseLib", *path.relative_to(LIBRARY).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            if module == "SynthDoseLib":
                found |= {f"SynthDoseLib.{alias.name}" for alias in node.names}
    return found


def our_packages(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {name[1] for name in parts if name[0] == "SynthDoseLib" and len(name) > 1 and name[1] in PACKAGES}


def test_every_package_has_a_rule():
    assert set(PACKAGES) <= set(ALLOWED)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_layer_rule_allows(package):
    for path in (LIBRARY / package).rglob("*.py"):
        assert our_packages(path) - {package} <= ALLOWED[package], path


def test_only_mrml_knows_slicer():
    for path in LIBRARY.rglob("*.py"):
        if path.relative_to(LIBRARY).parts[0] != "mrml":
            used = {name.split(".")[0] for name in imports(path)}
            assert not used & SLICER_ONLY, path


def test_files_stay_readable():
    root = LIBRARY.parent
    files = [p for folder in ("SynthDoseLib", "SynthDose", "Testing") for p in (root / folder).rglob("*.py")]
    long = {str(p.relative_to(root)): n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > 500}
    assert not long
