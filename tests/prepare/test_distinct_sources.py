"""A recording that is named twice is refused, whatever its kind."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from finetune.prepare.distinct_sources import require_distinct
from finetune.prepare.kinds import bag, pairs, phone
from finetune.prepare.recording import RecordingKind
from finetune.utils.errors import ListError


def test_a_copy_under_another_name(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    for name in ("a", "b"):
        (tmp_path / name / "rgb").mkdir(parents=True)
        (tmp_path / name / "rgb" / "0.png").write_bytes(content)
        (tmp_path / f"{name}.bag").write_bytes(content)
    found = "holds the same as {}, which is named too, so its frames would count twice. Name one of the two."
    for one, other in (("a", "b"), ("a.bag", "b.bag")):
        with pytest.raises(ListError) as caught:
            require_distinct([tmp_path / one, tmp_path / other])
        assert str(caught.value) == f"{tmp_path / other}: {found.format(tmp_path / one)}"
    # One byte at the end, as of the same size.
    (tmp_path / "b.bag").write_bytes(content[:-1] + b"!")
    (tmp_path / "b" / "rgb" / "0.png").write_bytes(b"!" + content[1:])
    require_distinct([tmp_path / "a", tmp_path / "b", tmp_path / "a.bag", tmp_path / "b.bag"])
    require_distinct([tmp_path / "none", tmp_path / "nor_this"])


def test_equal_and_nested_sources(tmp_path: Path) -> None:
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.mkdir()
    two.mkdir()
    link.symlink_to(one)
    file = one / "a.db3"
    file.touch()
    require_distinct([one, two])
    require_distinct([file, one / "b.db3", two])
    require_distinct([one, tmp_path / "one_more"])
    for sources, words in (
        ([one, two, one], f"{one}: is named twice, so its frames would count twice. Name it once."),
        ([one, link], f"{link}: is the same as {one}, which is named too, so its frames would count twice."),
        ([one, file], f"{file}: is inside {one}, which is named too, so its frames would count twice."),
        ([file, link], f"{file}: is inside {link}, which is named too"),
    ):
        with pytest.raises(ListError) as caught:
            require_distinct(sources)
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize("kind", [bag, pairs, phone])
def test_kinds_of_several_sources_refuse_one_twice(tmp_path: Path, kind: RecordingKind) -> None:
    parser = argparse.ArgumentParser()
    kind.add_arguments(parser)
    with pytest.raises(ListError, match="is named twice"):
        kind.open_source(parser.parse_args([str(tmp_path), str(tmp_path)]))
