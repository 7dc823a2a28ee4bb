"""Imports point down one list, nothing imports a command, and no file bears the name of a standard module."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "finetune"
COMMANDS = {"train", "check", "compare", "evaluate", "predict", "export", "calibrate"}
# A file or folder of the package may import what stands below it.
ORDER = [
    *sorted(COMMANDS),
    "__main__",
    "training",
    "check_report",
    "checking",
    "promised",
    "evaluating",
    "run_page",
    "comparing",
    "predictions",
    "exporting",
    "calibrating",
    "predicting",
    "exporters",
    "model_argument",
    "predictor",
    "videos",
    "image_paths",
    "overfitting",
    "assembly",
    "loop",
    "verdicts",
    "alarms",
    "averaging",
    "report",
    "shown_frames",
    "score_tables",
    "charts",
    "page",
    "depth_files",
    "pictures",
    "point_cloud",
    "inspection",
    "evidence",
    "environment",
    "decoder_init",
    "baselines",
    "evaluation",
    "protocols",
    "alignment",
    "metrics",
    "batches",
    "augment",
    "preprocessing",
    "schedules",
    "recipe",
    "protocol_settings",
    "recipe_options",
    "recipe_yaml",
    "weights",
    "checkpoints",
    "networks",
    "readers",
    "scenes",
    "losses",
    "sample",
    "camera",
    "registry",
    "run_folder",
    "seals",
    "launchers",
    "interrupts",
    "console",
    "shortages",
    "streams",
    "written_files",
    "figures",
    "errors",
    "paths",
    "spelling",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """The entry of ``ORDER`` a file belongs to."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """Parts of the package that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            module = node.module or ""
            names = [f"finetune.{alias.name}" for alias in node.names] if module == "finetune" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("finetune.")}
    return found


def test_every_part_has_its_place() -> None:
    parts = {part_of(file) for file in FILES} - {"__init__"}
    assert parts == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down_and_never_at_a_command(file: Path) -> None:
    own = part_of(file)
    for imported in imports_of(file) - {own}:
        assert imported not in COMMANDS, f"{file} imports the command {imported}"
        if own != "__init__":
            assert ORDER.index(imported) > ORDER.index(own), f"{file} imports {imported}, which stands above it"


def test_no_file_hides_a_standard_module() -> None:
    # accelerate launch finetune/train.py puts finetune/ first on the path before our first line runs.
    top_level = {file.stem for file in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert not top_level & set(sys.stdlib_module_names)


def test_tests_mirror_the_package() -> None:
    whole = {"layout", "commands", "recipes", "readme", "parity", "processes", "resuming", "lora_runs"}
    for test in (ROOT / "tests").rglob("test_*.py"):
        relative = test.relative_to(ROOT / "tests")
        name = relative.name.removeprefix("test_")
        parent, stem = relative.parent, Path(name).stem
        mirrored = (PACKAGE / parent / name, PACKAGE / parent / stem, ROOT / parent / stem, ROOT / parent / name)
        known = Path(name).stem in whole or test.stem.startswith("test_every_")
        assert known or any(path.exists() for path in mirrored), f"{test} mirrors nothing"


def test_files_of_users_are_asked_for_by_questions_that_never_raise() -> None:
    raises = re.compile(r"\.(exists|is_file|is_dir|is_symlink|expanduser|resolve)\(\)")
    asked = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if raises.search(line) and "__file__" not in line
    ]
    assert not asked, "take path_exists, is_file, is_folder, ... of finetune/paths.py:\n" + "\n".join(asked)
