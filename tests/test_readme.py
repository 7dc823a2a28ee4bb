"""READMEs are promises: every code block runs as written, every link leads somewhere, and CI runs the first blocks."""

import ast
import configparser
import contextlib
import importlib.metadata
import importlib.util
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from finetune import __main__
from finetune.commands import prepare, train
from finetune.data.readers.files import read_depth
from finetune.prepare.calibration import read_rig
from finetune.prepare.kinds import KINDS
from finetune.recipe.load import load_recipe
from finetune.training import environment
from finetune.utils import registry
from tests.conftest import write_recipe
from tests.data.readers import test_every_reader
from tests.losses import test_every_loss
from tests.readme_sources import write_sources

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "data", "finetune", "recipes", "tests", ".github")
READMES = [path for folder in FOLDERS if (path := ROOT / folder / "README.md").is_file()]
DOCUMENTS = [*READMES, *sorted((ROOT / ".github").rglob("*.md"))]
MAX_README_LINES = 150


def quick_start_blocks() -> list[str]:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, flags=re.S)


def test_quick_start_is_two_whole_blocks() -> None:
    train, test = quick_start_blocks()
    for block in (train, test):
        assert "-m venv .venv" in block
        assert "activate" in block
    assert "accelerate launch finetune/train.py recipes/room_tiny.yaml" in train
    assert "pip install -e '.[test]'" in test
    assert test.strip().splitlines()[-1].startswith("pytest")


def test_a_new_user_is_spared_the_lines_of_the_launcher() -> None:
    readme = (ROOT / "README.md").read_text()
    first_screen = readme.split("accelerate launch", 1)[1][:1000]
    assert "`finetune train recipes/room_tiny.yaml`" in first_screen
    # The first line is the shortest one that works; all others leave the launcher's traceback out.
    _, *others = [line for path in READMES for line in path.read_text().splitlines() if line.startswith("accelerate l")]
    assert len(others) > 3
    assert [line for line in others if "--quiet" not in line] == []


