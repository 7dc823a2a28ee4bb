from __future__ import annotations

import csv

from finetune.inference.pseudo_labels.label_table import COLUMNS, LabelRow, format_table


def test_a_line_comes_back_as_it_was_written() -> None:
    row = LabelRow(image="/in/a.png", label="labels/a.png", unit=0.1 + 0.2, residual=1e-17, refused='a "b", c')
    assert LabelRow.from_json(row.to_json()) == row


def test_the_table_holds_numbers_at_full_precision_and_nothing_where_nothing_is_known() -> None:
    rows = [
        LabelRow(image="/in/a, b.png", label="labels/a, b.png", confidence="confidence/a, b.png", unit=0.1 + 0.2),
        LabelRow(image="/in/c.png", refused='it has "no" point'),
    ]
    lines = "".join(format_table(rows, teacher="d1", anchor="sparse")).splitlines()
    assert lines[0] == "image,label,confidence,unit,teacher,anchor,scale,shift,inlier_share,residual,refused"
    first, second = csv.DictReader(lines)
    assert float(first["unit"]) == 0.1 + 0.2 and first["scale"] == "" and first["label"] == "labels/a, b.png"
    assert (second["label"], second["unit"], second["refused"]) == ("", "", 'it has "no" point')
    assert (second["teacher"], second["anchor"]) == ("d1", "sparse") and len(COLUMNS) == 11
