"""Turn plain values into options objects; each fault becomes a sentence with its place, its value and the fix.

An options class is a pydantic dataclass. Its fields are the keys, their types and ranges say which values are accepted,
and its ``__post_init__`` raises ``RecipeError`` for what types cannot express. A method ``check_paths``, if it has one,
raises ``RecipeError`` when a file or folder that it names is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, TypeGuard, TypeVar, Union, get_args, get_origin, runtime_checkable

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from finetune.recipe.yaml_source import WRONG, Document, KeyPath, Value, Wrong, dotted, plain_scalar, spelled
from finetune.utils.errors import FinetuneError, RecipeError
from finetune.utils.plain import PlainValue
from finetune.utils.registry import find
from finetune.utils.text import did_you_mean, nearest, similarity

T = TypeVar("T")


@runtime_checkable
class NamesFiles(Protocol):
    """An options object whose keys name files, as a reader's do."""

    def check_paths(self) -> None:
        """
        Raises:
            FinetuneError: a file or folder is missing.
        """


class Contradiction(RecipeError):
    """Two keys that cannot both have the values they have."""

    def __init__(self, key: str, value: object, expected: str, *, other: str, other_value: object) -> None:
        """
        Args:
            key: dotted path of the key at fault, seen from the object that raises.
            value: what was found.
            expected: what to write instead.
            other: dotted path of the key it contradicts, seen from the same object.
            other_value: the value of that key.
        """
        super().__init__(key, value, expected)
        self.other = other
        self.other_value = other_value


@dataclass(frozen=True)
class OnDisk:
    """Marks a field that names a file.

    Attributes:
        require: raises ``RecipeError`` if the file is missing.
        what: what to write, in words that follow "expected".
    """

    require: Callable[[str], None]
    what: str


@dataclass(frozen=True)
class Names:
    """Marks a field that names a class; all keys that are not fields are the options of that class.

    Attributes:
        table: a table of ``finetune.utils.registry``.
        into: the field that holds the object made of these options; it is not a key itself.
    """

    table: dict[str, str]
    into: str


def option_fields(cls: type) -> dict[str, FieldInfo]:
    """The fields of an options class that are keys of a recipe, in their order.

    Fields that the class fills itself, or that are marked ``exclude``, are not.
    """
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    return {name: field for name, field in fields.items() if field.init is not False and not field.exclude}


def plain_values(options: object) -> dict[str, PlainValue]:
    """An options object as mappings, lists and scalars, with every default, in the order of its fields."""
    values: dict[str, PlainValue] = {}
    fields = option_fields(type(options))
    into = next((names.into for field in fields.values() if (names := _names(field))), None)
    for name, field in fields.items():
        value = getattr(options, name)
        if name == into:
            values |= plain_values(value)
        elif is_options(type(value)):
            values[name] = plain_values(value)
        elif value is not None and _entry_class(field.annotation) is not None:
            values[name] = [plain_values(entry) for entry in value]
        else:
            values[name] = _adapter(field).dump_python(value, mode="json")
    return values


def is_options(cls: object) -> TypeGuard[type]:
    """Whether ``cls`` is an options class."""
    return isinstance(cls, type) and is_pydantic_dataclass(cls)


