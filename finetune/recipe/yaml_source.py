"""YAML and ``key=value`` -> plain values that know where they were written, and plain values -> YAML.

Scalars follow the core schema of YAML 1.2: ``5e-6`` is a number, ``yes``, ``on`` and ``1:30`` are text. One thing is
stricter: ``012`` is text too, since it is 10 to one reader of YAML and 12 to the next.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.utils.errors import RecipeFaults
from finetune.utils.paths import expand_path, list_folder, missing, path_exists, read_bytes
from finetune.utils.text import did_you_mean, nearest

KeyPath = tuple[str | int, ...]  # ("loss", 0, "lam"), which a person reads and writes as loss.0.lam


class _Wrong:
    """Stands where a value could not be read; its fault is already in the document."""


WRONG: Any = _Wrong()

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
# 18 digits: enough for every option, and far below the length at which int() refuses.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)"
)

# Braces cannot stand in a plain scalar of a flow mapping, so a variable is swapped for these before YAML is read.
_OPEN, _CLOSE = "\ue000", "\ue001"
_VARIABLE = re.compile(r"\$\{([^{}\n]*)\}")
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_VARIABLE_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?")

_LINE_WIDTH = 120
_LONGEST_LINE = 1000  # characters of a sentence
_DEEPEST = 30  # levels; the deepest key of a recipe stands on the fifth
_COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Place:
    """Where a key was written, as an error names it, and its rank among all places of a recipe."""

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

    def __init__(self, values: dict[str, Any], places: dict[KeyPath, Place], faults: list[Fault]) -> None:
        """
        Args:
            values: mappings, lists and scalars; ``WRONG`` where a scalar could not be read.
            places: for every key path in ``values``, and for ``()``, where it was written.
            faults: what was wrong in reading.
        """
        self.values = values
        self.places = places
        self.faults: list[Fault] = []
        self.at_fault: set[KeyPath] = set()  # paths of the faults
        for fault in faults:
            self.note(fault)

    def place(self, path: KeyPath) -> Place:
        """Where ``path`` was written, or its nearest parent that was."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def value(self, path: KeyPath, default: Any) -> Any:
        """What was written at ``path``; ``default`` when nothing was."""
        found: Any = self.values
        for part in path:
            known = isinstance(found, dict) and part in found
            if not known and not (isinstance(found, list) and isinstance(part, int) and part < len(found)):
                return default
            found = found[part]
        return found

    def fault(self, path: KeyPath, sentence: str) -> None:
        """Note a fault of the key at ``path``; ``sentence`` starts with the dotted key and ends with a full stop."""
        self.note(Fault(path, self.place(path), sentence))

    def note(self, fault: Fault) -> None:
        """Keep a fault."""
        self.faults.append(fault)
        self.at_fault.add(fault.path)

    def drop(self, path: KeyPath) -> None:
        """Forget the places and faults of ``path`` and of everything below it."""
        self.places = {key: place for key, place in self.places.items() if key[: len(path)] != path}
        self.faults = [fault for fault in self.faults if fault.path[: len(path)] != path]
        self.at_fault = {fault.path for fault in self.faults}

    def sorted_faults(self) -> list[str]:
        """All faults, a line each: those of the file in order of line, then those of the command line."""
        in_order = sorted(self.faults, key=lambda fault: fault.place.rank)
        return [_on_a_line(str(fault)) for fault in in_order]


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """
    Args:
        path: a YAML file, UTF-8.
        overrides: ``a.b.0.c=value``, the value in YAML; each replaces or adds one key.

    Returns:
        What the file and the overrides say. Its ``faults`` hold duplicate keys, variables that are not set, numbers
        that are not finite, and overrides that lead nowhere.

    Raises:
        RecipeFaults: there is no such file, or it cannot be read as one YAML mapping.
    """
    source = _Source(str(path), _file_text(expand_path(path)))
    root = source.compose()
    if not isinstance(root, yaml.MappingNode):
        found = "is empty" if root is None else f"is {_shown(root)} at its top level"
        raise RecipeFaults([f"{path}: {found}; expected a mapping with model, data and more."])
    document = Document({}, {(): source.place(root)}, [])
    document.values = source.value(root, (), document)
    _override(document, overrides)
    return document


