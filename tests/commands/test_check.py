"""The command: what it prints, writes and ends with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.commands import check
from tests.conftest import ROOT


def test_a_sound_recipe_ends_with_0_and_files(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "new" / "found.json", tmp_path / "new" / "found.html"]
    assert check.main([str(recipe), "--no-step", "--json", str(files[0]), "--html", str(files[1])]) == 0
    said = capsys.readouterr().out
    assert "entry         frames  looked at  height x width  focal px  valid" in said
    assert f"{recipe}: no problems found" in said
    assert "NOTE  max_depth: data.train.0: 99.5 % of the measured depth ends at" in said
    content = json.loads(files[0].read_text())
    assert content["recipe"] == str(recipe)
    assert {"findings", "entries", "notes", "step", "verdict"} <= content.keys()
    assert files[1].read_text().startswith("<!doctype html>")


def test_a_fault_ends_with_1_and_a_wrong_call_with_2(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(recipe), "data.train.0.meters_per_unit=1.0", "--no-step"]) == 1
    said = capsys.readouterr().out
    assert "STOP  unit: data.train.0: " in said
    assert "Set data.train.0.meters_per_unit: 0.001" in said
    assert "1 problem to fix before a run" in said
    assert check.main([str(recipe), "data.trian=1", "--no-step"]) == 2
    assert "Did you mean train?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        check.main([str(recipe), "--samples", "0"])
    assert stopped.value.code == 2


def test_a_file_that_cannot_be_written_is_one_sentence(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(recipe), "--no-step", "--samples", "2", "--json", str(recipe / "no.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_help_is_quick_and_imports_no_torch() -> None:
    code = "import sys\nfrom finetune.__main__ import main\ntry:\n main(['check', '--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip().endswith("False")


@pytest.mark.skipif(not shutil.which("chromium"), reason="install chromium to look at the page")
def test_the_page_opens_without_network_and_without_errors(recipe: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    assert check.main([str(recipe), "--no-step", "--html", str(page)]) == 0
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<figure>") == 6
    assert dom.count("<rect") == 80