class Checker:
    """Builds options objects from a document, and adds to it as faults what cannot be built."""

    def __init__(self, document: Document, *, check_files: bool) -> None:
        """
        Args:
            document: plain values and their places; faults are added to it.
            check_files: also check that the files it names exist: ``OnDisk`` fields, and ``check_paths``.
        """
        self.document = document
        self.check_files = check_files
        self._all_keys: dict[str, str] = {}  # name -> the first dotted key of the whole recipe that ends with it

    def build(
        self, cls: type[T], values: Value, path: KeyPath, owner: str, own_keys: Collection[str] = ()
    ) -> T | Wrong:
        """
        Args:
            cls: the options class.
            values: the plain value found at ``path``; anything but a mapping is a fault.
            path: where it is in the document.
            owner: what a key belongs to, as in "lamda is not an option of silog".
            own_keys: keys of the entry around it, for suggestions.

        Returns:
            The object. Keys at fault have their defaults in it, so that more faults can be found with it; ``WRONG`` if
            one of them has no default.
        """
        given = self.fields(cls, values, path, owner, own_keys)
        if given is None:
            return WRONG
        return self.construct(cls, given, path)

    def fields(
        self, cls: type, values: Value, path: KeyPath, owner: str, own_keys: Collection[str] = ()
    ) -> _Fields | None:
        """As ``build``, but returns only the value of each field, before the object is made."""
        if values is WRONG:
            return None
        if not path:
            self._all_keys = _keys_of(cls, values, ())
        fields = option_fields(cls)
        chosen = next(((name, names) for name, field in fields.items() if (names := _names(field))), None)
        keys = [name for name in fields if chosen is None or name != chosen[1].into]
        if not isinstance(values, dict):
            self._wrong(path, values, f"a mapping with the keys {', '.join([*keys, *own_keys])}")
            return None
        given = _Fields({}, set())
        if chosen is None:
            given.at_fault |= self._unknown(values, [*keys, *own_keys], path, owner)
        for name in keys:
            self._field(fields[name], name, values, path, given)
        if chosen is not None and chosen[0] in given.values:
            name, names = chosen
            kind = str(given.values[name])
            options = {key: value for key, value in values.items() if key not in keys}
            around = [key for key in keys if key != name]
            given.put(names.into, self.build(find(names.table, kind), options, path, f"an option of {kind}", around))
        return given

    def construct(self, cls: type[T], given: _Fields, path: KeyPath) -> T | Wrong:
        """Make the object from ``given``; see ``build``. A key at fault gets its default, and it is tried again."""
        fields = option_fields(cls)
        while not any(name not in given.values and fields[name].is_required() for name in fields):
            try:
                built = cls(**given.values)
                if self.check_files and isinstance(built, NamesFiles):
                    self._check_paths(built, path, given)
            except RecipeError as error:
                name = self.report(error, path, given.at_fault)
            except ValidationError as error:
                name = self._report_invalid(error, fields, path, given)
            else:
                return built
            if name not in given.values:
                break
            del given.values[name]
        return WRONG

    def report(self, error: RecipeError, path: KeyPath, at_fault: set[str]) -> str:
        """
        Add what an options object at ``path`` raised as a fault, unless it follows from another of its faults.

        Returns:
            The field at fault, which is now in ``at_fault``.
        """
        name = error.key.split(".")[0]
        involved = {(*path, *_parts(key)) for key in (error.key, getattr(error, "other", error.key))}
        named = any(re.search(rf"\b{re.escape(str(key))}\b", error.expected) for key in at_fault)
        if not (name in at_fault or named or involved & self.document.at_fault):
            key_path = (*path, *_parts(error.key))
            self.document.fault(key_path, f"{dotted(key_path)} is {self._complaint(error, path, key_path)}")
        at_fault.add(name)
        return name

    def _complaint(self, error: RecipeError, path: KeyPath, key_path: KeyPath) -> str:
        value = spelled(self.document.value(key_path, default=error.value))
        if isinstance(error, Contradiction):
            other = (*path, *_parts(error.other))
            place = self.document.place(other).text
            other_value = spelled(self.document.value(other, default=error.other_value))
            return f"{value} and {dotted(other)} is {other_value} ({place}); expected {error.expected}."
        return f"{value}; expected {error.expected}."

    def _check_paths(self, built: NamesFiles, path: KeyPath, given: _Fields) -> None:
        try:
            built.check_paths()
        except RecipeError as error:
            # The object itself is complete, so it is not made again with a default for the missing file.
            self.report(error, path, given.at_fault)
        except FinetuneError as error:
            self.document.fault(path, f"{dotted(path)}: {error}")

    def _report_invalid(
        self, error: ValidationError, fields: Mapping[str, FieldInfo], path: KeyPath, given: _Fields
    ) -> str:
        """Add what a validator of the class itself refused: in its own words, never in pydantic's."""
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if name in fields and name not in given.at_fault:
            said = first.get("ctx", {}).get("error")
            self._wrong((*path, name), given.values.get(name), str(said or expected(fields[name])))
        elif not name:
            self.document.fault(path, f"{dotted(path)}: {first.get('ctx', {}).get('error', 'its keys do not agree')}.")
        given.at_fault.add(name)
        return name

    def _unknown(self, values: Mapping[str, Value], keys: Collection[str], path: KeyPath, owner: str) -> set[str]:
        """
        Add the unknown keys as faults.

        Returns:
            The keys that were probably meant, so that they are not reported as missing too.
        """
        meant: set[str] = set()
        noun = "Options" if "option" in owner else "Keys"
        for key, value in values.items():
            if key in keys:
                continue
            # Two keys can be equally similar. Prefer one that is not given: it was probably meant.
            free = [name for name in keys if name not in values]
            suggestion = nearest(key, [*free, *(name for name in keys if name in values)])
            if suggestion in free:
                meant.add(suggestion)
            suggestion = self._elsewhere(key, suggestion) or suggestion
            self.document.fault(
                (*path, key),
                f"{dotted((*path, key))} is not {owner}.{did_you_mean(suggestion)} {noun}: {', '.join(keys)}. "
                f"Found {spelled(value)}.",
            )
        return meant

    def _elsewhere(self, key: str, here: str | None) -> str | None:
        """The dotted key of another section, if that was more probably meant than ``here``, a key of this section."""
        if key in self._all_keys:
            return self._all_keys[key] if here is None or similarity(key, here) < _CLEARLY_SIMILAR else None
        name = nearest(key, list(self._all_keys), cutoff=_CLEARLY_SIMILAR) if here is None else None
        return None if name is None else self._all_keys[name]

    def _field(self, field: FieldInfo, name: str, values: Mapping[str, Value], path: KeyPath, given: _Fields) -> None:
        """Check one key and put its value into ``given``."""
        here = (*path, name)
        annotation = field.annotation
        if is_options(annotation):
            section = self.build(annotation, values.get(name, {}), here, f"a key of {dotted(here)}")
            given.put(name, section)
        elif name in values:
            given.put(name, self._value(field, values[name], here))
        elif field.is_required():
            if name not in given.at_fault:
                found = f" Found {', '.join(values)}." if _names(field) and values else ""
                self.document.fault(here, f"{dotted(here)} is missing; expected {expected(field)}.{found}")
            given.at_fault.add(name)
        else:
            given.values[name] = field.get_default(call_default_factory=True)

    def _value(self, field: FieldInfo, value: Value, path: KeyPath) -> object:
        entry_class = _entry_class(field.annotation)
        if entry_class is not None and value is not WRONG and not (value is None and _may_be_null(field.annotation)):
            return self._entries(entry_class, field, value, path)
        if _holds_wrong(value):
            return WRONG
        names = _names(field)
        try:
            # From JSON, because pydantic's strict mode then still accepts a list for a tuple and text for a path.
            accepted = _adapter(field).validate_json(json.dumps(value), strict=True)
            for item in field.metadata:
                if self.check_files and isinstance(item, OnDisk):
                    item.require(accepted)
        except ValidationError:
            return self._wrong(path, value, expected(field), _nearest_value(value, field))
        except RecipeError as error:
            # It comes from a check of this field alone, which does not know the field's name.
            self.document.fault(path, f"{dotted(path)} is {self._complaint(error, path[:-1], path)}")
            return WRONG
        if names is not None and accepted not in names.table:
            return self._wrong(path, value, expected(field), nearest(accepted, sorted(names.table)))
        return accepted

    def _entries(self, cls: type, field: FieldInfo, value: Value, path: KeyPath) -> object:
        if not isinstance(value, list) or len(value) < _limits(field.metadata).get("min_length", 0):
            return self._wrong(path, value, expected(field))
        built = [self.build(cls, item, (*path, i), f"a key of {dotted((*path, i))}") for i, item in enumerate(value)]
        return WRONG if any(entry is WRONG for entry in built) else tuple(built)

    def _wrong(self, path: KeyPath, value: object, expectation: str, suggestion: str | None = None) -> Wrong:
        sentence = f"{dotted(path)} is {spelled(value)}; expected {expectation}.{did_you_mean(suggestion)}"
        self.document.fault(path, sentence)
        return WRONG