def dotted(path: KeyPath) -> str:
    """``("loss", 0, "lam")`` -> ``loss.0.lam``."""
    return ".".join(map(str, path))


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means."""
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


def spelled(value: Any, length: int = 60) -> str:
    """``value`` on one line as a recipe would say it, text in quotes, cut at ``length`` characters."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {spelled(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(spelled, value)) + "]"
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    elif isinstance(value, float):
        text = _float_text(value)
    else:
        text = repr(value if isinstance(value, int) else str(value))
    return text if len(text) <= length else text[: length - 3] + "..."


def nearest_path(path: Path) -> str | None:
    """The file or folder beside ``path`` whose name is most like it."""
    try:
        names = [entry.name for entry in list_folder(path.parent)]
    except OSError:
        return None
    name = nearest(path.name, names)
    return None if name is None else str(path.parent / name)


def yaml_text(values: Mapping[str, Any]) -> str:
    """``values`` as YAML in their own order: one key a line at the top, below it on one line what fits on one.

    ``read_document`` of it gives ``values`` again, floats to the last bit. Other readers of YAML, 1.1 or 1.2, agree.
    """
    root = _Dumper(io.StringIO()).represent_data(dict(values))
    _lay_out(root, indent=0, is_root=True)
    return str(yaml.serialize(root, Dumper=_Dumper, width=sys.maxsize, allow_unicode=True))


