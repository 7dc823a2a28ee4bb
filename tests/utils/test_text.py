import pytest

from finetune.recipe.schema import RunOptions
from finetune.recipe.validate import option_fields
from finetune.utils.text import count_noun, meters, nearest, percent, similarity


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("steps", "steps", 1.0),
        ("stpes", "steps", 0.8),  # two letters that changed places are one slip of five
        ("step", "steps", 0.96),  # it begins so: 0.8, and 0.2 of 4 / 5
        ("lamda", "lambda", 5 / 6),
        ("abc", "xyz", 0.0),
        ("", "a", 0.0),
        ("max_depth", "max_depth_m", 0.8 + 0.2 * 9 / 11),
        ("ca", "abc", 0.0),  # no letter in two slips: three of them
    ],
)
def test_similarity_by_hand(left: str, right: str, expected: float) -> None:
    assert similarity(left, right) == pytest.approx(expected)
    assert similarity(right, left) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stpes", "steps"),
        ("step", "steps"),
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("batchSize", "batch_size"),
        ("batch-size", "batch_size"),
        ("evaluateEverySteps", "evaluate_every_steps"),
        ("batch", "batch_size"),
        ("btach_size", "batch_size"),
        ("evalute_every_steps", "evaluate_every_steps"),
        ("Threads", "threads"),
        ("zzz", None),
        ("x" * 5000, None),
    ],
)
def test_what_was_meant_by_a_key_of_run(word: str, expected: str | None) -> None:
    assert nearest(word, list(option_fields(RunOptions))) == expected


@pytest.mark.parametrize("word", ["checkpoint-max-depth-m", "checkpointMaxDepthM", "checkpoint_max_depth"])
def test_a_key_in_another_style_is_not_the_shorter_one_that_it_begins_with(word: str) -> None:
    assert nearest(word, ["checkpoint", "checkpoint_kind", "checkpoint_max_depth_m"]) == "checkpoint_max_depth_m"


def test_of_two_that_are_as_near_it_is_the_first() -> None:
    assert nearest("data.tran", ["data.trani", "data.train"]) == "data.trani"
    assert nearest("ab", ["ac", "ad"]) == "ac"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (8 / 76800, "0.01%"),
        (1 / 76800, "0.0013%"),
        (0.0005, "0.05%"),
        (0.0099, "0.99%"),
        (0.01, "1%"),
        (0.123, "12%"),
        (1.0, "100%"),
        (1e-9, "0.0000001%"),
    ],
)
def test_a_share_below_one_percent_has_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("depth_m", "digits", "text"),
    [
        (0.02781, 3, "0.0278 m"),
        (999.4, 3, "999 m"),
        (1489.6, 3, "1490 m"),
        (65.535, 4, "65.53 m"),
        (6695.2, 4, "6695 m"),
        (123456.0, 3, "123456 m"),
        (3.4028e38, 4, "3.403e+38 m"),
        (0.0, 3, "0 m"),
    ],
)
def test_whole_meters_are_written_in_full(depth_m: float, digits: int, text: str) -> None:
    assert meters(depth_m, digits) == text


def test_one_thing_is_singular() -> None:
    assert [count_noun(count, "step") for count in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert count_noun(2, "process") == "2 processes"
