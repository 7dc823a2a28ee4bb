"""What a run cannot log is one sentence, and no thread of TensorBoard's prints a traceback."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.commands.runner import run_command
from finetune.recipe.run_dir import RunFolder
from finetune.training.run_log import RunLog
from finetune.utils.errors import FinetuneError
from tests.normal_user import as_normal_user

NO_FRAMES: Any = []
NO_TRACKERS: Any = SimpleNamespace(log_row=lambda *_: None, close=lambda *_: None)


def open_log(folder: Path) -> RunLog:
    return RunLog(
        RunFolder(folder), [], step=0, total_steps=1, validation=NO_FRAMES, max_depth_m=1.0, trackers=NO_TRACKERS
    )


def test_a_closed_folder_of_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").mkdir(mode=0o555)
    with (
        as_normal_user(),
        pytest.raises(FinetuneError, match=r"tensorboard: cannot be written \(Permission denied\)\."),
    ):
        open_log(tmp_path)
    (tmp_path / "tensorboard").chmod(0o755)
    log = open_log(tmp_path)
    (tmp_path / "tensorboard" / "base").mkdir()
    (tmp_path / "tensorboard" / "base" / "old").touch()
    (tmp_path / "tensorboard" / "base").chmod(0o555)
    with as_normal_user(), pytest.raises(FinetuneError, match=r"base: cannot be written \(Permission denied\)\."):
        log.log_baselines({"base": {"abs_rel": 0.1}})
    log.close()
    assert capsys.readouterr().err == ""


def test_a_link_in_place_of_the_folder_of_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").symlink_to("tensorboard")
    with pytest.raises(FinetuneError, match=r"tensorboard is a link to a folder that is missing"):
        open_log(tmp_path)


def test_a_pipe_in_place_of_the_rows_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "metrics.csv")
    assert run_command(lambda: open_log(tmp_path).close()) == 2
    assert "metrics.csv: is a pipe, not a file. Name another path" in capsys.readouterr().err


def test_a_current_folder_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run_command(lambda: RunFolder(Path("runs/one")).require_free(resume=False, overwrite=False)) == 2
    assert capsys.readouterr().err.startswith("finetune stopped: The current folder was deleted")


def test_a_path_in_bytes_and_a_pipe_are_named_as_others(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: OSError) -> None:
        raise error

    assert run_command(lambda: fail(OSError(errno.EACCES, "Permission denied", b"/data/x"))) == 2
    assert capsys.readouterr().err.startswith("finetune stopped: /data/x: Permission denied. Name another path")
    assert run_command(lambda: fail(OSError(errno.ENXIO, "no process reads this pipe", "/data/p"))) == 2
    assert capsys.readouterr().err.startswith("finetune stopped: /data/p: no process reads this pipe. Name another")