class _Source:
    """One text in YAML, a file or the value of one override, with its variables set aside."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.variables: list[str] = []
        if _OPEN in text or _CLOSE in text:
            raise RecipeFaults([f"{name}: has the character U+E000 or U+E001 in it; remove it."])
        self.text = _VARIABLE.sub(self._set_aside, text)

    def _set_aside(self, match: re.Match[str]) -> str:
        self.variables.append(match[1])
        return f"{_OPEN}{len(self.variables) - 1}{_CLOSE}"

    def _as_written(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: f"${{{self.variables[int(match[1])]}}}", text)

    def place(self, node: yaml.Node) -> Place:
        if self.name == _COMMAND_LINE:
            return _COMMAND_LINE_PLACE
        line = node.start_mark.line + 1
        return Place(f"{self.name}:{line}", line)

    def compose(self) -> yaml.Node | None:
        """The nodes of the text.

        Raises:
            RecipeFaults: the text is not YAML, or uses a part of YAML that recipes do without.
        """
        try:
            return yaml.compose(self.text, Loader=_Composer)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            problem = self._as_written(", ".join(filter(None, [error.context, error.problem])))
        except yaml.reader.ReaderError as error:
            line, problem = self.text[: error.position].count("\n") + 1, f"{chr(error.character)!r} is not allowed"
        place = self.name if self.name == _COMMAND_LINE else f"{self.name}:{line}"
        fix = "Look at the indentation, quotes and brackets here and just above"
        raise RecipeFaults([f"{place}: cannot be read as YAML: {problem}. {fix}."])

    def value(self, node: yaml.Node, path: KeyPath, document: Document) -> Any:
        """The plain value of ``node``; its places and faults go to ``document``."""
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, document)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                document.places[*path, index] = self.place(item)
            return [self.value(item, (*path, index), document) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), "YAML has three kinds of nodes"
        return self._scalar(node, path, document)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, document: Document) -> dict[str, Any]:
        values: dict[str, Any] = {}
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

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, document: Document) -> Any:
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
        """``text`` with its variables put in.

        Raises:
            LookupError: a variable is misspelled or not set; its argument says so.
        """
        if "${" in text:
            raise LookupError("expected ${NAME} or ${NAME:-default}, closed on the same line.")
        return _PLACEHOLDER.sub(lambda match: _variable(self.variables[int(match[1])]), text)


def _variable(body: str) -> str:
    """The value of ``NAME`` or ``NAME:-default``. As in a shell, the default also replaces an empty value."""
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
        raise LookupError(f"the value of {name} has ${{ in it, which would be a variable once more; write it out.")
    return value


class _Composer(yaml.SafeLoader):
    """YAML nodes, without the parts of YAML that make one key depend on another or change its type."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _unread("anchors and aliases (& and *) are not used in recipes: write the value out", event)
        if event.tag is not None:
            raise _unread(f"tags such as {event.tag} are not used in recipes: remove it", event)
        # Long before Python's own limit, which depends on who calls.
        if self._depth > _DEEPEST:
            raise _unread("brackets and indented blocks are nested too deeply", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _unread(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _file_text(path: Path) -> str:
    if not path_exists(path):
        raise RecipeFaults([f"{path}: {missing(path)}.{did_you_mean(nearest_path(path))}"])
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
    """A node as its text stands, for a sentence."""
    if isinstance(node, yaml.ScalarNode):
        return spelled(node.value) if node.style else str(node.value) or "null"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _override(document: Document, overrides: Sequence[str]) -> None:
    taken: list[KeyPath] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(map(_part, key.strip().split(".")))
        if not equals or "" in path or len(path) > _DEEPEST:
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
    """A part of a dotted key; that of a list is a number, which is short."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text


def _on_a_line(sentence: str) -> str:
    """Without line breaks; of a key or a value that goes on and on, the beginning, with the fix at the end."""
    line = " ".join(sentence.splitlines())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 300]} ... {line[-300:]}"


def _set(document: Document, path: KeyPath, text: str) -> None:
    """Put the value of one override where ``path`` leads, making the mappings on the way that are not there."""
    source = _Source(_COMMAND_LINE, text)
    try:
        node = source.compose()
    except RecipeFaults as error:
        found = error.faults[0].removeprefix(f"{_COMMAND_LINE}: ")
        document.note(_on_command_line(path, f"{dotted(path)} is {spelled(text)}, which {found}"))
        return
    container: Any = document.values
    for depth, part in enumerate(path):
        here = path[:depth]
        problem = _no_way_on(container, here, part)
        if problem is not None:
            document.note(_on_command_line(path, f"{dotted(path)} leads nowhere: {problem}."))
            return
        if isinstance(container, dict):
            path = (*here, str(part), *path[depth + 1 :])
        if depth < len(path) - 1:
            if isinstance(container, dict) and path[depth] not in container:
                container[path[depth]] = {}
                document.places[path[: depth + 1]] = _COMMAND_LINE_PLACE
            container = container[path[depth]]
    document.drop(path)
    document.places[path] = _COMMAND_LINE_PLACE
    container[path[-1]] = None if node is None else source.value(node, path, document)


def _no_way_on(container: Any, path: KeyPath, part: str | int) -> str | None:
    """Why ``part`` cannot follow ``path``; None when it can."""
    if isinstance(container, dict):
        return None
    if not isinstance(container, list):
        return f"{dotted(path)} is {spelled(container)}, which has no keys"
    if isinstance(part, int) and part < len(container):
        return None
    entries = "is empty" if not container else f"has the entries 0 to {len(container) - 1}"
    return f"{dotted(path)} {entries}, not {part}"


def _on_command_line(path: KeyPath, sentence: str) -> Fault:
    return Fault(path, _COMMAND_LINE_PLACE, sentence)


def _float_text(value: float) -> str:
    """The shortest spelling that reads back as ``value``, with the point that YAML 1.1 wants: 5.0e-6."""
    mantissa, e, exponent = repr(value).partition("e")
    if not e:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent[0]}{exponent[1:].lstrip('0')}"


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or ``plain_scalar`` would take for something else; indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only double quotes escape; line breaks such as U+0085 would be folded into spaces.
    style = None if isinstance(plain_scalar(text), str) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_mapping(dumper: yaml.SafeDumper, mapping: dict[str, Any]) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping.items(), flow_style=False)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", _float_text(value))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(float, _represent_float)


def _lay_out(node: yaml.Node, indent: int, before: int = 0, *, is_root: bool = False) -> None:
    """Choose for each mapping and list below ``node``: on one line, or an entry a line.

    Args:
        node: what to lay out.
        indent: column at which the line starts that its key stands on.
        before: characters on that line before it.
        is_root: it is the whole text, whose keys stand at column 0.
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
