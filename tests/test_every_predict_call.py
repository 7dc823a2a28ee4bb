"""Whatever is in a folder, a list or a call of predict, it ends in sentences, and what can be done is done."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from finetune.commands.predict import main
from finetune.data.readers.listing import read_list
from finetune.inference.inputs import find_inputs
from finetune.utils.errors import FinetuneError, ListError
from tests.commands.test_predict import names, write_image
from tests.small_models import write_model


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "metric.safetensors"))


def test_a_folder_of_traps_is_done_but_for_them(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_image(folder / "good.png")
    of_latin_1 = write_image(folder / "x.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    too_long = write_image(folder / "y.png").rename(folder / ("z" * 250 + ".png"))
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "folder.png").mkdir()
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:100])
    os.mkfifo(folder / "pipe.png")  # nobody writes into it: who reads it waits without end
    assert main([metric, str(folder), "--output", str(out)]) == 1
    captured = capsys.readouterr()
    assert "2 of 9 images done" in captured.out
    faults = captured.err.splitlines()
    assert faults[0] == "finetune stopped: 7 faults"
    for name in ("loop", "gone", "folder", "empty", "cut", "pipe", too_long.stem):
        assert sum(f"{name}.png: " in line for line in faults[1:]) == 1, name
    assert len(names(out)) == 6
    assert np.load(out / f"{of_latin_1.stem}.npy").shape == (30, 44)


PIECES = [
    *("a.png", "b 1.png", "depth/a.png", '"b 1.png"', "'a.png'", "image", "depth", "fx", "fy,cx,cy", "写真.png"),
    *('"', "'", ",", ";", "\t", " ", "#", "~", "~nobody", "..", "/", "\\", "*", "[", "1", "-2.5e9", "1e999", "nan"),
    *("\n", "\r", "\r\n", "\f", "\v", "\x00", "\x1c", "\x85", "\u2028", "\xa0", "\ufeff", "\ud800", "x" * 300),
]


@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_random_lists_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    generator = np.random.default_rng(7)
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b 1.png")
    path, read, refused = tmp_path / f"list{ending}", 0, 0
    for _ in range(200):
        text = "".join(generator.choice(PIECES, generator.integers(1, 25)))
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(generator.integers(0, 3)):
            data[generator.integers(len(data))] = generator.integers(256)
        path.write_bytes(bytes(data))
        for read_it in (lambda: find_inputs([path], tmp_path / "out"), lambda: list(read_list(str(path)))):
            try:
                read_it()
                read += 1
            except FinetuneError as error:
                assert isinstance(error, ListError) or str(path) in str(error), error
                refused += 1
    assert min(read, refused) > 10, (read, refused)


OPTIONS = {
    "--range": ["auto", "0,5", "5,0", "-1,2", "nan,2", "0,inf", "1", "", "a,b", "0,1e999", "1e308,1.1e308"],
    "--png-units-per-meter": ["1000", "1e-300", "1e300", "nan", "inf", "-1", "0", "x", "1e999"],
    "--intrinsics": ["40,40,20,15", "1e9,1e9,20,15", "40,40,1e9,15", "nan,1,1,1", "0,0,0,0", "40,40", "1e-9,1,1,1"],
    "--intrinsics-size": ["44,30", "88,60", "0,0", "1e9,1e9", "-1,5", "1"],
    "--hfov": ["60", "0", "180", "179.9999999", "1e-12", "nan"],
    "--edge-filter": ["0.05", "0", "1e9", "nan"],
    "--max-points": ["5", "0", "1e300", "1.5", "-2"],
}
FLAGS = ["--points", "--flip", "--frames", "--skip-existing"]


def test_random_calls_end_in_sentences(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(3)
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    statuses = []
    for _ in range(25):
        call = [metric, str(image), "--output", str(out)]
        for name in generator.choice([*OPTIONS], generator.integers(0, 4), replace=False):
            call += [str(name), str(generator.choice(OPTIONS[name]))]
        call += generator.choice(FLAGS, generator.integers(0, 3), replace=False).tolist()
        try:
            status = main(call)
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr().err
        assert status in (0, 1, 2), call
        assert (status == 0) == (said == ""), (call, said)
        statuses.append(status)
    assert set(statuses) >= {0, 2}
    assert not [name for name in names(out) if "writing" in name]