@dataclass
class _Fields:
    """The values for the fields of one object, and which of its keys are at fault."""

    values: dict[str, object]
    at_fault: set[str]

    def put(self, name: str, value: object) -> None:
        """Set the value of a field; ``WRONG`` puts the field at fault."""
        if value is WRONG:
            self.at_fault.add(name)
        else:
            self.values[name] = value


# Words of at least this similarity are one word with a typing error.
_CLEARLY_SIMILAR = 0.75


def _keys_of(cls: type, values: Value, path: KeyPath) -> dict[str, str]:
    """Name -> dotted key, for an options class and all options in it; of a list of entries, those of the first."""
    found: dict[str, str] = {}
    fields = option_fields(cls)
    deeper: list[dict[str, str]] = []
    for name, field in fields.items():
        names, entry_class, annotation = _names(field), _entry_class(field.annotation), field.annotation
        below = values.get(name) if isinstance(values, dict) else None
        if names is not None:
            kind = below if isinstance(below, str) else ""
            options = _keys_of(find(names.table, kind), values, path) if kind in names.table else {}
            deeper.append({key: where for key, where in options.items() if key not in fields})
        if is_options(annotation):
            deeper.append(_keys_of(annotation, below, (*path, name)))
        elif entry_class is not None:
            first = below[0] if isinstance(below, list) and below else None
            deeper.append(_keys_of(entry_class, first, (*path, name, 0)))
        if all(other is None or other.into != name for other in map(_names, fields.values())):
            found.setdefault(name, dotted((*path, name)))
    for keys in deeper:
        found = keys | found
    return found


