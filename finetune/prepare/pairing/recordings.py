"""From series of files to recordings: which depth belongs to which images, and their frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path

from finetune.data.readers.matching import frame_key
from finetune.prepare.pairing.missing_kind import explain_missing
from finetune.prepare.pairing.rules import Paired, list_names, natural_order, pair_names
from finetune.prepare.pairing.series import Series
from finetune.utils.errors import ListError
from finetune.utils.text import count_noun

_MAX_NAMED = 6  # series of files that are not used
_SAY_WHICH = "Say which with --{option} PATTERN, such as --{option} '{label}'"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """
    Attributes:
        recording, stem, time_s: see ``FrameKey``.
        image, depth: its files, which may be one archive.
        camera: the part of the path that names one of several cameras; "" without one.
    """

    recording: str
    stem: str
    time_s: float | None
    image: Path
    depth: Path
    camera: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """
    Attributes:
        frames: recording after recording, each in order.
        notes: sentences about the rule, and about what is left over.
    """

    frames: Sequence[Frame]
    notes: Sequence[str]


def pair_series(series: Sequence[Series], folders: Sequence[Path], name: str, tolerance_s: float | None) -> Found:
    """
    Args:
        series: of one folder or several, as ``find_series`` gives them.
        folders: that were searched.
        name: of the recording where the paths name none.
        tolerance_s: see ``pair_names``.

    Raises:
        ListError: there are no images or no depth, several fit equally, or names do not pair up.
    """
    images, depths, archives = ([one for one in series if one.kind == kind] for kind in ("image", "depth", "both"))
    frames = [frame for one in archives for frame in _archive_frames(one, name)]
    notes = [f"image and depth are in one file: {count_noun(len(frames), 'frame')}"] if archives else []
    chosen: list[tuple[Series, Series]] = []
    if not archives or (images and depths):
        if not images or not depths:
            raise explain_missing(series, folders, name)
        chosen = _choose_images(images, depths)
    tally = _Tally()
    for depth, image in chosen:
        paired = pair_names(image.names, depth.names, tolerance_s, f"{image.label}, {depth.label}")
        frames += _make_frames(image, depth, paired, name)
        tally.add(image, depth, paired)
    used = {id(one) for pair in chosen for one in pair} | {id(one) for one in archives}
    notes += [*tally.sentences(), *_describe_unused([one for one in series if id(one) not in used])]
    return Found(frames=_sort_frames(frames), notes=notes)


@dataclass(kw_only=True)
class _Tally:
    """How many frames each rule paired, with an example, and which files are left over."""

    rules: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)
    depths: list[Path] = field(default_factory=list)

    def add(self, images: Series, depths: Series, paired: Paired) -> None:
        rule, comma, rest = paired.rule.partition(",")
        self.rules[rule] += len(paired.pairs)
        first, second = paired.pairs[0]
        self.examples.setdefault(rule, f"{_join(images, first)} with {_join(depths, second)}{comma}{rest}")
        for left, side, place in ((self.images, images, 0), (self.depths, depths, 1)):
            taken = {pair[place] for pair in paired.pairs}
            left += [side.folder / name for i, name in enumerate(side.names) if i not in taken]

    def sentences(self) -> list[str]:
        notes = [
            f"{count_noun(count, 'frame')} paired by {rule}: {self.examples[rule]}"
            for rule, count in self.rules.items()
        ]
        for kind, left, other in (("image", self.images, "a depth map"), ("depth map", self.depths, "an image")):
            if left:
                notes.append(f"left over, without {other}: {count_noun(len(left), kind)}, {list_names(left)}")
        return notes


def _choose_images(images: Sequence[Series], depths: Sequence[Series]) -> list[tuple[Series, Series]]:
    """
    (depth, images) of each series of depth that has images.

    Raises:
        ListError: several series fit equally.
    """
    chosen: dict[int, list[tuple[tuple[int, int], Series, Series]]] = {}
    alone = len(images) == len(depths) == 1
    for depth in depths:
        fits = [(fit, image) for image in images if (fit := _compare_places(image, depth, alone)) is not None]
        if not fits:
            continue
        best = max(fit for fit, _ in fits)
        nearest = sorted((image for fit, image in fits if fit == best), key=lambda image: image.rank)
        # Images and depth of one name in one folder are more surely a pair than those of two folders.
        if len(nearest) > 1 and nearest[0].rank == nearest[1].rank:
            nearest = _break_tie(nearest, depth, "images")
        chosen.setdefault(id(nearest[0]), []).append((best, depth, nearest[0]))
    pairs = []
    for several in chosen.values():
        best = max(fit for fit, _, _ in several)
        nearest_depths = [(depth, image) for fit, depth, image in several if fit == best]
        if len(nearest_depths) > 1:
            (kept, *_) = _break_tie([depth for depth, _ in nearest_depths], nearest_depths[0][1], "depth")
            nearest_depths = [(depth, image) for depth, image in nearest_depths if depth is kept]
        pairs += nearest_depths
    if not pairs:
        raise ListError(
            f"{images[0].label}, {depths[0].label}",
            f"none of {len(images)} series of images is of the same recording as one of {len(depths)} series of depth",
            _SAY_WHICH.format(option="images", label=images[0].label),
        )
    return pairs


def _break_tie(series: Sequence[Series], other: Series, option: str) -> list[Series]:
    """
    The one that is in the folder of ``other``, if just one is.

    Raises:
        ListError: several are equally near.
    """
    near = [one for one in series if one.folder == other.folder]
    if len(near) == 1:
        return near
    what = "images" if option == "images" else "depth maps"
    listed = ", ".join(f"{one.label} ({count_noun(len(one.names), 'file')})" for one in series[:4])
    found = f"several {what} fit {other.label}: {listed}"
    raise ListError(other.label, found, _SAY_WHICH.format(option=option, label=series[0].label))


def _compare_places(image: Series, depth: Series, alone: bool) -> tuple[int, int] | None:
    """How well two series fit by their paths: words that they share, and the others less than 0; None: not at all."""
    shared = len(_shared_place(image.place, depth.place))
    own, other = len(image.place) - shared, len(depth.place) - shared
    if max(own, other) > 1 and min(own, other) and not shared:
        return None  # such as scans/a/rgb and scans/b/depth
    if not alone and ((not shared and own and other) or image.camera.lower() != depth.camera.lower() != ""):
        return None
    return shared, -(own + other)


def _shared_place(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The longest sequence of parts that both paths have, in order."""
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return [first[i] for block in matcher.get_matching_blocks() for i in range(block.a, block.a + block.size)]