def test_ci_takes_the_second_block_out_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    (program,) = re.findall(r"awk '([^']+)' \\\s+README\.md > ", ci)
    taken = subprocess.run(["awk", program, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert taken == quick_start_blocks()[1]
    assert "-m original" in ci


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def anchors(document: Path) -> set[str]:
    """What GitHub lets a link point to: the headings, in lower case, without punctuation, with hyphens for spaces."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_that_is_named_is_there(document: Path) -> None:
    text = document.read_text()
    new = [f"{module.replace('.', '/')}.py" for module in re.findall(r'"(finetune\.[\w.]+):\w+"', text)]
    new += [f"tests/{Path(path).parent.relative_to('finetune')}/test_{Path(path).name}" for path in new]
    for name in re.findall(r"`(?:python )?((?:finetune|tests|data)/[\w/]+\.py)", text):
        assert (ROOT / name).is_file() or name in new, name


def test_no_line_installs_the_project_of_that_name_that_others_publish() -> None:
    found = [ROOT / "README.md", ROOT / "setup.cfg", ROOT / ".ci" / "run"]
    folders = ("finetune", "tests", "data", "recipes", ".github")
    found += [path for folder in folders for path in (ROOT / folder).rglob("*")]
    texts = [path for path in found if path.suffix in ("", ".py", ".md", ".yaml", ".cfg", ".sh") and path.is_file()]
    assert len(texts) > 200
    wrong = re.compile(r"pip install (?:-\S+ )*['\"]?finetune\b")
    assert not [path for path in texts if wrong.search(path.read_text())]
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    assert metadata["metadata"]["name"] == "depth-finetune"
    assert "finetune = finetune.__main__:main" in metadata["options.entry_points"]["console_scripts"]


def test_the_version_is_that_of_our_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: {"depth-finetune": "ours"}.get(name, "a stranger's")
    )
    assert environment._version("finetune") == "ours"


class Block(NamedTuple):
    """A block of code of a README: ``kind`` is the word after its fence, or "" where it is indented or has none."""

    location: str
    kind: str
    text: str
    before: str

    @property
    def section(self) -> str:
        """The heading that it is under."""
        return re.findall(r"^#+ (.+)$", self.before, flags=re.M)[-1]


def blocks() -> list[Block]:
    """All of all READMEs."""
    found = []
    for path in READMES:
        text = path.read_text()
        fenced_or_indented = r"^```(\w*)\n(.*?)^```$|(?<=\n\n)((?:    [^\n]*\n)+)"
        for match in re.finditer(fenced_or_indented, text, flags=re.S | re.M):
            location = f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}"
            found.append(Block(location, match[1] or "", match[2] or match[3], text[: match.start()]))
    return found


def lines_of(block: Block) -> list[list[str]]:
    """The words of each command."""
    joined = block.text.replace("\\\n", " ").replace(" && ", "\n")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


BLOCKS = blocks()
ADDITIONS = [block for block in BLOCKS if block.section.startswith("Add a ")]
OTHERS = [block for block in BLOCKS if block not in ADDITIONS]
PREPARES = [block for block in OTHERS if "finetune prepare " in block.text]
OTHERS = [block for block in OTHERS if block not in PREPARES]
COMMANDS = [block for block in OTHERS if re.match(r"\s*(finetune (?!stopped)|accelerate |python3 -m venv)", block.text)]
PYTESTS = [block for block in OTHERS if block.text.startswith("pytest ")]
ENTRIES = [block for block in OTHERS if block.text.lstrip().startswith("- {reader")]
SENTENCES = [block for block in OTHERS if block.text.lstrip().startswith("finetune stopped: ")]
CALIBRATIONS = [block for block in OTHERS if block.kind == "json"]
YAMLS = [block for block in OTHERS if block.kind == "yaml"]
PYTHONS = [block for block in OTHERS if block.kind == "python"]
# Kinds of recordings; complete is for a folder that is prepared already.
RECORDINGS = set(KINDS) - {"complete"}
# CI runs these word for word in a fresh environment.
INSTALLATION = (["python3", "-m", "venv"], [".", ".venv/bin/activate"], ["pip", "install"], ["pytest", "-n"])


def test_the_names_of_the_glossary_are_those_of_the_code() -> None:
    table = (ROOT / ".github" / "CONTRIBUTING.md").read_text().split("| use | not | in the code |", 1)[1]
    rows = [line for line in table.split("\n## ", 1)[0].splitlines() if line.startswith("| ") and "---" not in line]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[-1])]
    code = "\n".join(path.read_text() for path in (ROOT / "finetune").rglob("*.py"))
    assert len(names) > 30
    assert not [name for name in names if not re.search(rf"\b{name}\b", code)]


def test_ci_runs_on_each_python_that_the_readme_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["run"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    (named,) = re.findall(r"Python (3\.\d+(?:, 3\.\d+)* or 3\.\d+)", (ROOT / "README.md").read_text())
    assert job["strategy"]["matrix"]["python"] == re.findall(r"3\.\d+", named)


def test_every_block_is_run_by_one_of_these_tests() -> None:
    assert len(READMES) >= 1 and len(BLOCKS) >= 9
    run = [*PREPARES, *CALIBRATIONS, *COMMANDS, *PYTESTS, *ENTRIES, *SENTENCES, *YAMLS, *PYTHONS, *ADDITIONS]
    assert sorted(block.location for block in run) == sorted(block.location for block in BLOCKS)


def keys_of_custom() -> list[str]:
    """``recipes/custom.yaml`` as rows of a table: key as on a command line, default, what its comment says."""
    text = (ROOT / "recipes" / "custom.yaml").read_text()
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    rows = []
    for line in text[text.index("name:") :].splitlines():
        if comment := re.match(r"\s*# (.*)", line):
            above.append(comment[1])
        elif key := re.match(r"(\s*(?:- )?)(\w+):(?: ([^ #].*?))?(?:  # (.*))?$", line):
            column = len(key[1])
            parents = [parent for parent in parents if parent[0] < column]
            if key[1].endswith("- "):
                parents.append((column - 1, "0"))
            name = ".".join([*(parent for _, parent in parents), key[2]])
            parents.append((column, key[2]))
            default, meaning = key[3] or "", key[4] or " ".join(above)
            if other := re.match(r"(no default|default: .*?); (.*)", meaning):
                default, meaning = other[1].removeprefix("no default").removeprefix("default: "), other[2]
            if meaning:
                rows.append(f"| `{name}` | {default} | " + meaning.replace("|", r"\|") + " |")
            above = []
    return rows


def test_the_table_of_every_key_says_what_custom_says() -> None:
    section = (ROOT / "recipes" / "README.md").read_text().split("\n## Every key\n", 1)[1]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert rows == keys_of_custom()


def test_recipes_and_entries_of_a_readme_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    whole = next(block.text for block in YAMLS if "model:" in block.text)
    for block in YAMLS:
        path = tmp_path / "mine.yaml"
        recipe = yaml.safe_load(whole)
        # A part of a recipe shows the keys that it is about.
        for section, values in yaml.safe_load(block.text).items():
            both = isinstance(values, dict) and isinstance(recipe.get(section), dict)
            recipe[section] = {**recipe[section], **values} if both else values
        path.write_text(block.text if "model:" in block.text else yaml.safe_dump(recipe))
        recipe = load_recipe(path)
        assert len(recipe.data.train[0].source) == 50
    for block in ENTRIES:
        path.write_text(re.sub(r"train: \[.*\]", f"train: {yaml.safe_load(block.text)}", whole))
        (entry,) = load_recipe(path).data.train
        assert entry.source[0].valid.any()
        assert entry.source[0].camera is not None
    assert YAMLS and ENTRIES


def test_a_sentence_that_a_readme_shows_is_what_its_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for block in SENTENCES:
        command = re.findall(r"`finetune ([^`]+)`", block.before)[-1]
        assert __main__.main([*shlex.split(command), f"output={tmp_path}"]) in (1, 2)
        assert capsys.readouterr().err.split() == block.text.split()
    assert SENTENCES


def test_launch_lines_for_machines_that_are_not_here_are_understood() -> None:
    launched = [words for block in COMMANDS for words in lines_of(block) if "--config_file" in words]
    assert len({tuple(words) for words in launched}) == 3
    for words in launched:
        arguments = launch_command_parser().parse_args(words[2:])
        config = load_config_from_file(str(ROOT / arguments.config_file))
        assert config.num_processes >= 1
        assert (ROOT / arguments.training_script).is_file()
        (recipe,) = arguments.training_script_args
        load_recipe(ROOT / recipe, check_files=False)
    batched = [words for block in COMMANDS for words in lines_of(block) if words[0] == "sbatch"]
    assert batched
    for *_, script, recipe in batched:
        subprocess.run(["bash", "-n", ROOT / script], check=True)
        load_recipe(ROOT / recipe, check_files=False)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a user has besides the README: the clone, with recipes of few steps, and photographs, a video and a list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for path in (ROOT / "data").iterdir():
        (tmp_path / "data" / path.name).symlink_to(path)
    for name in ("room_tiny", "room_tiny_lora"):
        text = (ROOT / "recipes" / f"{name}.yaml").read_text()
        text = re.sub(r"steps: 400, batch_size: 4", "steps: 4, batch_size: 2", text)
        text = text.replace("warmup_steps: 20", "warmup_steps: 1").replace("[126, 168]", "[56, 70]")
        assert "steps: 4, " in text and "[56, 70]" in text
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "recipes" / f"{name}.yaml").write_text(text)
    for number, name in enumerate(("photos/one", "more/deep/two", "three")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "data" / "room" / "color" / f"{number:04}.jpg", f"{name}.jpg")
    (tmp_path / "list.txt").write_text("three.jpg\n")
    (tmp_path / "DA-2K").mkdir()
    shutil.copy("three.jpg", "DA-2K")
    pair = '{"point1": [230, 160], "point2": [60, 160], "closer_point": "point1"}'
    (tmp_path / "DA-2K" / "annotations.json").write_text(f'{{"three.jpg": [{pair}]}}')
    video = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for number in range(3):
        video.write(cv2.imread(str(ROOT / "data" / "room" / "color" / f"{number:04}.jpg")))
    video.release()
    return tmp_path


@pytest.mark.slow
def test_every_command_and_every_program_of_a_readme_runs_as_written(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["recipes/room_tiny_lora.yaml"]) == 0
    ran: list[str] = []
    trained: list[list[str]] = []
    for block in COMMANDS:
        for words in lines_of(block):
            if words[:3] in map(list, INSTALLATION) or words[:2] in map(list, INSTALLATION) or "--config_file" in words:
                continue
            if words[0] == "sbatch":
                continue
            if words[0] == "accelerate":
                arguments = launch_command_parser().parse_args(words[2:])
                words = ["finetune", "train", *arguments.training_script_args]
            if words[:2] == ["finetune", "train"]:
                if words in trained:
                    continue
                trained.append(words)
                shutil.rmtree(clone / "runs" / Path(words[2]).stem, ignore_errors=True)
            if words[0] == "python":
                subprocess.run([sys.executable, *words[1:]], cwd=clone, check=True, capture_output=True)
                continue
            assert words[0] == "finetune", words
            status = __main__.main(words[1:])
            said = capsys.readouterr()
            assert status == 0, (block.location, words, said.err)
            assert "nanobind" not in said.err and "Traceback" not in said.err
            ran.append(words[1])
    assert set(ran) == {"check", "train", "predict", "evaluate", "score-pairs", "compare", "calibrate", "export"}
    for block in PYTHONS:
        with contextlib.chdir(clone):
            exec(compile(block.text, block.location, "exec"), {})
    for name in ("depth/one.npy", "depth/one.ply", "depth/two.png", "depth/three.npy", "cloud.ply", "page.html"):
        assert (clone / name).is_file(), name


def test_every_line_that_prepares_is_understood() -> None:
    kinds = []
    for block in PREPARES:
        for words in lines_of(block):
            if words[:2] == ["finetune", "prepare"]:
                kind = words[2]
                prepare.make_parser(kind, import_module(f"finetune.prepare.kinds.{kind}")).parse_args(words[3:])
                kinds.append(kind)
    assert set(KINDS) >= set(kinds) >= RECORDINGS


def test_the_calibrations_that_a_readme_shows_are_read(tmp_path: Path) -> None:
    rigs = []
    for block in CALIBRATIONS:
        (tmp_path / "rig.json").write_text(block.text)
        rigs.append(read_rig(tmp_path / "rig.json"))
    rig, lidar = rigs
    assert lidar.depth is None and lidar.color.lens is not None and lidar.color.width == 640
    assert rig.depth is not None and rig.color.lens is not None and (rig.color.width, rig.depth.width) == (1280, 848)
    np.testing.assert_array_equal(rig.color_from_sensor[:3, 3], [0.015, 0.0, 0.0])


@pytest.mark.slow
def test_each_kind_of_recording_trains_by_the_three_lines_of_the_readme(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sources(clone)
    (block,) = [block for block in PREPARES if block.location.startswith("README.md:")]
    lines = lines_of(block)
    assert [words[1] for words in lines] == ["prepare", "check", "train"] * (len(lines) // 3)
    assert {words[2] for words in lines if words[1] == "prepare"} == RECORDINGS
    for words in lines:
        assert __main__.main(words[1:]) == 0, (words, capsys.readouterr())
        if words[1] == "prepare":
            recipe = Path(words[-1]) / "recipe.yaml"
            text, count = re.subn(r"steps: 400, batch_size: 4", "steps: 2, batch_size: 2", recipe.read_text())
            text, sized = re.subn(r"input_size: \[.*\]", "input_size: [56, 70]", text)
            assert (count, sized) == (1, 1)
            recipe.write_text(text.replace("warmup_steps: 20", "warmup_steps: 1"))


@pytest.mark.slow
def test_every_pytest_line_of_a_readme_is_one_that_ci_runs_or_passes() -> None:
    by_ci = (ROOT / ".ci" / "run").read_text() + quick_start_blocks()[1]
    for block in PYTESTS:
        for words in lines_of(block):
            if shlex.join(words) not in by_ci:
                subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)
    assert PYTESTS


class Addition(NamedTuple):
    """What a section "Add a ..." shows: a module, its line in the registry, and its entry in a recipe."""

    name: str
    target: str
    entry: dict[str, Any]
    module: ModuleType


@pytest.fixture
def addition(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Addition:
    """The section of that heading, followed to the letter, but for where the module is written."""
    section, table = request.param
    code, line, entry = (block.text for block in ADDITIONS if block.section == section)
    ((name, target),) = ast.literal_eval(f"{{{line}}}").items()
    module_name = target.partition(":")[0]
    path = tmp_path / f"{module_name.rpartition('.')[2]}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module_name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(table, name, target)
    (options,) = yaml.safe_load(entry)
    return Addition(name, target, options, module)


def run_contract(tests: ModuleType, given: Mapping[str, Any]) -> int:
    """Runs the tests of a contract that ask for nothing but what is given; how many there were."""
    found = [test for name, test in vars(tests).items() if name.startswith("test_")]
    asked = [(test, list(inspect.signature(test).parameters)) for test in found]
    fitting = [(test, names) for test, names in asked if names and set(names) <= set(given)]
    for test, names in fitting:
        test(**{name: given[name] for name in names})
    return len(fitting)


@pytest.mark.slow
@pytest.mark.parametrize("addition", [("Add a loss", registry.LOSSES)], ids=["loss"], indirect=True)
def test_a_loss_that_the_readme_adds_trains(addition: Addition, frames: Path, tmp_path: Path) -> None:
    options = {key: value for key, value in addition.entry.items() if key not in ("kind", "weight")}
    loss = registry.find(registry.LOSSES, addition.name)(**options)
    assert run_contract(test_every_loss, {"loss": loss}) >= 4
    recipe = write_recipe(tmp_path, frames)
    text, count = re.subn(r"loss: \[.*\]", f"loss: {[addition.entry]}", recipe.read_text())
    assert count == 1
    recipe.write_text(text)
    assert train.main([str(recipe), "run.steps=5", "run.log_every_steps=1"]) == 0
    rows = (tmp_path / "runs" / "small" / "metrics.csv").read_text().splitlines()
    assert addition.name in rows[0]


def write_raw(folder: Path, frames: Path, names: range) -> None:
    """Frames of the fixture as the new reader wants them: an image, and its meters as raw numbers."""
    for kind in ("color", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in names:
        shutil.copy(frames / f"{number:02}.jpg", folder / "color")
        millimeters = read_depth(frames / f"{number:02}.png")
        (millimeters.astype(np.float32) / 1000).tofile(folder / "depth" / f"{number:02}.bin")


@pytest.mark.slow
@pytest.mark.parametrize("addition", [("Add a reader in 40 lines", registry.READERS)], ids=["reader"], indirect=True)
def test_a_reader_that_the_readme_adds_reads_and_trains(
    addition: Addition, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(inspect.getsource(addition.module).splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    write_raw(Path(addition.entry["root"]), frames, range(10))
    write_raw(Path("data/other"), frames, range(10, 13))
    write_raw(Path("data/spoiled"), frames, range(3))
    kind = registry.find(registry.READERS, addition.name)
    options = {"root": str(tmp_path / "data/spoiled")}
    reader = kind(**options)
    expected_m = read_depth(frames / "02.png") / 1000
    np.testing.assert_allclose(reader[2].depth_m, expected_m, rtol=1e-6)
    np.testing.assert_array_equal(reader[2].valid, expected_m > 0)
    assert run_contract(test_every_reader, {"kind": kind, "options": options, "reader": reader}) >= 7
    recipe = write_recipe(tmp_path, frames)
    text = re.sub(r"train: \[.*\]", f"train: {[addition.entry]}", recipe.read_text())
    recipe.write_text(re.sub(r"val: \[.*\]", f"val: {[addition.entry | {'root': 'data/other'}]}", text))
    assert train.main([str(recipe), "run.steps=5"]) == 0
    assert (tmp_path / "runs" / "small" / "best").is_dir()