def expected(field: FieldInfo) -> str:
    """What a field accepts, in words that follow "expected": ``a number from 0 to 1``."""
    names = _names(field)
    if names is not None:
        return f"one of {', '.join(sorted(names.table))}"
    on_disk = next((item for item in field.metadata if isinstance(item, OnDisk)), None)
    if on_disk is not None:
        return on_disk.what
    return _in_words(field.annotation, field.metadata, many=False)


_WORDS: dict[type, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("null", "nulls"),
}


def _in_words(annotation: object, metadata: Collection[object], *, many: bool) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _in_words(args[0], [*metadata, *args[1:]], many=many)
    if origin is Literal:
        names = [choice if isinstance(choice, str) else spelled(choice) for choice in args]
        if many:
            return f"names out of {', '.join(names)}"
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    if origin in (Union, UnionType):
        kinds = sorted(args, key=lambda kind: kind is NoneType)
        return ", or ".join(_in_words(kind, metadata, many=many) for kind in kinds)
    if origin in (tuple, list):
        return _list_in_words(args, _limits(metadata), fixed=origin is tuple and Ellipsis not in args)
    if is_options(annotation):
        return "mappings" if many else "a mapping"
    if isinstance(annotation, type) and annotation in _WORDS:
        limits = _range_in_words(_limits(metadata))
        return _WORDS[annotation][many] + (f", each {limits.lstrip(', ')}" if many and limits else limits)
    if dict in (annotation, origin):
        return "a mapping"
    return "another value"


