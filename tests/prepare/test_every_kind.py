"""What every kind of recording holds: its help is quick, its example is a call, and a wrong source leaves nothing."""

import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from finetune.commands import prepare
from finetune.prepare.kinds import KINDS
from tests.conftest import ROOT

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def test_every_module_of_a_kind_is_listed() -> None:
    modules = {path.stem for path in (ROOT / "finetune" / "prepare" / "kinds").glob("*.py")} - {"__init__"}
    assert modules == set(KINDS)


@EVERY_KIND
def test_the_example_is_a_call_of_the_kind(kind: str) -> None:
    words = shlex.split(KINDS[kind].example)
    assert words[:3] == ["finetune", "prepare", kind]
    parser = prepare.make_parser(kind, import_module(f"finetune.prepare.kinds.{kind}"))
    assert parser.parse_args(words[3:]).output == Path("data/mine")


@EVERY_KIND
def test_a_source_that_is_missing_is_one_sentence_and_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the example names files that are not here
    assert prepare.main(shlex.split(KINDS[kind].example)[2:]) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_of_every_kind_imports_no_torch() -> None:
    code = "import sys\nfrom finetune.__main__ import main\n"
    code += f"for kind in {list(KINDS)}:\n try:\n  main(['prepare', kind, '--help'])\n except SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip().endswith("False")
