from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.recipe.yaml_source import Document, nearest, plain_scalar, read_document, spelled, yaml_text
from finetune.utils.errors import RecipeFaults


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path: Path, text: str, *overrides: str) -> Document:
    return read_document(write(tmp_path, text), overrides)


def faults(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    return [fault.replace(f"{tmp_path}/", "") for fault in read(tmp_path, text, *overrides).sorted_faults()]


def refusal(path: Path) -> str:
    with pytest.raises(RecipeFaults) as caught:
        read_document(path)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0].replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300", 300),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("5e-6", 5e-6),
        ("5E-6", 5e-6),
        ("5.0e-6", 5e-6),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # YAML 1.1 reads these as 10, 90, true and 1000.
        ("012", "012"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("2024-05-01", "2024-05-01"),
        ("=", "="),
        ("e5", "e5"),
        (".", "."),
        ("nan", "nan"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


def test_not_finite_is_a_number_to_yaml_only() -> None:
    assert plain_scalar(".inf") == math.inf
    assert plain_scalar("-.INF") == -math.inf
    assert math.isnan(float(plain_scalar(".NaN") or 0))


def test_values_and_their_places(tmp_path: Path) -> None:
    document = read(tmp_path, "a:\n  b: [1,\n      {c: x}]\n# a comment\nd: '1'\n")
    assert document.values == {"a": {"b": [1, {"c": "x"}]}, "d": "1"}
    lines = {key: place.rank for key, place in document.places.items()}
    assert lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", 0): 2,
        ("a", "b", 1): 3,
        ("a", "b", 1, "c"): 3,
        ("d",): 5,
    }
    assert document.place(("a", "b", 1, "zzz")).text == f"{tmp_path}/x.yaml:3"
    assert not document.faults


def test_duplicate_keys_anywhere(tmp_path: Path) -> None:
    text = "a: 1\nb:\n  - {c: 5e-6, d: 1, c: [2]}\na: 'x'\n"
    assert faults(tmp_path, text) == [
        "x.yaml:3: b.0.c is given twice, as 5e-6 (x.yaml:3) and as a list; keep one.",
        "x.yaml:4: a is given twice, as 1 (x.yaml:1) and as 'x'; keep one.",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ${STEPS}", 300),
        ("a: ${NONE:-1e-5}", 1e-5),
        ("a: '${STEPS}'", "300"),
        ('a: "${STEPS}"', "300"),
        ("a: ${HOME_OF}/room", "/mnt/data/room"),
        ("a: ${HOME_OF}/${STEPS}/${NONE:-x y: z}", "/mnt/data/300/x y: z"),
        ("a: {b: ${HOME_OF}/c, d: [${STEPS}, ${NONE:-}]}", {"b": "/mnt/data/c", "d": [300, None]}),
        ("a: ${EMPTY:-7}", 7),
        ("a: ${EMPTY}", None),
        ("a: 1  # ${NOT_SET} is only mentioned", 1),
        ("a: $STEPS", "$STEPS"),
    ],
)
def test_variables(text: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "300")
    monkeypatch.setenv("HOME_OF", "/mnt/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NONE", raising=False)
    document = read(tmp_path, text)
    assert document.values == {"a": value}
    assert type(document.values["a"]) is type(value)
    assert not document.faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("b: 1\na: x/${DEPTH_ROT}", "2: a is 'x/${DEPTH_ROT}'; DEPTH_ROT is not set; set it or write "
         "${DEPTH_ROT:-default}. Did you mean DEPTH_ROOT?"),
        ("a: [1,\n ${QQQQ}]", "2: a.1 is '${QQQQ}'; QQQQ is not set; set it or write ${QQQQ:-default}."),
        ("a: ${DEPTH_ROOT", "1: a is '${DEPTH_ROOT'; expected ${NAME} or ${NAME:-default}, closed on the same line."),
        ("a: ${1X}", "1: a is '${1X}'; expected ${NAME} or ${NAME:-default}, not ${1X}."),
        ("a: ${X-1}", "1: a is '${X-1}'; expected ${NAME} or ${NAME:-default}, not ${X-1}."),
        ("a: ${TWICE}", "1: a is '${TWICE}'; the value of TWICE contains ${, which would be another variable; "
         "write it out."),
        ("${DEPTH_ROOT}: 1", "1: ${DEPTH_ROOT} cannot be a key; expected a plain word."),
        ("a: .nan", "1: a is .nan; expected a finite number."),
        ("a: {b: 1e999}", "1: a.b is 1e999; expected a finite number."),
        ("[1]: 2", "1: a list cannot be a key; expected a plain word."),
    ],
)  # fmt: skip
def test_scalars_that_cannot_be_read(text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTH_ROOT", "/mnt")
    monkeypatch.setenv("TWICE", "${DEPTH_ROOT}")
    monkeypatch.delenv("QQQQ", raising=False)
    assert faults(tmp_path, text) == [f"x.yaml:{fault}"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\nb: c: d\n", 2, "mapping values are not allowed here"),
        ("a:\n\tb: 1\n", 2, "found character '\\t' that cannot start any token"),
        ("a: &x 1\nb: *x\n", 1, "anchors and aliases (& and *) are not used in recipes"),
        ("a: 1\nb: {<<: *x}\n", 2, "anchors and aliases (& and *) are not used in recipes"),
        ("a: 1\nb: !!float 1\n", 2, "tags such as tag:yaml.org,2002:float are not used in recipes"),
        ("a: 1\n---\na: 2\n", 2, "expected a single document"),
        ("a: 1\nb: '\x07'\n", 2, "'\\x07' is not allowed"),
        ("a: " + "[" * 5000, 1, "brackets and indented blocks are nested too deeply"),
    ],
)
def test_text_that_is_not_a_recipe_in_yaml(text: str, line: int, said: str, tmp_path: Path) -> None:
    sentence = refusal(write(tmp_path, text))
    assert sentence.startswith(f"x.yaml:{line}: cannot be read as YAML: ")
    assert said in sentence
    assert sentence.endswith("Look at the indentation, quotes and brackets here and just above.")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    write(tmp_path, "a: 1")
    assert refusal(tmp_path / "y.yaml") == "y.yaml: no such file. Did you mean x.yaml?"
    assert (
        refusal(tmp_path / "none" / "y.yaml") == "y.yaml: no such file. Name a recipe, such as recipes/room_tiny.yaml."
    )
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == "folder: is a folder; expected a YAML file."
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    assert refusal(tmp_path / "latin.yaml") == "latin.yaml:2: is not UTF-8 text; save the file as UTF-8."
    for text, found in (("", "is empty"), ("# only\n", "is empty"), ("- 1\n", "is a list at its top level")):
        expected = "expected a mapping with model, data and more"
        assert refusal(write(tmp_path, text)) == f"x.yaml: {found}; {expected}."
    assert "U+E000" in refusal(write(tmp_path, "a: \ue000"))


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: ${X\r\n")
    document = read_document(path)
    assert document.values["a"] == 1
    assert document.faults[0].place.rank == 2


def test_overrides_replace_and_add(tmp_path: Path) -> None:
    text = "optim: {lr: 1.0}\nloss:\n  - {kind: silog}\n  - {kind: l1}\n"
    document = read(
        tmp_path,
        text,
        "optim.lr=1e-5",
        "optim.betas=[0.9, 0.95]",
        "loss.1={kind: silog, lam: 0.5}",
        "run.steps=3",
        "z=",
    )
    assert document.values == {
        "optim": {"lr": 1e-5, "betas": [0.9, 0.95]},
        "loss": [{"kind": "silog"}, {"kind": "silog", "lam": 0.5}],
        "run": {"steps": 3},
        "z": None,
    }
    assert not document.faults
    on_command_line = {key for key, place in document.places.items() if place.text == "command line"}
    assert on_command_line == {
        ("optim", "lr"),
        ("optim", "betas"),
        ("optim", "betas", 0),
        ("optim", "betas", 1),
        ("loss", 1),
        ("loss", 1, "kind"),
        ("loss", 1, "lam"),
        ("run",),
        ("run", "steps"),
        ("z",),
    }
    assert document.place(("loss", 0, "kind")).text == f"{tmp_path}/x.yaml:3"


def test_an_override_takes_the_place_and_the_faults_of_what_it_replaces(tmp_path: Path) -> None:
    text = "data:\n  root: ${NOT_SET_ANYWHERE}\n  more: {a: 1, a: 2}\nother: ${NOT_SET_ANYWHERE}\n"
    document = read(tmp_path, text, "data={root: /mnt}")
    assert document.values["data"] == {"root": "/mnt"}
    assert [fault.path for fault in document.faults] == [("other",)]
    assert ("data", "more") not in document.places


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["seed"], "'seed' is not an override; expected key=value, such as optim.lr=1e-5."),
        (["=3"], "'=3' is not an override; expected key=value, such as optim.lr=1e-5."),
        (["optim..lr=3"], "'optim..lr=3' is not an override; expected key=value, such as optim.lr=1e-5."),
        (["loss.2.weight=1"], "loss.2.weight leads nowhere: loss has the entries 0 to 1, not 2."),
        (["loss.silog.weight=1"], "loss.silog.weight leads nowhere: loss has the entries 0 to 1, not silog."),
        (["loss.-1=1"], "loss.-1 leads nowhere: loss has the entries 0 to 1, not -1."),
        (["empty.0=1"], "empty.0 leads nowhere: empty is empty, not 0."),
        (["optim.lr.x=1"], "optim.lr.x leads nowhere: optim.lr is 1.0, which has no keys."),
        (["seed=1", "seed=2"], "seed is given twice, here 2; keep one."),
        (["optim.lr=1", "optim={lr: 2}"], "optim and optim.lr are both given, here '{lr: 2}'; keep one."),
        (["optim={lr: 2}", "optim.lr=1"], "optim.lr and optim are both given, here 1; keep one."),
        (["seed=[1"], "seed is '[1', which cannot be read as YAML: while parsing a flow sequence, expected ',' or ']', "
         "but got '<stream end>'. Look at the indentation, quotes and brackets here and just above."),
        (["optim={lr: 1, lr: 2}"], "optim.lr is given twice, as 1 (command line) and as 2; keep one."),
        (["seed=${QQQQ}"], "seed is '${QQQQ}'; QQQQ is not set; set it or write ${QQQQ:-default}."),
    ],
)  # fmt: skip
def test_overrides_that_lead_nowhere(overrides: list[str], fault: str, tmp_path: Path) -> None:
    text = "optim: {lr: 1.0}\nloss:\n  - {kind: silog}\n  - {kind: l1}\nseed: 0\nempty: []\n"
    assert faults(tmp_path, text, *overrides) == [f"command line: {fault}"]


