"""Read YAML and ``key=value`` into plain values and the places where they were written, and write YAML.

Scalars follow the core schema of YAML 1.2: ``5e-6`` is a number; ``yes``, ``on`` and ``1:30`` are text. In one thing we
are stricter: ``012`` is text too, because some readers of YAML take it for 10 and others for 12.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

import yaml

from finetune.utils.errors import RecipeFaults
from finetune.utils.paths import expand_path, list_folder, missing, path_exists, read_bytes
from finetune.utils.plain import PlainValue
from finetune.utils.text import did_you_mean, nearest

KeyPath = tuple[str | int, ...]  # ("loss", 0, "lam"), which people read and write as loss.0.lam


class Wrong(Enum):
    """The type of ``WRONG``, so that a type checker knows what is left when a value is not ``WRONG``."""

    WRONG = "wrong"


WRONG: Final = Wrong.WRONG  # in place of a value that could not be read; its fault is already in the document
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | Wrong | None"

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
# 18 digits are enough for every option, and far fewer than int() refuses.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)"
)

# A plain scalar of a flow mapping cannot contain braces, so each variable is replaced by these before YAML is read.
_OPEN, _CLOSE = "\ue000", "\ue001"
_VARIABLE = re.compile(r"\$\{([^{}\n]*)\}")
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_VARIABLE_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?")

_LINE_WIDTH = 120
_MAX_SENTENCE = 1000  # characters
_MAX_DEPTH = 30  # levels; the deepest key of a recipe is on the fifth
_COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Place:
    """Where a key was written, in words for an error, and its rank among all places of a recipe."""

    text: str
    rank: int


_COMMAND_LINE_PLACE = Place(_COMMAND_LINE, sys.maxsize)


@dataclass(frozen=True)
class Fault:
    """One line for the user about the key at ``path``."""

    path: KeyPath
    place: Place
    sentence: str

    def __str__(self) -> str:
        return f"{self.place.text}: {self.sentence}"


class Document:
    """The plain values of a recipe, the place of every key in it, and the faults found so far."""

    def __init__(self, values: dict[str, Value], places: dict[KeyPath, Place], faults: list[Fault]) -> None:
        """
        Args:
            values: mappings, lists and scalars; ``WRONG`` in place of a scalar that could not be read.
            places: where each key path of ``values``, and ``()``, was written.
            faults: what is wrong so far.
        """
        self.values = values
        self.places = places
        self.faults: list[Fault] = []
        self.at_fault: set[KeyPath] = set()  # paths of the faults
        for fault in faults:
            self.note(fault)

    def place(self, path: KeyPath) -> Place:
        """Where ``path`` was written; if it was not, where its nearest parent was."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def value(self, path: KeyPath, default: object) -> object:
        """What was written at ``path``; ``default`` if nothing was."""
        found: Value = self.values
        try:
            for part in path:
                found = _child(found, part)
        except LookupError:
            return default
        return found

    def fault(self, path: KeyPath, sentence: str) -> None:
        """Add a fault of the key at ``path``; ``sentence`` starts with the dotted key and ends with a full stop."""
        self.note(Fault(path, self.place(path), sentence))

    def note(self, fault: Fault) -> None:
        """Add a fault."""
        self.faults.append(fault)
        self.at_fault.add(fault.path)

    def drop(self, path: KeyPath) -> None:
        """Forget the places and faults of ``path`` and of everything below it."""
        self.places = {key: place for key, place in self.places.items() if key[: len(path)] != path}
        self.faults = [fault for fault in self.faults if fault.path[: len(path)] != path]
        self.at_fault = {fault.path for fault in self.faults}

    def sorted_faults(self) -> list[str]:
        """All faults, a line each: those of the file in the order of its lines, then those of the command line."""
        in_order = sorted(self.faults, key=lambda fault: fault.place.rank)
        return [_shortened(str(fault)) for fault in in_order]


