"""Match images to depth maps in folders: by stem, or by names that differ only in a word for their kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from finetune.data.readers.arrays import ARCHIVE_SUFFIXES
from finetune.data.readers.files import DEPTH_SUFFIXES, IMAGE_SUFFIXES
from finetune.data.readers.formats import foreign_fault
from finetune.utils.errors import ListError
from finetune.utils.paths import is_file, list_folder, real_path
from finetune.utils.text import count_noun

IMAGE_WORDS = {"rgb", "bgr", "color", "colour", "image", "img", "photo", "left", "gray", "grey", "ir", "infrared"}
DEPTH_WORDS = {"depth", "depthmap", "dpt", "disp", "disparity", "range"}
# In names of files that belong to a frame but are neither: masks, and what other programs write.
OTHER_WORDS = {"mask", "conf", "confidence", "valid", "sky", "normal", "normals", "seg", "semantic", "label"}
# A word of a name: it begins with a capital letter, or after a digit or a sign.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# Kinds of files that only ever hold an image, so that a file of another kind with the same stem holds depth.
_IMAGES_ONLY = (".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
_HEAD_BYTES = 1024  # enough to recognize the format of a file
_LIST = "name the pairs in a list file"


def match_frames(image_dir: str, depth_dir: str) -> list[tuple[str, str]]:
    """
    Args:
        image_dir, depth_dir: two folders. The image and the depth map of a frame have the same stem, ``0412.jpg`` and
            ``0412.png``, or stems that differ in a word for their kind: ``0412_color``, ``0412_depth`` or ``rgb0412``,
            ``depth0412``. Both may be one folder if the words or the kinds of files tell the two apart. Folders in
            them, hidden files and files of other kinds are left out.

    Returns:
        (image, depth) names in their folders, sorted by what the two stems share.

    Raises:
        ListError: a folder cannot be read, holds no file of the kind or two with one stem, or a stem has no
            counterpart.
    """
    if real_path(image_dir) == real_path(depth_dir):
        return _match_in_folder(image_dir)
    images, depths = _list_names(image_dir, IMAGE_SUFFIXES), _list_names(depth_dir, DEPTH_SUFFIXES)
    by_stem = _pair_up(_index_by_stem(images, image_dir), _index_by_stem(depths, depth_dir))
    if by_stem is not None:
        return by_stem
    for own, others in ((images, depths), (_without_side_files(images), _without_side_files(depths))):
        by_key = _pair_up(_index_by_key(own), _index_by_key(others))
        if by_key is not None:
            return by_key
    fix = f"Give both files of a frame one stem, or {_LIST}"
    raise ListError(
        f"{image_dir}, {depth_dir}",
        _describe_unpaired(_index_by_stem(images, image_dir), _index_by_stem(depths, depth_dir)),
        fix,
    )


def frame_key(stem: str, words: Set[str] = IMAGE_WORDS | DEPTH_WORDS) -> str:
    """What the stems of an image and its depth map share: the stem without words for its kind and signs at its ends."""
    # 0412_color -> 0412, rgb0412 -> 0412, frame-000001.depth -> frame-000001, 0412_left_depth -> 0412
    kept = _WORD.sub(lambda word: "" if word.group().lower() in words else word.group(), stem)
    return re.sub(r"([-_. ])[-_. ]+", r"\1", kept).strip("-_. ")


def _match_in_folder(folder: str) -> list[tuple[str, str]]:
    """
    Raises:
        ListError: the names do not tell images and depth maps apart, or do not come in pairs.
    """
    names = _without_side_files(_list_names(folder, tuple(dict.fromkeys((*IMAGE_SUFFIXES, *DEPTH_SUFFIXES)))))
    if all(name.lower().endswith(ARCHIVE_SUFFIXES) for name in names):
        return [(name, name) for name in names]  # each may hold both arrays, rgb and depth
    words = DEPTH_WORDS - _shared_words(names)
    depths = [name for name in names if words_of(name) & words]
    if not depths:
        depths = _depths_by_suffix(names)
    images = [name for name in names if name not in set(depths)]
    if not depths or not images:
        raise ListError(
            folder,
            "is image_dir and depth_dir, and the names in it do not tell which file is an image and which is depth",
            f"Write rgb and depth, or color and depth, into the names; name two folders; or {_LIST}",
        )
    for kind, found in (("images", images), ("depth maps", depths)):
        key, count = Counter(frame_key(Path(name).stem) for name in found).most_common(1)[0]
        if count > 1:
            of_key = ", ".join(name for name in found if frame_key(Path(name).stem) == key)
            raise ListError(folder, f"holds {count} {kind} of frame {key!r} ({of_key})", f"To choose, {_LIST}")
    by_key = _pair_up(_index_by_key(images), _index_by_key(depths))
    if by_key is None:
        alone = _describe_unpaired(_index_by_key(images) or {}, _index_by_key(depths) or {})
        raise ListError(folder, alone, f"Give the two names of a frame the same number, or {_LIST}")
    return by_key


def _without_side_files(names: Sequence[str]) -> list[str]:
    """The names but for masks and the like of frames among them. The word alone does not decide: sky may be a scene."""
    words = OTHER_WORDS - _shared_words(names)
    plain = {frame_key(Path(name).stem) for name in names if not words_of(name) & words}
    every_word = IMAGE_WORDS | DEPTH_WORDS | words
    return [name for name in names if not words_of(name) & words or frame_key(Path(name).stem, every_word) not in plain]


def _depths_by_suffix(names: Iterable[str]) -> list[str]:
    """The depth maps of a folder, if their ending tells: ``.png`` next to ``.jpg``, ``.npy`` next to ``.png``."""
    suffixes = {Path(name).suffix.lower() for name in names}
    images = suffixes & set(_IMAGES_ONLY) or suffixes & {".png"}
    others = suffixes - images
    if not images or len(others) != 1:
        return []
    return [name for name in names if Path(name).suffix.lower() in others & set(DEPTH_SUFFIXES)]


def _shared_words(names: Iterable[str]) -> set[str]:
    """Words that all names have, so they tell nothing apart."""
    return set.intersection(*map(words_of, names))


def words_of(name: str) -> set[str]:
    """The words of a file name without its ending, in lower case."""
    return {word.lower() for word in _WORD.findall(Path(name).stem)}


def _list_names(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files of these kinds in a folder, sorted."""
    try:
        paths = list_folder(folder)
    except OSError as error:
        raise ListError(folder, f"cannot be read ({error.strerror})", "Correct image_dir and depth_dir") from None
    found = [path.name for path in paths if not path.name.startswith(".") and path.suffix.lower() in suffixes]
    if not found:
        raise _no_files_error(folder, paths, suffixes)
    return found


