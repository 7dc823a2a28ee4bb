"""Output that nobody reads, or that cannot be printed, ends no command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.commands import train
from finetune.commands.runner import run_command

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from finetune.commands.runner import run_command
from finetune.utils.errors import FinetuneError

def work():
    for number in range(20000):
        print("a line", number)
    print("ü ± a name of bytes: \\udcff")
    sys.stderr.write("a note\\n")
    open("done", "w").write("to the end")
    {last}

sys.exit(run_command(work))
"""


def run(folder: Path, last: str, redirected: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program, its last line put in, in a shell that redirects its output."""
    (folder / "program.py").write_text(PROGRAM.replace("{last}", last), encoding="utf-8")
    command = f"{sys.executable} program.py {redirected}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


LOST = "standard output is incomplete: it could not be written (No space left on device)\n"
FAULT = 'raise FinetuneError("x.yaml: a fault. A fix.")'


@pytest.mark.parametrize(
    ("redirected", "last", "status", "out", "error"),
    [
        ("| head -1; exit ${PIPESTATUS[0]}", "", 0, "a line 0\n", "a note\n"),
        (">&-", "", 0, "", "a note\n"),
        ("2>&- > /dev/null", "", 0, "", ""),
        ("2>&- | tail -1; exit ${PIPESTATUS[0]}", FAULT, 2, "finetune stopped: x.yaml: a fault. A fix.\n", ""),
        (">&- 2>&-", FAULT, 2, "", ""),
        ("2>&1 >/dev/full | cat; exit ${PIPESTATUS[0]}", "", 0, f"a note\n{LOST}", ""),
        (">/dev/full 2>/dev/full", "", 0, "", ""),
    ],
)
def test_a_stream_that_is_closed_ends_nothing(
    tmp_path: Path, redirected: str, last: str, status: int, out: str, error: str
) -> None:
    done = run(tmp_path, last, redirected)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, error)
    assert (tmp_path / "done").read_text() == "to the end"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
    ],
)
def test_a_letter_that_a_stream_lacks_is_spelled(tmp_path: Path, variables: dict[str, str]) -> None:
    done = run(tmp_path, "", "| tail -1; exit ${PIPESTATUS[0]}", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\\xfc \\xb1 a name of bytes: \\udcff\n"


def test_streams_are_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    assert run_command(lambda: print("said")) == 0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "said\n"


def test_a_wrong_call_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([])
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert (
        said[-1] == "finetune stopped: the following arguments are required: RECIPE. finetune train --help says more."
    )


def test_without_a_terminal_training_says_a_line_each_logged_step(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(recipe), "run.log_every_steps=2", "run.evaluate_every_steps=6", "export=[]"]) == 0
    said = capsys.readouterr()
    assert "\r" not in said.out + said.err
    lines = [line for line in said.out.splitlines() if line.startswith("step ") and " of 6: loss " in line]
    assert [line.split()[1] for line in lines] == ["2", "4", "6"]
    assert all(line.endswith(" left") and " images/s, " in line for line in lines)
