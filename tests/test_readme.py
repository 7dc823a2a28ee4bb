"""The README is a promise: its commands are those that CI runs."""

import configparser
import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

from finetune import environment

ROOT = Path(__file__).resolve().parents[1]


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


def test_ci_takes_the_second_block_out_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    (program,) = re.findall(r"awk '([^']+)' \\\s+README\.md > ", ci)
    taken = subprocess.run(["awk", program, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert taken == quick_start_blocks()[1]
    assert "-m original" in ci


def test_every_figure_is_filled_in() -> None:
    assert "@@" not in (ROOT / "README.md").read_text()


def test_pictures_and_files_it_names_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\((?!https?://|#)([^)]+)\)", readme):
        assert (ROOT / name).exists(), name


def test_no_line_installs_the_project_of_that_name_that_others_publish() -> None:
    found = [ROOT / "README.md", ROOT / "setup.cfg", ROOT / ".ci" / "run"]
    found += [path for folder in ("finetune", "tests", "data", "recipes") for path in (ROOT / folder).rglob("*")]
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
