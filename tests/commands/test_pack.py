"""The command: what it says, what it refuses, and the run that follows."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from finetune.commands import check, pack, train
from finetune.recipe.load import load_recipe
from tests.conftest import ROOT


def test_it_says_what_it_did_and_the_lines_to_read_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "packed"
    assert pack.main([str(recipe), "--output", str(output), "data.workers=1"]) == 0
    said = capsys.readouterr().out.splitlines()
    train_line, val_line, heading, *lines, last = said
    # JPEG of 48x64, smaller than the network sees them, are kept as they are.
    size = r"0\.\d MB of files -> 0\.\d MB in 1 shard \(\d\.\d\d of it\); as they were read"
    assert re.fullmatch(rf"data\.train\.0: 10 frames, {size}", train_line)
    assert re.fullmatch(rf"data\.val\.0: 3 frames, {size}", val_line)
    assert heading == "the lines of a recipe that read them:"
    entries = {part: [{"reader": "packed", "root": f"{output}/{part}_0"}] for part in ("train", "val")}
    assert yaml.safe_load("\n".join(lines)) == {"data": entries}
    assert last == f"train:       finetune train {output}/recipe.yaml"
    assert load_recipe(output / "recipe.yaml").data.workers == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--quality", "101"], "argument --quality: 101 is above 100"),
        (["--size", "half"], "argument --size: invalid choice: 'half'"),
        (["--images", "webp"], "argument --images: invalid choice"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        pack.main([str(recipe), "--output", str(tmp_path / "packed"), *words])
    assert stopped.value.code == 2
    assert f"finetune stopped: {expected}" in capsys.readouterr().err


def test_frames_that_a_run_will_skip_are_named(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.txt").write_text(f"{frames}/00.jpg {frames}/00.png\n{frames}/01.jpg {tmp_path}/gone.png\n")
    words = [str(recipe), "--output", str(tmp_path / "packed"), f"data.train.0.list={tmp_path}/some.txt"]
    assert pack.main(words) == 2
    assert capsys.readouterr().err.startswith(f"finetune stopped: {tmp_path}/some.txt:2: {tmp_path}/gone.png does not")
    assert pack.main([*words, "data.on_bad_sample=skip"]) == 0
    assert (
        f"  cannot be read, and is skipped by a run: {tmp_path}/some.txt:2: {tmp_path}/gone.png"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_a_run_from_packed_frames_ends_with_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    """10 JPEG of 48x64, which the network sees enlarged, so that they are packed as they are."""
    output = tmp_path / "packed"
    assert pack.main([str(recipe), "--output", str(output)]) == 0
    assert check.main([str(output / "recipe.yaml"), "--no-step"]) == 0
    assert train.main([str(recipe)]) == 0
    assert train.main([str(output / "recipe.yaml"), "data.workers=2"]) == 0
    before, after = (tmp_path / "runs" / name for name in ("small", "small_packed"))
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (before, after)]
    for row in (*rows[0], *rows[1]):
        row.pop("images_per_second")
    assert rows[0] == rows[1]
    assert (before / "evaluation.json").read_bytes() == (after / "evaluation.json").read_bytes()
    tensors = [(run / "best/model.safetensors").read_bytes() for run in (before, after)]
    # The metadata name the recipe and its data; what follows the header are the weights.
    weights = [content[8 + int.from_bytes(content[:8], "little") :] for content in tensors]
    assert weights[0] == weights[1]


SLOWLY = """
import sys, time
from finetune.commands import pack
from finetune.data.packing import shards
from finetune.prepare.packing import pack_entry
pack_entry.SHARD_BYTES = 10_000  # three frames
add = shards.ShardWriter.add
shards.ShardWriter.add = lambda *arguments: (time.sleep(0.1), add(*arguments))
sys.exit(pack.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_call_leaves_nothing_half_and_goes_on(recipe: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(5 * (frames / "train.txt").read_text())
    call = [sys.executable, "-c", SLOWLY, str(recipe), "--output", str(tmp_path / "out"), "--workers", "1"]
    call.append(f"data.train.0.list={tmp_path}/long.txt")
    hidden = tmp_path / ".out.packing" / "out" / "train_0"
    for number, status, said in (
        (signal.SIGINT, 130, "interrupted by SIGINT. The shards that are whole are kept: call again"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM. The shards that are whole are kept: call again"),
        (signal.SIGKILL, -9, ""),
    ):
        before = len(list(hidden.glob("shard*")))
        process = subprocess.Popen(call, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(list(hidden.glob("shard*"))) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == status, error
        assert said in error and "Traceback" not in error
        if number != signal.SIGKILL:
            assert not list(hidden.glob(".*"))
        assert not (tmp_path / "out").exists()
    assert subprocess.run(call, cwd=ROOT, check=False).returncode == 0
    assert len(load_recipe(tmp_path / "out" / "recipe.yaml").data.train[0].source) == 50
    assert not (tmp_path / ".out.packing").exists()
