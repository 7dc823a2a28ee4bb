from __future__ import annotations

from collections.abc import Mapping

import pytest

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import Chosen, EntryEvaluation, Evaluation
from finetune.reporting.text_table import ROW_MEANINGS, format_evaluation, format_evaluations

PLAIN = Protocol(name="plain", min_depth_m=0.001, max_depth_m=10.0)
FAR = Protocol(name="plain", min_depth_m=0.001, max_depth_m=80.0)
# Every metric of a row is this number, but the shares, which are 1 minus it.
ERRORS = {"constant_median": 0.5, "base_fitted_scale": 0.25, "finetuned": 0.125}


def scores(errors: Mapping[str, float] = ERRORS) -> dict[str, dict[str, float]]:
    return {
        row: {metric: 1 - error if metric in HIGHER_IS_BETTER else error for metric in METRICS}
        for row, error in errors.items()
    }


def evaluation(
    errors: Mapping[str, float] = ERRORS,
    protocol: Protocol = PLAIN,
    entries: Mapping[str, EntryEvaluation] | None = None,
    chosen: Chosen | None = None,
) -> Evaluation:
    """Three distances, at the second of which there is no pixel and at the last of which the first row is the best."""
    return Evaluation(
        protocol=protocol,
        rows=scores(errors),
        images_used=3,
        images_skipped=1,
        pixels_used=100,
        errors_mm={row: {"mean": 1000 * error, "median": 900.0, "p90": 2000.0} for row, error in errors.items()},
        bins={
            row: [
                {"from_m": 0.0, "to_m": 1.0, "pixels": 30, "abs_rel": error},
                {"from_m": 1.0, "to_m": 2.5, "pixels": 0, "abs_rel": None},
                {"from_m": 2.5, "to_m": 10.0, "pixels": 70, "abs_rel": 1 - error},
            ]
            for row, error in errors.items()
        },
        entries=entries or {},
        chosen=chosen,
    )


def lines_of(found: str, title: str) -> list[list[str]]:
    """Heads and rows below a title, as words."""
    lines = found.splitlines()
    start = next(i for i, line in enumerate(lines) if title in line)
    return [line.split() for line in lines[start + 1 : start + 2 + len(ERRORS)]]


def numbers_of(found: str) -> list[str]:
    return sorted(word for word in found.split() if word not in ERRORS)


def test_the_best_of_a_column_is_marked_whether_low_or_high() -> None:
    found = format_evaluation(evaluation(), 80)
    heads, *rows = lines_of(found, "error, lower is better")
    assert heads == ["AbsRel", "SqRel", "m", "RMSE", "m", "RMSElog", "log10", "SILog"]
    assert rows == [
        ["constant_median", *["0.5000"] * 6],
        ["base_fitted_scale", *["0.2500"] * 6],
        ["finetuned", *["0.1250*"] * 6],
    ]
    heads, *rows = lines_of(found, "share, higher is better")
    assert heads[:3] == ["delta1", "delta2", "delta3"]
    assert [row[1:4] for row in rows] == [["0.5000"] * 3, ["0.7500"] * 3, ["0.8750*"] * 3]
    assert "* best of its column. deltaN: share of pixels within a factor of 1.25^N.\n" in found
    assert "\nNo unit: RMSElog and SILog (times 100) by natural, log10 by decimal logarithms.\n" in found


def test_values_that_read_the_same_are_all_the_best_and_one_row_has_no_rival() -> None:
    found = format_evaluation(evaluation({"base": 0.5, "finetuned": 0.12500001, "last": 0.125}), 80)
    _, *rows = lines_of(found, "error, lower is better")
    assert [row[1] for row in rows] == ["0.5000", "0.1250*", "0.1250*"]
    assert "*" not in format_evaluation(evaluation({"finetuned": 0.125}), 80)


