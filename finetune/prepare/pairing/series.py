"""Series of files: those of one folder whose names differ in numbers alone, and whether they are images or depth."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from finetune.data.readers.files import DEPTH_SUFFIXES, IMAGE_SUFFIXES
from finetune.data.readers.listing import raise_closed
from finetune.data.readers.matching import DEPTH_WORDS, IMAGE_WORDS, OTHER_WORDS, frame_key, words_of
from finetune.prepare.output_folder import SUMMARY
from finetune.prepare.pairing.file_content import Content, find_content
from finetune.utils.errors import ListError
from finetune.utils.paths import real_path

# image; depth; both in each file; other: masks and the like; picture: depth as a picture, which holds no measurement;
# hidden: files whose names begin with a dot.
Kind = Literal["image", "depth", "both", "other", "picture", "hidden"]
_SUFFIXES = frozenset((*IMAGE_SUFFIXES, *DEPTH_SUFFIXES))
# Words that name an image for sure. The others of IMAGE_WORDS also occur in names of depth, as in left/depth.
_SURE_IMAGE_WORDS = {"rgb", "bgr", "color", "colour", "photo", "ir", "infrared", "gray", "grey", "thermal"}
# Of several series of images, the one with these words comes later.
_LATER_WORDS = {"ir", "infrared", "gray", "grey", "mono", "thermal", "right", "preview", "overlay"}
# Words that say nothing of the place where a file was recorded.
_PLAIN_WORDS = {
    *("data", "dataset", "raw", "frame", "file", "capture", "png", "jpg", "npy", "map", "sync", "out", "output"),
    *("pic", "picture", "sample", "timestamp", "time"),
}
_PLAIN_WORDS_OF_NAMES = {"f", "im", "d", "c", "s", "t", "us", "ns", "ms"}
_DIGITS = re.compile(r"\d+")
_CAMERA = re.compile(r"(?:cam|camera|image|img|view|sensor)[-_ ]?(?:\d{1,3}|front|rear|back|left|right)", re.IGNORECASE)
# In a folder with more forms of names, words for the kind tell series apart and not the rest of the name.
_MAX_FORMS = 12
_NEAR = 3  # of the folders that a file is in, so many tell what it holds


@dataclass(frozen=True, kw_only=True)
class Series:
    """
    Attributes:
        folder: that holds the files.
        label: a pattern that names them, from where the user looks, such as ``lab/rgb/*.png``.
        place: words of the path and the name that say where it was recorded, without those that say what it holds.
        camera: the part of the path that names one of several cameras; "" without one.
        names: of the files, sorted.
        kind: what the files hold.
        rank: series of images with a lower one are taken first.
    """

    folder: Path
    label: str
    place: tuple[str, ...]
    camera: str
    names: Sequence[str]
    kind: Kind
    rank: int = 0


def find_series(root: Path, prefix: str, *, reads_8_bit: bool, reads_channels: bool) -> list[Series]:
    """
    Args:
        root: a folder, which is searched with all folders in it; hidden ones are left out.
        prefix: the name of ``root`` where there are several of them, else "".
        reads_8_bit: depth of 8 bits counts as depth.
        reads_channels: depth of several channels counts as depth.

    Returns:
        The series of files whose endings are those of images or depth maps, sorted by folder and name.
    """
    found: list[Series] = []
    for folder, every_name in _walk(root):
        parts = (*((prefix,) if prefix else ()), *folder.relative_to(root).parts)
        names = [name for name in every_name if not name.startswith(".")]
        if hidden := [name for name in every_name if name.startswith(".")]:
            label = "/".join((*parts, ".*"))
            found.append(Series(folder=folder, label=label, place=parts, camera="", names=hidden, kind="hidden"))
        forms = _group_names(names)
        contents = {form: find_content([folder / name for name in members]) for form, members in forms.items()}
        # Where both kinds are in one folder, its name tells nothing of either.
        mixed = "depth" in contents.values() and len(set(contents.values())) > 1
        shared = set.intersection(*map(words_of, forms)) if len(forms) > 1 else set()
        for form, members in forms.items():
            words = [words_of(form) - shared, *([] if mixed else [_words(part) for part in parts[::-1][:_NEAR]])]
            found.append(
                Series(
                    folder=folder,
                    label="/".join((*parts, re.sub(r"#(?:[-_. ]?#)*", "*", form))),
                    place=_find_place(parts, _stem(form).replace("#", "")),
                    camera=next((part for part in reversed(parts) if _CAMERA.fullmatch(part)), ""),
                    names=members,
                    kind=_decide_kind(words, contents[form], reads_8_bit, reads_channels),
                    rank=len(set().union(*words[:2]) & _LATER_WORDS),
                )
            )
    return found


def narrow_series(series: Sequence[Series], pattern: str, kind: Kind) -> list[Series]:
    """
    Args:
        series: all.
        pattern: of the files that are of ``kind``, as ``Series.label`` writes it; ``*`` stands for anything.
        kind: ``image`` or ``depth``.

    Returns:
        The series, of which those files alone are of that kind.

    Raises:
        ListError: no file matches.
    """
    narrowed = []
    wanted = re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern)))
    for one in series:
        folder = one.label.rpartition("/")[0]
        names = [name for name in one.names if wanted.fullmatch(f"{folder}/{name}" if folder else name)]
        if one.kind == "hidden":
            names = []
        if names:
            narrowed.append(replace(one, names=names, kind=kind))
        if len(names) < len(one.names):
            left = [name for name in one.names if name not in set(names)]
            narrowed.append(replace(one, names=left, kind="other" if one.kind == kind else one.kind))
    if not any(one.kind == kind for one in narrowed):
        option = "--images" if kind == "image" else "--depth"
        fix = "Write the path from the folder on, with * for what differs, in quotes"
        raise ListError(f"{option} {pattern}", "matches no file", fix)
    return narrowed


def _walk(root: Path) -> Iterable[tuple[Path, list[str]]]:
    """Folders, sorted, with the names of their files that may be images or depth maps. Links are followed once."""
    seen: set[Path] = set()
    for name, folders, files in os.walk(root, onerror=raise_closed, followlinks=True):
        folder = Path(name)
        # A folder that an earlier call prepared holds copies of what is next to it.
        if (real := real_path(folder)) in seen or (folder != root and SUMMARY in files):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        # A Mac writes ._0001.png next to each 0001.png on disks of other systems: no image is in it.
        kept = [file for file in files if not file.startswith("._") and _suffix(file) in _SUFFIXES]
        if kept:
            yield folder, sorted(kept)


def _group_names(names: Sequence[str]) -> Mapping[str, list[str]]:
    """Form, such as ``rgb#.png``, -> names."""
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(_DIGITS.sub("#", _stem(name)) + _suffix(name), []).append(name)
    if len(forms) <= _MAX_FORMS:
        return forms
    by_words: dict[str, list[str]] = {}
    for form, members in forms.items():
        words = sorted(words_of(form) & (IMAGE_WORDS | DEPTH_WORDS | OTHER_WORDS))
        by_words.setdefault(f"{'#'.join(['', *words, ''])}{_suffix(form)}", []).extend(members)
    return {form: sorted(members) for form, members in by_words.items()}


def _decide_kind(words: Sequence[set[str]], content: Content, reads_8_bit: bool, reads_channels: bool) -> Kind:
    """
    Args:
        words: of the name, then of the folders, from the nearest.
        content: what the files are.
        reads_8_bit, reads_channels: see ``find_series``.
    """
    if content == "both":
        return "both"
    of_kind = DEPTH_WORDS | _SURE_IMAGE_WORDS
    if words[0] & OTHER_WORDS or (words[1:] and words[1] & OTHER_WORDS and not words[0] & of_kind):
        return "other"
    says_depth = next((bool(found & DEPTH_WORDS) for found in words if found & of_kind), None)
    if content == "depth":
        return "image" if says_depth is False else "depth"
    if content == "unknown":
        return {True: "depth", False: "image", None: "other"}[says_depth]  # type: ignore[return-value]
    if says_depth:
        readable = reads_8_bit if content == "gray" else reads_channels
        return "depth" if readable else "picture"
    if content == "channels":
        return "depth" if reads_channels else "picture"
    return "image"


def _find_place(parts: Sequence[str], name: str) -> tuple[str, ...]:
    """What the folders and the name of files say about where they were recorded."""
    kinds = IMAGE_WORDS | DEPTH_WORDS | _PLAIN_WORDS
    words = kinds | {f"{word}s" for word in kinds}
    kept = [*(frame_key(part, words) for part in parts), frame_key(name, words | _PLAIN_WORDS_OF_NAMES)]
    return tuple(part for part in kept if part)


def _words(part: str) -> set[str]:
    """Words of the name of a folder, also in the singular."""
    words = words_of(f"{part}.")
    return words | {word.removesuffix("s") for word in words}


# os.path is ten times as quick as Path, which counts for thousands of files.
def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122
