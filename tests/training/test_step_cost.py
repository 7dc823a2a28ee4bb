import pytest
import torch

from finetune.training.step_cost import cost_sentence, describe_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 second"),
        (59.0, "about 59 seconds"),
        (119.0, "about 119 seconds"),
        (319.6, "about 5 minutes"),
        (7000.0, "about 117 minutes"),
        (7200.0, "about 2 hours"),
        (9000.0, "about 2.5 hours"),
        (36000.0, "about 10 hours"),
        (200000.0, "about 2.3 days"),
    ],
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert describe_duration(seconds) == words


def test_the_cost_of_a_run_is_one_clause() -> None:
    sentence = cost_sentence(0.799, 400, 1.26e9, torch.device("cpu"))
    assert sentence == "about 5 minutes for 400 steps, evaluation extra; peak memory 1.3 GB"
    assert cost_sentence(1.0, 1, 1e9, torch.device("cuda")) == (
        "about 1 second for 1 step, evaluation extra; peak GPU memory 1.0 GB"
    )
    assert cost_sentence(1.0, 1, 1e9, torch.device("cpu")).startswith("about 1 second for 1 step, ")
