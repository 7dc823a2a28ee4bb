import argparse

import pytest

from finetune.utils.number_arguments import number, numbers, shard


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "a", "", "1,2"])
def test_one_number_above_0(text: str) -> None:
    assert number("a focal length")("2.5") == 2.5
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{text} is not a focal length$"):
        number("a focal length")(text)


def test_what_holds_may_be_another_rule() -> None:
    assert number("a time from 0 up", lambda found: found >= 0)("0") == 0.0
    assert numbers(2, "two sides", lambda found: min(found) >= 1)("3,4.5") == (3.0, 4.5)
    for text in ("3", "3,0", "3,4,5", "3,nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not two sides"):
            numbers(2, "two sides", lambda found: min(found) >= 1)(text)


@pytest.mark.parametrize("text", ["2/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "0/0", "1.0/2", "0/1/2"])
def test_parts_are_counted_from_0(text: str) -> None:
    assert (shard("0/3"), shard("2/3")) == ((0, 3), (2, 3))
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{text} is not I/N with I from 0 to N-1, such as 0/8$"):
        shard(text)
