from finetune.evidence.findings import NAMES, Finding, in_order


def test_the_worst_comes_first_and_a_cause_before_what_follows_from_it() -> None:
    found = [
        Finding(severity="note", name="step", key="run", evidence="a"),
        Finding(severity="stop", name="unit", key="data.train.0", evidence="b", fix="c"),
        Finding(severity="warn", name="files", key="data.train.0", evidence="d"),
        Finding(severity="stop", name="depth_is", key="data.train.0", evidence="e", fix="f"),
    ]
    assert [one.name for one in in_order(found)] == ["depth_is", "unit", "files", "step"]
    assert NAMES.index("depth_is") < NAMES.index("unit")


def test_a_finding_is_a_sentence_with_its_fix() -> None:
    finding = Finding(severity="stop", name="unit", key="data.val.0", evidence="too far", fix="Set it")
    assert finding.sentence() == "data.val.0: too far. Set it."
    assert Finding(severity="note", name="step", key="", evidence="quick").sentence() == "quick."
    assert finding.to_mapping()["severity"] == "stop"
