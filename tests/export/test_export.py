"""What an export leaves on the disk: when it is done, killed, or out of room."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.export import official
from finetune.export.export import PREFIX, export_model
from finetune.inference.predictor import Predictor, load_model
from finetune.utils.errors import FinetuneError
from finetune.utils.files import move_into_place, write_error_reason
from finetune.utils.signals import Interrupted
from tests.small_models import write_adapted, write_model
from tests.utils.test_files import limited_files, names_in

HOLDS_A_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    return load_model(write_model(tmp_path / "model" / "m.safetensors"))


def instead_of_writing(monkeypatch: pytest.MonkeyPatch, action: Callable[[Path], None]) -> None:
    """``action`` once the official files are written aside."""
    write = official.Official.write

    def wrong(self: official.Official, predictor: Predictor, output: Path) -> None:
        write(self, predictor, output)
        action(output)

    monkeypatch.setattr(official.Official, "write", wrong)


@pytest.mark.parametrize(("umask", "of_files"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_have_the_mode_that_the_umask_asks_for(
    umask: int, of_files: int, model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As safetensors leaves them.
    instead_of_writing(monkeypatch, lambda output: output.chmod(0o600))
    before = os.umask(umask)
    try:
        export_model(model, "official", tmp_path / "out" / "m.pth")
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert found == {"m.pth": of_files, "m.json": of_files}


def test_a_folder_of_transformers_can_be_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.export import huggingface

    # transformers itself is not asked here: what is written, and what for, is the same without it.
    monkeypatch.setattr(huggingface.HuggingFace, "read", lambda self, output, device: load_model(output).predict)
    monkeypatch.setattr(huggingface.HuggingFace, "conclude", lambda self, *arguments: ())
    export_model(load_model(write_model(tmp_path / "m.safetensors")), "huggingface", tmp_path / "hf")
    mask = os.umask(0)
    os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "hf").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"] == 0o666 & ~mask
    assert set(modes.values()) == {0o666 & ~mask}
    assert stat.S_IMODE((tmp_path / "hf").stat().st_mode) == 0o777 & ~mask


def test_what_killed_exports_left_is_gone_with_the_next_one(model: Predictor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("killed", "alive", "being made", "of long ago"):
        (out / f"{PREFIX}{name}").mkdir(parents=True)
        (out / f"{PREFIX}{name}" / "weights").write_bytes(bytes(1000))
    (out / f"{PREFIX}killed" / "lock").touch()
    os.utime(out / f"{PREFIX}of long ago", (0, 0))
    (out / f"{PREFIX}link").symlink_to(tmp_path / "model", target_is_directory=True)
    command = [sys.executable, "-c", HOLDS_A_LOCK, str(out / f"{PREFIX}alive" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        export_model(model, "official", out / "m.pth")
        other.communicate("")
    kept = [f"{PREFIX}alive", f"{PREFIX}being made", f"{PREFIX}link"]
    assert names_in(out) == sorted([*kept, "m.json", "m.pth"])
    assert names_in(tmp_path / "model") == ["m.safetensors"]


def test_one_that_is_asked_to_end_leaves_nothing(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_writing(monkeypatch, lambda output: os.kill(os.getpid(), signal.SIGTERM))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Interrupted):
        export_model(model, "official", out / "m.pth")
    assert names_in(out) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("moment", [1, 2])
def test_one_that_is_asked_to_end_while_it_takes_its_names_leaves_what_stood_there(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    out, finishes = tmp_path / "out", itertools.count(1)
    out.mkdir()
    for name in ("m.json", "m.pth"):
        (out / name).write_text(f"older {name}")

    def move_and_interrupt(source: Path, target: Path) -> None:
        if next(finishes) == moment:
            os.kill(os.getpid(), signal.SIGTERM)
        move_into_place(source, target)

    monkeypatch.setattr("finetune.export.export.move_into_place", move_and_interrupt)
    with pytest.raises(Interrupted):
        export_model(model, "official", out / "m.pth", force=True)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "m.json": "older m.json",
        "m.pth": "older m.pth",
    }


@pytest.mark.parametrize("name", ["written", "lock", "before"])
def test_a_folder_of_any_name_is_replaced(
    name: str, tmp_path: Path, model: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.export import huggingface

    monkeypatch.setattr(huggingface.HuggingFace, "read", lambda self, output, device: load_model(output).predict)
    monkeypatch.setattr(huggingface.HuggingFace, "conclude", lambda self, *arguments: ())
    (tmp_path / name).mkdir()
    (tmp_path / name / "older").touch()
    export_model(model, "huggingface", tmp_path / name, force=True)
    assert "config.json" in names_in(tmp_path / name) and "older" not in names_in(tmp_path / name)


@pytest.mark.parametrize("to", ["official", "huggingface", "adapter"])
@pytest.mark.parametrize("max_bytes", [1, 3_000, 1_000_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(to: str, max_bytes: int, tmp_path: Path) -> None:
    model = load_model(write_adapted(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    sentence = r"out/m(\.pth)?: cannot be written \((File too large|No space left on device)\)\. Name an --output where"
    with limited_files(max_bytes), pytest.raises(FinetuneError, match=sentence):
        export_model(model, to, out / ("m.pth" if to == "official" else "m"))
    assert names_in(out) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 23104 vs 23056"), "No space left"),
        (OSError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), "Disk quota exceeded"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (RuntimeError("shape mismatch at pos 3"), None),
        (ValueError("failed writing a sentence"), None),
    ],
)
def test_what_libraries_make_of_a_full_disk(error: Exception, reason: str | None) -> None:
    found = write_error_reason(error)
    assert found is None if reason is None else (found or "").startswith(reason)


def test_onnxruntime_is_told_to_report_nothing_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import finetune
    from finetune.inference.exported import import_onnxruntime

    stub = tmp_path / "onnxruntime.py"
    stub.write_text("import os\nat_import = os.environ.get('ORT_DISABLE_TELEMETRY')\n"
                    "def disable_telemetry_events():\n    global disabled\n    disabled = True\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    imported: Any = None
    with monkeypatch.context() as inside:
        inside.delitem(sys.modules, "onnxruntime", raising=False)
        imported = import_onnxruntime()
        inside.delitem(sys.modules, "onnxruntime")
    assert (imported.at_import, imported.disabled) == ("1", True)
    package = Path(finetune.__file__).parent
    importing = [path.name for path in package.rglob("*.py") if "import onnxruntime" in path.read_text()]
    assert importing == ["exported.py"]