def _make_frames(images: Series, depth: Series, paired: Paired, name: str) -> Iterable[Frame]:
    shared = _shared_place(images.place, depth.place)
    recording = "/".join(part for part in shared if part not in _camera_words(images.camera)) or name
    times: Sequence[float | None] = paired.times_s or [None] * len(paired.pairs)
    for (i, k), time_s in zip(paired.pairs, times, strict=True):
        image = images.folder / images.names[i]
        yield Frame(
            recording=recording,
            stem=frame_key(image.stem) or image.stem,
            time_s=time_s,
            image=image,
            depth=depth.folder / depth.names[k],
            camera=images.camera,
        )


def _camera_words(camera: str) -> set[str]:
    """The camera as it may be a part of a place, with and without its word."""
    digits = "".join(sign for sign in camera if sign.isdigit())
    return {camera, digits, camera.rstrip("0123456789").rstrip("-_ ")} - {""}


def _archive_frames(series: Series, name: str) -> Iterable[Frame]:
    recording = "/".join(series.place) or name
    for file in sorted(series.names, key=natural_order):
        path = series.folder / file
        yield Frame(recording=recording, stem=path.stem, time_s=None, image=path, depth=path)


def _sort_frames(frames: Sequence[Frame]) -> list[Frame]:
    """Recording after recording; cameras of one are interleaved by time or by number, and named in the stems."""
    recordings: dict[str, list[Frame]] = {}
    for frame in frames:
        recordings.setdefault(frame.recording, []).append(frame)
    ordered: list[Frame] = []
    for members in recordings.values():
        if len({frame.camera for frame in members}) > 1:
            members = [replace(frame, stem=f"{frame.camera}_{frame.stem}") for frame in members]
        several = len({frame.image.parent for frame in members}) > 1
        ordered += sorted(members, key=_time_order) if several else members
    return ordered


def _time_order(frame: Frame) -> tuple[float, tuple[tuple[int, int, str], ...], str]:
    return frame.time_s or 0.0, natural_order(frame.image.stem), frame.stem


def _describe_unused(series: Sequence[Series]) -> list[str]:
    what = {
        "other": "neither images nor depth",
        "picture": "pictures of depth",
        "image": "images",
        "depth": "depth maps",
        "hidden": "whose names begin with a dot",
    }
    notes = [
        f"not used: {one.label} ({count_noun(len(one.names), 'file')}, {what[one.kind]})" for one in series[:_MAX_NAMED]
    ]
    more = len(series) - _MAX_NAMED
    return [*notes, f"not used: {more} more series of files"] if more > 0 else notes


def _join(series: Series, index: int) -> str:
    folder = series.label.rpartition("/")[0]
    return f"{folder}/{series.names[index]}" if folder else series.names[index]