def test_distances_and_millimeters_are_tables_of_their_own() -> None:
    found = format_evaluation(evaluation(), 80)
    heads, *rows = lines_of(found, "AbsRel by measured distance, over the pixels of all images")
    assert heads == ["0-1", "m", "2.5-10", "m"]
    assert rows == [
        ["constant_median", "0.5000", "0.5000*"],
        ["base_fitted_scale", "0.2500", "0.7500"],
        ["finetuned", "0.1250*", "0.8750"],
    ]
    heads, *rows = lines_of(found, "|error| of an image, mm")
    assert heads[3:] == ["mean", "median", "p90"]
    assert rows[2][4:] == ["125.0*", "900.0*", "2000.0*"]
    assert "mm" not in format_evaluation(evaluation(protocol=FAR), 80)


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_tables_share_lines_where_the_terminal_is_wide(columns: int) -> None:
    found = format_evaluation(evaluation(), columns)
    head, _, *lines = found.splitlines()
    assert head.endswith("; 3 images used, 1 skipped, 100 pixels")
    assert max(map(len, lines)) <= columns
    assert sum("constant_median" in line for line in lines) == {80: 3, 120: 2, 200: 1}[columns]
    # Whatever shares a line, the numbers are the same.
    narrow = format_evaluation(evaluation(), 80)
    assert numbers_of(found) == numbers_of(narrow)


def test_numbers_end_where_their_head_ends() -> None:
    lines = format_evaluation(evaluation(), 80).splitlines()
    start = lines.index(next(line for line in lines if "error, lower is better" in line))
    heads, *rows = lines[start + 1 : start + 5]
    ends = [heads.index(head) + len(head) for head in ("AbsRel", "SqRel m", "RMSE m", "RMSElog", "log10")]
    assert all(row[end - 1].isdigit() and row[end : end + 1] in ("", " ", "*") for row in rows for end in ends)


def test_rows_without_alignment_have_scores_alone() -> None:
    errors = {"finetuned": 0.125, "finetuned_unaligned": 0.25}
    found = format_evaluations([evaluation(errors)], 200)
    assert [sum(line.startswith(row) for line in found.splitlines()) for row in ("finetuned ", "finetuned_un")] == [
        2,
        1,
    ]
    assert "  finetuned_unaligned  the row of that name without the protocol's alignment" in found


def test_an_entry_has_its_table_and_one_without_images_has_none() -> None:
    entries = {
        "data.val.0": EntryEvaluation(rows=scores({"finetuned": 0.75}), images_used=2, images_skipped=1, pixels_used=9),
        "data.val.1": EntryEvaluation(rows={}, images_used=0, images_skipped=4, pixels_used=0),
    }
    found = format_evaluation(evaluation(entries=entries), 80)
    first, second = (
        found.index("data.val.0: 2 images used, 1 skipped"),
        found.index("data.val.1: 0 images used, 4 skipped"),
    )
    assert "0.7500" in found[first:second]
    assert found[second:].count("\n") == 0


def test_each_row_is_explained_once_below_all_protocols() -> None:
    chosen = Chosen(evaluations=4, step=20, on="data.val", shown=True)
    found = format_evaluations([evaluation(chosen=chosen), evaluation(chosen=chosen, protocol=FAR)], 80)
    tables, _, legend = found.partition("\n\nrows:\n")
    assert tables == "\n\n".join(format_evaluation(evaluation(protocol=one), 80) for one in (PLAIN, FAR))
    *meanings, last = legend.splitlines()
    assert meanings == [f"  {row:17}  {ROW_MEANINGS[row]}" for row in ERRORS]
    assert last == f"{chosen}."
    assert all(len(line) <= 80 for line in meanings)


def test_the_fitted_base_is_explained_by_what_was_fitted() -> None:
    metric = format_evaluations([evaluation({"base": 0.5, "base_fitted_scale": 0.25})], 80)
    assert "  base_fitted_scale  that checkpoint with one scale fitted to the training frames" in metric
    aligned = Protocol(name="plain+align=scale_shift_inverse", min_depth_m=0.1, max_depth_m=10.0, kind="relative")
    relative = format_evaluations([evaluation({"base_fitted_scale": 0.25}, aligned)], 80)
    assert "  base_fitted_scale  the checkpoint before training\n" in f"{relative}\n"
