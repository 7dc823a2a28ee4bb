from typing import get_args

from finetune.data.checks.findings import JUDGMENTS, NAMES, Accepted, Finding, accept_findings, sort_findings


def test_the_worst_comes_first_and_a_cause_before_what_follows_from_it() -> None:
    found = [
        Finding(severity="note", name="step", key="run", evidence="a"),
        Finding(severity="stop", name="unit", key="data.train.0", evidence="b", fix="c"),
        Finding(severity="warn", name="files", key="data.train.0", evidence="d"),
        Finding(severity="stop", name="depth_is", key="data.train.0", evidence="e", fix="f"),
    ]
    assert [one.name for one in sort_findings(found)] == ["depth_is", "unit", "files", "step"]
    assert NAMES.index("depth_is") < NAMES.index("unit")


def test_a_finding_is_a_sentence_with_its_fix() -> None:
    finding = Finding(severity="stop", name="files", key="data.val.0", evidence="too far", fix="Set it")
    assert finding.sentence() == "data.val.0: too far. Set it."
    assert Finding(severity="note", name="step", key="", evidence="quick").sentence() == "quick."
    assert finding.to_mapping()["severity"] == "stop"


def test_a_judgment_says_how_it_is_accepted() -> None:
    found = [
        Finding(severity=severity, name=name, key="data.val.0", evidence="far", fix="Set it")  # type: ignore[arg-type]
        for severity, name in (("stop", "unit"), ("warn", "unit"), ("stop", "files"), ("note", "unit"))
    ]
    sentences = [one.sentence() for one in found]
    # What only warns says it too: else it returns with every launch.
    assert sentences[:2] == ["data.val.0: far. Set it. If it is as it should be, set data.accept: [unit]."] * 2
    assert sentences[2:] == ["data.val.0: far. Set it."] * 2
    after = accept_findings(found, ["unit", "files_are_no_judgment"])
    assert [one.severity for one in after] == ["note", "note", "stop", "note"]
    assert after[0].sentence() == "data.val.0: accepted by data.accept: far."


def test_data_accept_takes_every_judgment() -> None:
    assert get_args(Accepted) == JUDGMENTS
    assert set(JUDGMENTS) <= set(NAMES)
