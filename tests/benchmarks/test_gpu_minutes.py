"""The one script for a GPU: its table survives being cut off, and it works on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.gpu_minutes import MEASURES, NOT_MEASURED, Row, Table, fill_table, list_rows
from tests.conftest import ROOT

MACHINE = {"device": "GPU, 80 GB", "torch": "2.11.0"}
ROWS = [Row(what="step", encoder=name, needs_s=20.0) for name in ("vits", "vitb", "vitl")]
FOUND = {"ms": 12.34, "images_per_s": 648.0, "peak_gb": 7.891, "note": "median of 9"}


def open_table(folder: Path, machine: dict[str, str] = MACHINE) -> Table:
    return Table.opened(folder, machine, "python script", ROWS)


def ticking(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


def test_a_row_is_on_disk_before_the_next_begins_and_a_second_start_goes_on(tmp_path: Path) -> None:
    measured: list[str] = []

    def measure(row: Row, limit_s: float) -> dict[str, Any]:
        if row.encoder == "vitl" and len(measured) == 2:
            raise KeyboardInterrupt  # the machine is taken away
        measured.append(row.name)
        return FOUND if row.encoder != "vitb" else {"failed": "OutOfMemoryError: of | GPU"}

    with pytest.raises(KeyboardInterrupt):
        fill_table(open_table(tmp_path), 1000.0, measure, lambda: 0.0)
    kept = json.loads((tmp_path / "table.json").read_text())
    assert list(kept["rows"]) == ["step vits", "step vitb"]
    assert (tmp_path / "table.md").read_text().splitlines()[-3:] == [
        "| step vits | 12.3 | 648.0 | 7.89 GB | median of 9 |",
        "| step vitb |  |  |  | failed: OutOfMemoryError: of / GPU |",
        f"| step vitl |  |  |  | {NOT_MEASURED} |",
    ]
    # What failed is tried again, what is known is not.
    fill_table(open_table(tmp_path), 1000.0, measure, lambda: 0.0)
    assert measured == ["step vits", "step vitb", "step vitb", "step vitl"]


def test_a_row_that_would_not_end_in_time_is_left_out(tmp_path: Path) -> None:
    limits: list[float] = []

    def measure(row: Row, limit_s: float) -> dict[str, Any]:
        limits.append(limit_s)
        return FOUND

    clock = ticking(15.0)
    # 45 s, of which 30 are left before the first row, and 15 before the second, which needs 20.
    fill_table(open_table(tmp_path), 45.0, measure, lambda: next(clock))
    assert limits == [30.0]
    assert (tmp_path / "table.md").read_text().count(NOT_MEASURED) == 2


def test_a_table_of_another_machine_is_refused(tmp_path: Path) -> None:
    fill_table(open_table(tmp_path), 0.0, lambda row, limit_s: FOUND, lambda: 0.0)
    with pytest.raises(SystemExit, match=r"measured with another torch\. Give another --output"):
        open_table(tmp_path, {**MACHINE, "torch": "2.12.0"})


@pytest.mark.parametrize("quick", [False, True])
def test_rows_have_names_of_their_own_and_a_way_to_be_measured(quick: bool) -> None:
    rows = list_rows(8, quick=quick)
    assert len({row.name for row in rows}) == len(rows)
    assert {row.what for row in rows} == {*MEASURES, "tests"}


def test_every_combination_of_a_step_is_there() -> None:
    steps = [row for row in list_rows(8, quick=False) if row.what == "step"]
    combinations = {(row.encoder, row.precision, row.train, row.compiled) for row in steps}
    assert len(combinations) == len(steps) == 3 * 2 * 2 * 2


@pytest.mark.slow
def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path) -> None:
    ended = call_script("--output", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr == "There is no GPU here. Rehearse with --device cpu --quick.\n"


@pytest.mark.slow
def test_every_row_works_on_the_cpu(tmp_path: Path) -> None:
    call = ("--output", str(tmp_path), "--device", "cpu", "--quick", "--budget-s", "3000")
    ended = call_script(*call)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert list(found) == [row.name for row in list_rows(2, quick=True)]
    assert "skipped" in found.pop("tests")["note"]
    assert all(row["images_per_s"] > 0 for row in found.values())
    before = (tmp_path / "table.md").read_bytes()
    assert call_script(*call).returncode == 0
    assert (tmp_path / "table.md").read_bytes() == before


def call_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "gpu_minutes.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
