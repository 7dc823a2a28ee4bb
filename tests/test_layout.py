"""Rooms of the package: what each may import, how large its parts are, and where their tests are."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "finetune"
# A room may import the rooms before it. Models and losses know nothing of each other.
LAYERS = (
    *("utils", "losses", "models", "data", "evaluation", "recipe"),
    *("reporting", "inference", "export", "training", "prepare", "commands"),
)
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    """The folder below ``finetune/`` that a file is in; "" at the top."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def rooms_imported_by(file: Path) -> set[str]:
    """Rooms that a file imports, at its head or inside a function; ``finetune`` itself is none."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            module = node.module or ""
            modules = [f"finetune.{alias.name}" for alias in node.names] if module == "finetune" else [module]
        found |= {module.split(".")[1] for module in modules if module.startswith("finetune.")}
    return found & set(LAYERS)


def test_the_top_of_the_package_is_a_short_list() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    rooms = {path.name for path in entries if path.is_dir()}
    assert rooms == set(LAYERS)
    assert len(rooms) <= 12
    assert len(entries) - len(rooms) <= 8


def test_imports_between_rooms_point_down_and_are_few() -> None:
    inside = [file for file in FILES if room_of(file)]
    arrows = {(room_of(file), to) for file in inside for to in rooms_imported_by(file) if to != room_of(file)}
    upward = [(start, to) for start, to in arrows if LAYERS.index(to) >= LAYERS.index(start)]
    assert not upward, f"imports point up: {upward}"
    assert ("models", "losses") not in arrows
    assert len(arrows) <= 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_never_imports_a_command(file: Path) -> None:
    if room_of(file) not in ("commands", ""):
        assert "commands" not in rooms_imported_by(file)


def test_functions_and_classes_are_short() -> None:
    limits = {ast.FunctionDef: 60, ast.ClassDef: 250}
    long = [
        f"{file.relative_to(ROOT)}: {node.name} has {lines} lines"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > limits[type(node)]
    ]
    assert not long


def test_any_is_rare_and_no_reader_is_any() -> None:
    annotations: list[ast.expr] = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.AnnAssign):
                annotations.append(node.annotation)
            elif isinstance(node, ast.arg) and node.annotation is not None:
                annotations.append(node.annotation)
                assert not (node.arg == "reader" and ast.unparse(node.annotation) == "Any"), file
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                annotations.append(node.returns)
    found = [
        name
        for annotation in annotations
        for name in ast.walk(annotation)
        if isinstance(name, ast.Name) and name.id == "Any"
    ]
    assert len(found) <= 130


def test_no_file_at_the_top_hides_a_standard_module() -> None:
    # accelerate launch finetune/train.py puts finetune/ first on the path before our first line runs.
    assert not {path.stem for path in PACKAGE.iterdir()} & set(sys.stdlib_module_names)


def test_no_module_name_is_another_one_with_ing() -> None:
    names = sorted({file.stem for file in FILES})
    twins = [(name, other) for name in names for other in names if other in (f"{name}ing", f"{name.rstrip('e')}ing")]
    assert not twins


def test_tests_mirror_the_package() -> None:
    whole = {
        "layout",
        "commands",
        "recipes",
        "readme",
        "parity",
        "processes",
        "resuming",
        "lora_runs",
        "depth_anything_3_runs",
    }
    for test in (ROOT / "tests").rglob("test_*.py"):
        relative = test.relative_to(ROOT / "tests")
        name = relative.name.removeprefix("test_")
        parent, stem = relative.parent, Path(name).stem
        mirrored = (PACKAGE / parent / name, PACKAGE / parent / stem, ROOT / parent / stem, ROOT / parent / name)
        sibling = test.with_name(name)
        known = stem in whole or test.stem.startswith("test_every_")
        assert known or any(path.exists() for path in (*mirrored, sibling)), f"{test} mirrors nothing"


def test_files_of_users_are_asked_for_by_questions_that_never_raise() -> None:
    raises = re.compile(r"\.(exists|is_file|is_dir|is_symlink|expanduser|resolve)\(\)")
    asked = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if raises.search(line) and "__file__" not in line
    ]
    assert not asked, "take path_exists, is_file, is_folder, ... of finetune/utils/paths.py:\n" + "\n".join(asked)
