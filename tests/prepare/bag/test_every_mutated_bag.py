"""Bags with wrong bytes: each is read, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.prepare.bag.source import open_bags
from finetune.utils.errors import FinetuneError
from tests.prepare.bag.test_source import TOPICS, recorded
from tests.prepare.bag.written_bags import KINDS, storage_file, write_bag

HEAD_BYTES = 6000  # where the description of topics is


@pytest.mark.parametrize("count", [pytest.param(8, id="few"), pytest.param(250, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_with_wrong_bytes(tmp_path: Path, kind: str, count: int) -> None:
    file = storage_file(write_bag(tmp_path / ("a.bag" if kind == "ros1" else "a"), kind, recorded(4)))
    original = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(count):
        data = bytearray(original)
        for _ in range(random.integers(1, 6)):
            data[random.integers(random.choice([HEAD_BYTES, len(data)]))] = random.integers(256)
        path = tmp_path / f"mutated{file.suffix}"
        path.write_bytes(data[: len(data) if random.random() < 0.8 else random.integers(len(data))])
        try:
            found = open_bags([path], TOPICS)
            for index in range(len(found.keys)):
                found.load_frame(index)
        except FinetuneError as error:
            assert "\n" not in str(error)