def test_faults_stand_in_order_of_line_and_each_on_one_line(tmp_path: Path) -> None:
    found = faults(tmp_path, 'b: .inf\nc: {d: 1, d: 2}\n"e\\nf": .nan\n', "seed")
    assert [fault.split(" ")[0] for fault in found] == ["x.yaml:1:", "x.yaml:2:", "x.yaml:3:", "command"]
    assert not any("\n" in fault for fault in found)


AWKWARD_TEXT = [
    "",
    " padded ",
    "yes",
    "012",
    "1:30",
    "1e-5",
    "0o17",
    ".inf",
    "null",
    "~",
    "2024-05-01",
    "a: b",
    "- a",
    "#5",
    "{x}",
    "[x]",
    "it's",
    'say "x"',
    "two\nlines\n",
    "tab\there",
    "C:\\data",
    "größe",
    "\U0001f600",
    "\x85\u2028",
    "@x",
    "*x",
    "&x",
    "!x",
    "%x",
    "x" * 300,
]


def test_text_survives_writing_and_reading(tmp_path: Path) -> None:
    values: dict[str, Any] = {"block": AWKWARD_TEXT, "flow": {f"k{i}": [text] for i, text in enumerate(AWKWARD_TEXT)}}
    text = yaml_text(values)
    assert read(tmp_path, text).values == values
    assert yaml.safe_load(text) == values