def _child(container: Value, part: str | int) -> Value:
    """
    Raises:
        LookupError: ``container`` has nothing of that name or at that index.
    """
    if isinstance(container, dict) and isinstance(part, str):
        return container[part]
    if isinstance(container, list) and isinstance(part, int):
        return container[part]
    raise LookupError(part)


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """
    Args:
        path: a YAML file, UTF-8.
        overrides: ``a.b.0.c=value``, the value in YAML; each replaces or adds one key.

    Returns:
        What the file and the overrides say. Its ``faults`` are duplicate keys, variables that are not set, numbers that
        are not finite, and overrides that lead nowhere.

    Raises:
        RecipeFaults: there is no such file, or it is not one YAML mapping.
    """
    source = _Source(str(path), _file_text(expand_path(path)))
    root = source.compose()
    if not isinstance(root, yaml.MappingNode):
        found = "is empty" if root is None else f"is {_shown(root)} at its top level"
        raise RecipeFaults([f"{path}: {found}; expected a mapping with model, data and more."])
    document = Document({}, {(): source.place(root)}, [])
    document.values = source.mapping(root, (), document)
    _apply_overrides(document, overrides)
    return document


def dotted(path: KeyPath) -> str:
    """``("loss", 0, "lam")`` -> ``loss.0.lam``."""
    return ".".join(map(str, path))


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        # YAML writes .inf and .nan, Python inf and nan.
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def spelled(value: object, length: int = 60) -> str:
    """``value`` on one line as a recipe would write it, text in quotes, cut at ``length`` characters."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {spelled(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(spelled, value)) + "]"
    elif value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, float):
        text = _float_text(value)
    else:
        text = repr(value if isinstance(value, int) else str(value))
    return text if len(text) <= length else text[: length - 3] + "..."


def nearest_path(path: Path) -> str | None:
    """Another path in the same folder, with the most similar name; None if no name is similar."""
    try:
        # A link that leads nowhere is in the list too.
        names = [entry.name for entry in list_folder(path.parent) if entry.name != path.name]
    except OSError:
        return None
    name = nearest(path.name, names)
    return None if name is None else str(path.parent / name)


def yaml_text(values: Mapping[str, PlainValue]) -> str:
    """
    Write YAML, in the order of ``values``: each top-level key on its own line, and what fits on one line on one.

    ``read_document`` reads the same values from it, floats to the last bit, and so do other readers of YAML 1.1 or 1.2.
    """
    root = _Dumper(io.StringIO()).represent_data(dict(values))
    _lay_out(root, indent=0, is_root=True)
    return str(yaml.serialize(root, Dumper=_Dumper, width=sys.maxsize, allow_unicode=True))


class _Source:
    """One text in YAML: a file, or the value of one override. Placeholders replace its variables."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.variables: list[str] = []
        if _OPEN in text or _CLOSE in text:
            raise RecipeFaults([f"{name}: contains the character U+E000 or U+E001; remove it."])
        self.text = _VARIABLE.sub(self._replace_variable, text)

    def _replace_variable(self, match: re.Match[str]) -> str:
        self.variables.append(match[1])
        return f"{_OPEN}{len(self.variables) - 1}{_CLOSE}"

    def _as_written(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: f"${{{self.variables[int(match[1])]}}}", text)

    def place(self, node: yaml.Node) -> Place:
        """Where ``node`` was written."""
        if self.name == _COMMAND_LINE:
            return _COMMAND_LINE_PLACE
        line = node.start_mark.line + 1
        return Place(f"{self.name}:{line}", line)

    def compose(self) -> yaml.Node | None:
        """
        Returns:
            The node of the whole text; None if it is empty.

        Raises:
            RecipeFaults: the text is not YAML, or uses a part of YAML that recipes do not use.
        """
        try:
            return yaml.compose(self.text, Loader=_Composer)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            problem = self._as_written(", ".join(filter(None, [error.context, error.problem])))
        except yaml.reader.ReaderError as error:
            line, problem = self.text[: error.position].count("\n") + 1, f"{chr(error.character)!r} is not allowed"
        location = self.name if self.name == _COMMAND_LINE else f"{self.name}:{line}"
        fix = "Look at the indentation, quotes and brackets here and just above"
        raise RecipeFaults([f"{location}: cannot be read as YAML: {problem}. {fix}."])

    def value(self, node: yaml.Node, path: KeyPath, document: Document) -> Value:
        """The plain value of ``node``; its places and faults are added to ``document``."""
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, document)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                document.places[*path, index] = self.place(item)
            return [self.value(item, (*path, index), document) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), "YAML has three kinds of nodes"
        return self._scalar(node, path, document)

    def mapping(self, node: yaml.MappingNode, path: KeyPath, document: Document) -> dict[str, Value]:
        """As ``value``, of a mapping."""
        values: dict[str, Value] = {}
        written: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or _PLACEHOLDER.search(key_node.value):
                sentence = f"{self._as_written(_shown(key_node))} cannot be a key; expected a plain word."
                document.note(Fault(path, place, sentence))
                continue
            key = str(key_node.value)
            if key in values:
                first = f"{_shown(written[key])} ({document.places[*path, key].text})"
                sentence = f"{dotted((*path, key))} is given twice, as {first} and as {_shown(value_node)}; keep one."
                document.note(Fault((*path, key), place, self._as_written(sentence)))
                continue
            document.places[*path, key] = place
            written[key] = value_node
            values[key] = self.value(value_node, (*path, key), document)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, document: Document) -> Value:
        try:
            text = self._expanded(node.value)
        except LookupError as error:
            document.fault(path, f"{dotted(path)} is {spelled(self._as_written(node.value))}; {error.args[0]}")
            return WRONG
        value = text if node.style else plain_scalar(text)
        if isinstance(value, float) and not math.isfinite(value):
            document.fault(path, f"{dotted(path)} is {text}; expected a finite number.")
            return WRONG
        return value

    def _expanded(self, text: str) -> str:
        """
        Returns:
            ``text`` with the values of its variables.

        Raises:
            LookupError: a variable is misspelled or not set; its argument says which.
        """
        if "${" in text:
            raise LookupError("expected ${NAME} or ${NAME:-default}, closed on the same line.")
        return _PLACEHOLDER.sub(lambda match: _variable(self.variables[int(match[1])]), text)