def _list_in_words(args: tuple[object, ...], limits: Mapping[str, float], *, fixed: bool) -> str:
    count = f"{len(args)} " if fixed else f"{limits['min_length']} or more " if "min_length" in limits else ""
    return f"a list of {count}{_in_words(args[0], (), many=True)}"


def _limits(metadata: Collection[object]) -> dict[str, float]:
    """Pydantic's name of a bound -> the bound."""
    parts = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    names = ("ge", "gt", "le", "lt", "min_length")
    return {name: getattr(part, name) for part in parts for name in names if getattr(part, name, None) is not None}


def _range_in_words(limits: Mapping[str, float]) -> str:
    low = next((limits[name] for name in ("ge", "gt") if name in limits), None)
    high = next((limits[name] for name in ("le", "lt") if name in limits), None)
    if "min_length" in limits:
        return " that is not empty"
    if low is None and high is None:
        return ""
    if high is None:
        return f", {low} or more" if "ge" in limits else f" above {low}"
    upper = f"at most {high}" if "le" in limits else f"below {high}"
    if low is None:
        return f", {upper}"
    if "ge" in limits and "le" in limits:
        return f" from {low} to {high}"
    return f", {low} or more and {upper}" if "ge" in limits else f" above {low} and {upper}"


def _nearest_value(value: Value, field: FieldInfo) -> str | None:
    """The acceptable value that ``value`` was probably meant to be; None if that would be a guess."""
    choices = [choice for choice in _choices(field.annotation) if isinstance(choice, str)]
    candidates: list[object]
    if isinstance(value, list):
        candidates = [[nearest(str(item), choices) for item in value]]
    else:
        near = nearest(str(value), choices)
        candidates = [near, [near], *_retyped(value), [value]]
    for candidate in candidates:
        try:
            if candidate is not None and (type(candidate), candidate) != (type(value), value):
                _adapter(field).validate_json(json.dumps(candidate), strict=True)
                return str(candidate) if candidate in choices else spelled(candidate)
        except (ValidationError, RecipeError):
            continue
    return None


def _retyped(value: Value) -> list[object]:
    """``value`` converted to the types that were probably meant."""
    if isinstance(value, str):
        bare = value.strip().replace("_", "")
        words = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}
        return [plain_scalar(re.sub(r"^([-+]?)0+(?=[1-9])", r"\1", bare)), words.get(bare.lower())]
    if isinstance(value, float) and value.is_integer():
        return [int(value)]
    return [spelled(value)] if isinstance(value, int) else []


def _choices(annotation: object) -> tuple[object, ...]:
    """The values that a type lists."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


# id of a field -> the field, which keeps its id from being used again, and its adapter.
_ADAPTERS: dict[int, tuple[FieldInfo, TypeAdapter[Any]]] = {}


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    # Made once for each field of a class and kept: a recipe may have thousands of entries.
    made = _ADAPTERS.get(id(field))
    if made is None:
        annotation: Any = field.annotation
        adapter = TypeAdapter(Annotated[(annotation, *field.metadata)] if field.metadata else annotation)
        made = _ADAPTERS[id(field)] = field, adapter
    return made[1]


def _names(field: FieldInfo) -> Names | None:
    return next((item for item in field.metadata if isinstance(item, Names)), None)


def _entry_class(annotation: object) -> type | None:
    """The options class if a field holds a tuple of its objects, or null; None for any other field."""
    args = get_args(annotation)
    if _may_be_null(annotation):
        return next((found for part in args if (found := _entry_class(part)) is not None), None)
    if get_origin(annotation) is tuple and len(args) == 2 and args[1] is Ellipsis and is_options(args[0]):
        entry_class: type = args[0]
        return entry_class
    return None


def _may_be_null(annotation: object) -> bool:
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def _parts(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _holds_wrong(value: Value) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_wrong, value.values()))
    if isinstance(value, list):
        return any(map(_holds_wrong, value))
    return value is WRONG
