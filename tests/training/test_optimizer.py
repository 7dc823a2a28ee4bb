import pytest

from finetune.training.optimizer import rate_factor, warmup_within


def test_poly_by_hand() -> None:
    assert rate_factor("poly", 0, 100, 0) == 1.0
    assert rate_factor("poly", 50, 100, 0) == pytest.approx(0.535887)  # 0.5 ** 0.9
    assert rate_factor("poly", 100, 100, 0) == 0.0


def test_cosine_and_constant_by_hand() -> None:
    assert rate_factor("cosine", 50, 100, 0) == pytest.approx(0.5)
    assert rate_factor("cosine", 100, 100, 0) == pytest.approx(0.0)
    assert rate_factor("constant", 99, 100, 0) == 1.0


def test_warmup_rises_linearly_and_never_starts_at_zero() -> None:
    factors = [rate_factor("constant", step, 100, 4) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_a_step_beyond_the_end_is_as_the_end(schedule: str) -> None:
    assert rate_factor(schedule, 150, 100, 0) == rate_factor(schedule, 100, 100, 0)


@pytest.mark.parametrize(
    ("given", "total_steps", "expected"),
    [(None, 5, 0), (None, 20, 2), (None, 499, 49), (None, 500, 50), (None, 10**6, 50), (0, 20, 0), (7, 20, 7)],
)
def test_a_warm_up_that_nothing_says_fits_the_run(given: int | None, total_steps: int, expected: int) -> None:
    assert warmup_within(given, total_steps) == expected