def _variable(body: str) -> str:
    """The value of ``NAME`` or ``NAME:-default``; as in a shell, the default also replaces an empty value."""
    match = _VARIABLE_BODY.fullmatch(body)
    if match is None:
        raise LookupError(f"expected ${{NAME}} or ${{NAME:-default}}, not ${{{body}}}.")
    name, default = match[1], match[2]
    value = os.environ.get(name)
    if default is not None and not value:
        return default
    if value is None:
        meant = did_you_mean(nearest(name, sorted(os.environ), cutoff=0.75))
        raise LookupError(f"{name} is not set; set it or write ${{{name}:-default}}.{meant}")
    if "${" in value:
        raise LookupError(f"the value of {name} contains ${{, which would be another variable; write it out.")
    return value


class _Composer(yaml.SafeLoader):
    """Composes YAML nodes, and refuses the parts of YAML that make one key depend on another or change its type."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _unsupported("anchors and aliases (& and *) are not used in recipes: write the value out", event)
        if event.tag is not None:
            raise _unsupported(f"tags such as {event.tag} are not used in recipes: remove it", event)
        # Far below Python's own limit, which depends on the caller.
        if self._depth > _MAX_DEPTH:
            raise _unsupported("brackets and indented blocks are nested too deeply", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _unsupported(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark = event.start_mark
    assert isinstance(mark, yaml.Mark), "the composer is yaml's own, in Python"
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _file_text(path: Path) -> str:
    if not path_exists(path):
        perhaps = did_you_mean(nearest_path(path)) or " Name a recipe, such as recipes/room_tiny.yaml."
        raise RecipeFaults([f"{path}: {missing(path)}.{perhaps}"])
    try:
        data = read_bytes(path)
    except IsADirectoryError:
        raise RecipeFaults([f"{path}: is a folder; expected a YAML file."]) from None
    except OSError as error:
        raise RecipeFaults([f"{path}: cannot be read: {error.strerror}; expected a YAML file."]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeFaults([f"{path}:{line}: is not UTF-8 text; save the file as UTF-8."]) from None


def _shown(node: yaml.Node) -> str:
    """A node as it was written, for a sentence."""
    if isinstance(node, yaml.ScalarNode):
        return spelled(node.value) if node.style else str(node.value) or "null"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    taken: list[KeyPath] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(map(_part, key.strip().split(".")))
        if not equals or "" in path or len(path) > _MAX_DEPTH:
            sentence = f"{spelled(override)} is not an override; expected key=value, such as optim.lr=1e-5."
            document.note(_on_command_line((), sentence))
            continue
        clash = next((other for other in taken if other[: len(path)] == path[: len(other)]), None)
        if clash is not None:
            both = "is given twice" if clash == path else f"and {dotted(clash)} are both given"
            sentence = f"{key} {both}, here {spelled(plain_scalar(text))}; keep one."
            document.note(_on_command_line(path, sentence))
            continue
        taken.append(path)
        _set(document, path, text)


def _part(text: str) -> str | int:
    """A part of a dotted key; an index of a list is a short number."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text