def _no_files_error(folder: str, paths: Sequence[Path], suffixes: tuple[str, ...]) -> ListError:
    """The error for a folder without a file of these kinds: what its files are instead, and what to do with them."""
    others = [path for path in paths if is_file(path) and not path.name.startswith(".") and path.suffix]
    found, fix = f"holds no {', '.join(suffixes)}", "Correct image_dir and depth_dir"
    if not others:
        return ListError(folder, found, fix)
    foreign = describe_foreign(others)
    if foreign is None:
        ending, count = Counter(path.suffix.lower() for path in others).most_common(1)[0]
        found += f", but {count_noun(count, 'file')} whose name ends in {ending}"
        return ListError(folder, found, f"{fix}, or write the files as one of these kinds")
    return ListError(folder, f"{found}, but {foreign[0]}", foreign[1])


def describe_foreign(paths: Sequence[Path]) -> tuple[str, str] | None:
    """
    Args:
        paths: files that are no images and no depth maps by their endings.

    Returns:
        What those of the most frequent ending are, and what to do with them; None if their format is not recognized.
    """
    files = [path for path in paths if not path.name.startswith(".") and path.suffix]
    counts = Counter(path.suffix.lower() for path in files)
    for ending, count in counts.most_common():
        first = next(path for path in files if path.suffix.lower() == ending)
        try:
            with first.open("rb") as file:
                fault = foreign_fault(file.read(_HEAD_BYTES), first.name, first.stat().st_size)
        except OSError:
            continue
        if fault is not None:
            found = f"{count_noun(count, 'file')} whose name ends in {ending}: {first.name} {fault.found}"
            return found, fault.fix
    return None


def _index_by_stem(names: Iterable[str], folder: str) -> dict[str, str]:
    """
    Raises:
        ListError: two files have one stem.
    """
    found: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in found:
            raise ListError(
                folder, f"holds {found[stem]} and {name}, with the same stem", f"Remove one of them, or {_LIST}"
            )
        found[stem] = name
    return found


def _index_by_key(names: Iterable[str]) -> dict[str, str] | None:
    """``frame_key`` -> name; None if two files have the same key, or one has none."""
    listed = list(names)
    found = {frame_key(Path(name).stem): name for name in listed}
    return found if len(found) == len(listed) and "" not in found else None


def _pair_up(images: Mapping[str, str] | None, depths: Mapping[str, str] | None) -> list[tuple[str, str]] | None:
    """(image, depth) of each key; None if a key lacks its counterpart."""
    if images is None or depths is None or images.keys() != depths.keys():
        return None
    return [(images[key], depths[key]) for key in sorted(images)]


def _describe_unpaired(images: Mapping[str, str], depths: Mapping[str, str]) -> str:
    """How many of each kind have no counterpart, and the first of them."""
    found = []
    for own, others, kind, other in ((images, depths, "images", "depth map"), (depths, images, "depth maps", "image")):
        keys = sorted(own.keys() - others.keys())
        if keys:
            dots = ", ..." if len(keys) > 3 else ""
            found.append(f"{len(keys)} of {len(own)} {kind} have no {other} ({', '.join(keys[:3])}{dots})")
    return "; ".join(found)