def test_floats_survive_to_the_last_bit(tmp_path: Path) -> None:
    bits = [0x3FB999999999999A + step * 0x0012345678ABCDEF for step in range(-100, 100)]
    floats = [struct.unpack("<d", struct.pack("<Q", pattern & 0xFFFFFFFFFFFFFFFF))[0] for pattern in bits]
    values = {"floats": [x for x in floats if math.isfinite(x)] + [0.1, 5e-6, 1e-5, 1e16, 1e22, 5e-324, -0.0, 3.0]}
    assert len(values["floats"]) > 150
    text = yaml_text(values)
    parsed: Any
    for parsed in (read(tmp_path, text).values, yaml.safe_load(text)):
        assert list(map(repr, parsed["floats"])) == list(map(repr, values["floats"]))


def test_layout_of_written_yaml() -> None:
    values: dict[str, Any] = {
        "name": "x",
        "short": {"lr": 5e-6, "n": None, "on": True},
        "long": {f"key_{i:02}": [i, "text"] for i in range(10)},
        "entries": [{"kind": "silog", "weight": 1.0}, {f"key_{i:02}": i for i in range(12)}],
        "list": [],
    }
    lines = yaml_text(values).splitlines()
    assert lines[:2] == ["name: x", "short: {lr: 5.0e-6, n: null, 'on': true}"]
    assert lines[2:4] == ["long:", "  key_00: [0, text]"]
    assert lines[13:17] == ["entries:", "  - {kind: silog, weight: 1.0}", "  - key_00: 0", "    key_01: 1"]
    assert lines[-1] == "list: []"
    assert max(map(len, lines)) <= 120
    # One line is used up to its 120th column: "k: [" and "]" leave 115.
    assert yaml_text({"k": ["x" * 115]}) == f"k: [{'x' * 115}]\n"
    assert yaml_text({"k": ["x" * 116]}) == f"k:\n  - {'x' * 116}\n"


def test_spelled() -> None:
    assert spelled({"a": [1, 2.5e-6, None, True, "x"]}) == "{a: [1, 2.5e-6, null, true, 'x']}"
    assert spelled(Path("a/b")) == "'a/b'"
    assert spelled("x" * 100) == "'" + "x" * 56 + "..."


def test_nearest() -> None:
    assert nearest("lamda", ["weight", "lam"]) == "lam"
    assert nearest("ViTS", ["tiny", "vits"]) == "vits"
    assert nearest("zzz", ["weight", "lam"]) is None