def _shortened(sentence: str) -> str:
    """The sentence on one line; if a key or a value makes it too long, its beginning and its end, which is the fix."""
    line = " ".join(sentence.splitlines())
    return line if len(line) <= _MAX_SENTENCE else f"{line[: _MAX_SENTENCE - 300]} ... {line[-300:]}"


def _set(document: Document, path: KeyPath, text: str) -> None:
    """Set the value of one override at ``path``; mappings that are missing on the way are made."""
    source = _Source(_COMMAND_LINE, text)
    try:
        node = source.compose()
    except RecipeFaults as error:
        found = error.faults[0].removeprefix(f"{_COMMAND_LINE}: ")
        document.note(_on_command_line(path, f"{dotted(path)} is {spelled(text)}, which {found}"))
        return
    container: Value = document.values
    for depth, part in enumerate(path):
        here, is_last = path[:depth], depth == len(path) - 1
        if isinstance(container, dict):
            key = str(part)
            path = (*here, key, *path[depth + 1 :])
            if is_last:
                container[key] = _overriding_value(document, path, source, node)
            elif key not in container:
                container[key] = {}
                document.places[path[: depth + 1]] = _COMMAND_LINE_PLACE
            container = container[key]
        elif isinstance(container, list) and isinstance(part, int) and part < len(container):
            if is_last:
                container[part] = _overriding_value(document, path, source, node)
            container = container[part]
        else:
            problem = _why_no_part(container, here, part)
            document.note(_on_command_line(path, f"{dotted(path)} leads nowhere: {problem}."))
            return


def _overriding_value(document: Document, path: KeyPath, source: _Source, node: yaml.Node | None) -> Value:
    """The value of an override, after what was known of ``path`` is forgotten."""
    document.drop(path)
    document.places[path] = _COMMAND_LINE_PLACE
    return None if node is None else source.value(node, path, document)


def _why_no_part(container: Value, path: KeyPath, part: str | int) -> str:
    """Why ``container``, at ``path``, has nothing named ``part``."""
    if not isinstance(container, list):
        return f"{dotted(path)} is {spelled(container)}, which has no keys"
    entries = "is empty" if not container else f"has the entries 0 to {len(container) - 1}"
    return f"{dotted(path)} {entries}, not {part}"


def _on_command_line(path: KeyPath, sentence: str) -> Fault:
    return Fault(path, _COMMAND_LINE_PLACE, sentence)


def _float_text(value: float) -> str:
    """The shortest text that is read as ``value`` again, with the point that YAML 1.1 needs: 5.0e-6."""
    mantissa, e, exponent = repr(value).partition("e")
    if not e:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent[0]}{exponent[1:].lstrip('0')}"


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or ``plain_scalar`` would read as something else; indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only double quotes allow escapes; without them, line breaks such as U+0085 would become spaces.
    style = None if isinstance(plain_scalar(text), str) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_mapping(dumper: yaml.SafeDumper, mapping: dict[str, object]) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping.items(), flow_style=False)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", _float_text(value))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(float, _represent_float)


def _lay_out(node: yaml.Node, indent: int, before: int = 0, *, is_root: bool = False) -> None:
    """
    Choose for ``node`` and each mapping and list in it: on one line, or an entry a line.

    Args:
        node: what to lay out.
        indent: column at which the line of its key starts.
        before: characters before it on that line.
        is_root: it is the whole text, whose keys start at column 0.
    """
    if not isinstance(node, yaml.CollectionNode):
        return
    node.flow_style = True
    one_line = yaml.serialize(node, Dumper=_Dumper, width=sys.maxsize, allow_unicode=True).rstrip("\n")
    holds_mappings = isinstance(node, yaml.SequenceNode) and any(isinstance(n, yaml.MappingNode) for n in node.value)
    if not is_root and not holds_mappings and indent + before + len(one_line) <= _LINE_WIDTH:
        return
    node.flow_style = False
    deeper = 0 if is_root else indent + 2
    for child in node.value:
        if isinstance(node, yaml.MappingNode):
            key, value = child
            _lay_out(value, deeper, len(key.value) + 2)
        else:
            _lay_out(child, deeper, 2)
