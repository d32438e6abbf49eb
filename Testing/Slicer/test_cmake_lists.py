"""Every file that the extension needs is in its package."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import HERE, REPOSITORY

MODULE_CMAKE = (REPOSITORY / "SynthDose" / "CMakeLists.txt").read_text(encoding="utf-8")
TOP_CMAKE = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")


def wanted(folder: str) -> set[str]:
    """Files of the checkout that belong into a package, relative to the repository."""
    found = set()
    for path in (REPOSITORY / folder).rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        if path.is_file() and "__pycache__" not in parts and path.suffix != ".pyc" and not path.name.startswith("."):
            found.add("/".join(parts))
    return found


def modules() -> set[str]:
    """Modules of the CMake list."""
    body = re.search(r"set\(MODULES\s+(.*?)\)", MODULE_CMAKE, re.DOTALL)
    assert body is not None
    return set(body.group(1).split())


def test_every_module_is_listed_with_its_files():
    entries = {f"SynthDose/Resources/{name}" for name in ("requirements.txt", "requirements-segmentation.txt")}
    for name in modules():
        entries |= {f"SynthDose/{name}.py", f"SynthDose/Resources/UI/{name}.ui", f"SynthDose/Resources/Icons/{name}.png"}
    assert entries == wanted("SynthDose") - {"SynthDose/CMakeLists.txt"} - wanted("SynthDose/CLI")


def bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def test_every_module_has_a_test_of_its_own_that_slicer_runs():
    """ctest finds the methods by themselves; the button *Reload and Test* calls runTest, which Slicer's class leaves empty."""
    tree = ast.parse((REPOSITORY / "SynthDoseLib" / "mrml" / "panel.py").read_text(encoding="utf-8"))
    (shared,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ModuleTest"]
    assert bases(shared) == ["ScriptedLoadableModuleTest"]
    assert "runTest" in [node.name for node in shared.body if isinstance(node, ast.FunctionDef)]
    assert "WITH_GENERIC_TESTS" in MODULE_CMAKE
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in MODULE_CMAKE
    for name in modules():
        tree = ast.parse((REPOSITORY / "SynthDose" / f"{name}.py").read_text(encoding="utf-8"))
        (own,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == f"{name}Test"]
        assert bases(own) == ["ModuleTest"]
        assert [node for node in own.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_every_command_line_module_is_listed_with_its_files():
    body = re.search(
        r"set\(CLI_MODULES\s+(.*?)\)", (REPOSITORY / "SynthDose/CLI/CMakeLists.txt").read_text(encoding="utf-8"), re.DOTALL
    )
    assert body is not None
    entries = {f"SynthDose/CLI/{name}{suffix}" for name in body.group(1).split() for suffix in (".py", ".xml")}
    assert entries == wanted("SynthDose/CLI") - {"SynthDose/CLI/CMakeLists.txt"}
    assert len(entries) == 6


def test_the_library_has_no_files_that_its_pattern_misses():
    assert "SynthDoseLib/*.py" in MODULE_CMAKE
    assert {name for name in wanted("SynthDoseLib") if not name.endswith(".py")} == set()


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_installed_extension_has_every_file_and_its_library_finds_its_data(tmp_path):
    build, prefix = tmp_path / "build", tmp_path / "installed"
    stub = f"-DSlicer_DIR={HERE / 'cmake_stub'}"
    for command in (
        ["cmake", "-S", str(REPOSITORY), "-B", str(build), stub, f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DBUILD_TESTING=ON"],
        ["cmake", "--build", str(build)],
        ["cmake", "--install", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (modules,) = prefix.rglob("qt-scripted-modules")
    installed = {path.relative_to(modules).as_posix() for path in modules.rglob("*") if path.is_file()}
    data = {f"SynthDoseLib/{name}" for name in wanted("Resources")}
    module = {name.removeprefix("SynthDose/") for name in wanted("SynthDose") - wanted("SynthDose/CLI")} - {"CMakeLists.txt"}
    (commands,) = prefix.rglob("cli-modules")
    assert {path.name for path in commands.iterdir()} == {
        Path(name).name for name in wanted("SynthDose/CLI") if not name.endswith("CMakeLists.txt")
    }
    assert installed == wanted("SynthDoseLib") | data | module
    built = next(build.rglob("qt-scripted-modules"))
    assert (built / "SynthDoseLib" / "core" / "grid.py").is_file()
    code = (
        f"import sys; sys.path.insert(0, {str(modules)!r}); import SynthDoseLib; from SynthDoseLib.core import resource_path\n"
        f"assert SynthDoseLib.__file__.startswith({str(modules)!r}), SynthDoseLib.__file__\n"
        "print(resource_path('physics'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(modules))


def test_catalogue_entry_agrees_with_cmake():
    entry = json.loads((REPOSITORY / "SynthDose.json").read_text(encoding="utf-8"))
    homepage = re.search(r'EXTENSION_HOMEPAGE "([^"]+)"', TOP_CMAKE)
    assert homepage is not None
    assert entry["scm_url"] == f"{homepage.group(1)}.git"
    assert entry["build_dependencies"] == ["PyTorch"]  # the name of its own catalogue entry
    assert 'set(EXTENSION_DEPENDS "PyTorch")' in TOP_CMAKE
    for url in re.findall(r"https://raw\S+?\.png", TOP_CMAKE):
        assert Path(REPOSITORY, url.split("/main/")[1]).is_file(), url
