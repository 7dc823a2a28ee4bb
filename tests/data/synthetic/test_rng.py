"""Numbers that come out the same on every processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from finetune.data.synthetic.rng import Rng, square_root

ROOT = Path(__file__).resolve().parents[3]


def test_a_root_is_the_nearest_number_of_single_precision() -> None:
    # NumPy takes the processor's own instruction, which the standard binds to the nearest.
    for high in (1.0, 100.0, 1e12):
        value = Rng(0, range(4)).uniform(0.0, high, 500_000)
        np.testing.assert_array_equal(square_root(value).numpy(), np.sqrt(value.numpy()))
    assert torch.equal(square_root(torch.tensor([0.0, 0.25, 1e30])), torch.tensor([0.0, 0.5, 1e15]))


def test_no_other_root_is_taken_where_frames_are_drawn() -> None:
    files = [*(ROOT / "finetune" / "data" / "synthetic").glob("*.py"), ROOT / "data" / "room" / "make.py"]
    assert len(files) > 10
    taken = [
        line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines() if "sqrt(" in line
    ]
    assert [line for line in taken if "* sqrt(v + 0.13)" not in line and "sqrt(1/12)" not in line] == [
        "return value.double().sqrt().float()"
    ]
