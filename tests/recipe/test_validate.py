from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from finetune.recipe.validate import Checker, Contradiction, Names, OnDisk, expected, option_fields, plain_values
from finetune.recipe.yaml_source import WRONG, Document, read_document
from finetune.utils.errors import ListError, RecipeError

OPTIONS = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Inner:
    size: int = 3


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Every:
    flag: bool
    count: int
    share: Annotated[float, Field(ge=0, le=1)]
    decay: Annotated[float, Field(ge=0, lt=1)]
    rate: Annotated[float, Field(gt=0, le=1)]
    between: Annotated[float, Field(gt=0, lt=1)]
    positive: Annotated[float, Field(gt=0)]
    negative: Annotated[float, Field(lt=0)]
    at_least: Annotated[int, Field(ge=1)]
    at_most: Annotated[int, Field(le=9)]
    text: str
    word: Annotated[str, Field(min_length=1)]
    path: Path
    choice: Literal["a", "b"]
    only: Literal["a"] | None
    maybe: Annotated[float, Field(gt=0)] | None
    either: int | str
    pair: tuple[int, int]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    some: Annotated[list[str], Field(min_length=2)]
    choices: tuple[Literal["a", "b"], ...]
    mapping: dict[str, int]
    section: Inner
    sections: Annotated[tuple[Inner, ...], Field(min_length=1)]
    kind: Annotated[str, Names({"b": "x:B", "a": "x:A"}, into="built")]
    built: Any


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("flag", "true or false"),
        ("count", "a whole number"),
        ("share", "a number from 0 to 1"),
        ("decay", "a number, 0 or more and below 1"),
        ("rate", "a number above 0 and at most 1"),
        ("between", "a number above 0 and below 1"),
        ("positive", "a number above 0"),
        ("negative", "a number, below 0"),
        ("at_least", "a whole number, 1 or more"),
        ("at_most", "a whole number, at most 9"),
        ("text", "text"),
        ("word", "text that is not empty"),
        ("path", "a path"),
        ("choice", "one of a, b"),
        ("only", "a, or null"),
        ("maybe", "a number above 0, or null"),
        ("either", "a whole number, or text"),
        ("pair", "a list of 2 whole numbers"),
        ("shares", "a list of numbers, each from 0 to 1"),
        ("some", "a list of 2 or more texts"),
        ("choices", "a list of names out of a, b"),
        ("mapping", "a mapping"),
        ("section", "a mapping"),
        ("sections", "a list of 1 or more mappings"),
        ("kind", "one of a, b"),
    ],
)
def test_what_a_field_accepts_in_words(field: str, words: str) -> None:
    assert expected(option_fields(Every)[field]) == words


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Validated:
    near_m: float = 1.0
    far_m: float = 2.0
    even: int = 0
    file: Annotated[str, OnDisk(lambda name: _require_present(name), "a file that is there")] = "present"
    folder: str = "present"

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("an even number")
        return value

    @model_validator(mode="after")
    def _is_not_forbidden(self) -> Validated:
        if self.even == 66:
            raise ValueError("66 is taken")
        return self

    def __post_init__(self) -> None:
        if self.near_m >= self.far_m:
            raise Contradiction("near_m", self.near_m, "less", other="far_m", other_value=self.far_m)

    def check_paths(self) -> None:
        if self.folder == "unreadable":
            raise ListError("a/list.txt", "has no lines", "Write one pair a line")
        if self.folder != "present":
            raise RecipeError("folder", self.folder, "a folder that exists")


def _require_present(name: str) -> None:
    if name != "present":
        raise RecipeError("file", name, "a file that exists")


def check(tmp_path: Path, cls: type, text: str, *, check_files: bool = True) -> tuple[Any, Document]:
    path = tmp_path / "x.yaml"
    path.write_text(f"top: {text}\n")
    document = read_document(path)
    checker = Checker(document, check_files=check_files)
    return checker.build(cls, document.values["top"], ("top",), "a key of top"), document


def sentences(document: Document, tmp_path: Path) -> list[str]:
    return [fault.replace(f"{tmp_path}/x.yaml:1: ", "") for fault in document.sorted_faults()]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("{even: 3}", ["top.even is 3; expected an even number."]),
        ("{even: 66}", ["top: 66 is taken."]),
        ("{near_m: 3}", ["top.near_m is 3 and top.far_m is 2.0 (x.yaml:1); expected less."]),
        ("{file: gone}", ["top.file is 'gone'; expected a file that exists."]),
        ("{folder: gone}", ["top.folder is 'gone'; expected a folder that exists."]),
        ("{folder: unreadable}", ["top: a/list.txt: has no lines. Write one pair a line."]),
        ("{even: 3, file: gone, folder: gone, near_m: x, zzz: 1}", [
            "top.zzz is not a key of top. Keys: near_m, far_m, even, file, folder. Found 1.",
            "top.near_m is 'x'; expected a number.",
            "top.file is 'gone'; expected a file that exists.",
            "top.even is 3; expected an even number.",
            "top.folder is 'gone'; expected a folder that exists.",
        ]),
        # near_m would contradict the default of far_m, but what far_m should be nobody knows.
        ("{near_m: 3, far_m: x}", ["top.far_m is 'x'; expected a number."]),
        ("3", ["top is 3; expected a mapping with the keys near_m, far_m, even, file, folder."]),
    ],
)  # fmt: skip
def test_what_a_class_refuses(tmp_path: Path, text: str, faults: list[str]) -> None:
    _, document = check(tmp_path, Validated, text)
    assert [s.replace(f"{tmp_path}/", "") for s in sentences(document, tmp_path)] == faults


def test_files_are_looked_for_only_when_asked(tmp_path: Path) -> None:
    built, document = check(tmp_path, Validated, "{file: gone, folder: gone}", check_files=False)
    assert not document.faults
    assert (built.file, built.folder) == ("gone", "gone")


def test_what_is_built_despite_faults(tmp_path: Path) -> None:
    built, document = check(tmp_path, Validated, "{even: 3, far_m: 5}")
    assert built == Validated(far_m=5.0), "the wrong key has its default, the others what was written"
    assert len(document.faults) == 1
    built, document = check(tmp_path, Every, "{flag: yes}")
    assert built is WRONG
    missing = [fault for fault in sentences(document, tmp_path) if "is missing; expected " in fault]
    assert len(missing) == len(option_fields(Every)) - 3, "not flag, the object, and the section that has defaults"


def test_lists_become_tuples_and_text_paths(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True, config=OPTIONS)
    class Paths:
        files: tuple[Path, ...] = ()
        inner: tuple[Inner, ...] = ()

    built, document = check(tmp_path, Paths, "{files: [a, b/c], inner: [{size: 4}, {}]}")
    assert not document.faults
    assert built == Paths(files=(Path("a"), Path("b/c")), inner=(Inner(size=4), Inner(size=3)))
    assert plain_values(built) == {"files": ["a", "b/c"], "inner": [{"size": 4}, {"size": 3}]}

    built, document = check(tmp_path, Paths, "{inner: []}")
    assert not document.faults
    assert built == Paths()


def test_contradiction_outside_of_a_recipe() -> None:
    with pytest.raises(RecipeError, match=r"near_m is 3.0; expected less\."):
        Validated(near_m=3.0)
