"""Which topics of a bag hold color and depth: the ones that the user names, or a list to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from finetune.prepare.bag.cameras import list_info_topics
from finetune.prepare.bag.image_messages import holds_color, holds_depth
from finetune.prepare.bag.messages import (
    IMAGE,
    IMAGES,
    TF_MESSAGES,
    CompressedMessage,
    decode_image,
    decode_message,
)
from finetune.prepare.bag.open_bag import Bag, Topic
from finetune.utils.errors import FileFault, ListError
from finetune.utils.text import nearest

_DEPTH_WORDS = ("depth", "disparity", "z16", "range")
_INFRARED_WORDS = ("infra", "/ir/", "/ir_", "confidence", "left_ir", "right_ir")


@dataclass(frozen=True, kw_only=True)
class ImageTopic:
    """
    Attributes:
        topic: of images.
        encoding: of its first message; the format of a compressed one; "" without a message that can be read.
        height, width: of its first message, pixels; 0 where only decoding would tell.
        frame: that its first message names.
    """

    topic: Topic
    encoding: str = ""
    height: int = 0
    width: int = 0
    frame: str = ""

    @property
    def line(self) -> str:
        """A row of the list of topics."""
        size = f"{self.width}x{self.height} " if self.width else ""
        kind = self.topic.msgtype.rpartition("/")[2]
        frame = f", frame {self.frame}" if self.frame else ""
        return f"{self.topic.name}: {self.topic.count} of {kind}, {size}{self.encoding or 'empty'}{frame}"


class TopicsNotNamed(FileFault):
    """A topic is not named, or is not one of images.

    Attributes:
        lines: a list of the topics of images, to print before the sentence.
    """

    def __init__(self, source: object, found: str, fix: str, lines: Sequence[str] = ()) -> None:
        super().__init__(source, found, fix)
        self.lines = lines


def choose_topics(bag: Bag, color: str | None, depth: str | None) -> tuple[ImageTopic, ImageTopic]:
    """
    Args:
        bag: one with images.
        color, depth: topics that the user named.

    Returns:
        Both topics, with what their first messages say.

    Raises:
        TopicsNotNamed: one of them is not named, is not in the bag or is of another type; lists those of images.
        ListError: one is empty, or the bag has no images.
    """
    images = list_images(bag)
    for name, what in ((color, "color"), (depth, "depth")):
        if name is not None:
            _require_images(bag, name, what, images)
    if color is None or depth is None:
        raise _ask_for_topics(bag, images, color, depth)
    known = {image.topic.name: image for image in images}
    return known[_named(bag, color)], known[_named(bag, depth)]


def list_images(bag: Bag) -> list[ImageTopic]:
    """The topics of images, by name; one message of each is read and none is decoded."""
    names = sorted(name for name, topic in bag.topics.items() if topic.msgtype in IMAGES)
    return [_look_at(bag, bag.topics[name]) for name in names]


def suggest_topics(images: Sequence[ImageTopic]) -> tuple[str | None, str | None]:
    """The topics that most probably are color and depth: registered depth first, then what is not compressed."""
    depths = [image for image in images if holds_depth(image.encoding) and _has(image, _DEPTH_WORDS)]
    depths = depths or [image for image in images if image.encoding.lower() in ("16uc1", "32fc1")]
    depths.sort(key=lambda image: (not _has(image, ("aligned", "registered", "to_color", "to_rgb")), _rank(image)))
    colors = [
        image
        for image in images
        if holds_color(image.encoding) and not _has(image, (*_DEPTH_WORDS[:2], *_INFRARED_WORDS))
    ]
    colors.sort(key=lambda image: (not _has(image, ("color", "rgb")), _rank(image)))
    return (colors[0].topic.name if colors else None), (depths[0].topic.name if depths else None)


def _rank(image: ImageTopic) -> tuple[bool, str]:
    return image.topic.msgtype != IMAGE, image.topic.name


def _has(image: ImageTopic, words: Sequence[str]) -> bool:
    return any(word in image.topic.name.lower() for word in words)


def _look_at(bag: Bag, topic: Topic) -> ImageTopic:
    for _, raw in bag.messages(topic.name):
        try:
            if topic.msgtype == IMAGE:
                message, _ = decode_image(raw, ros1=bag.ros1)
                return ImageTopic(
                    topic=topic,
                    encoding=message.encoding,
                    height=message.height,
                    width=message.width,
                    frame=message.header.frame_id.lstrip("/"),
                )
            compressed = cast(CompressedMessage, decode_message(raw, topic.msgtype, ros1=bag.ros1))
        except ValueError:
            break  # reading the frames names the message
        return ImageTopic(topic=topic, encoding=compressed.format, frame=compressed.header.frame_id.lstrip("/"))
    return ImageTopic(topic=topic)


def _named(bag: Bag, name: str) -> str:
    """The topic as the bag spells it; ROS takes a name without its first slash as well."""
    return name if name in bag.topics else f"/{name.strip('/')}"


def _require_images(bag: Bag, name: str, what: str, images: Sequence[ImageTopic]) -> None:
    topic = bag.topics.get(_named(bag, name))
    listed = _list_lines(bag, images)
    if topic is None:
        perhaps = nearest(name, [image.topic.name for image in images])
        fix = "Name a topic of images" if perhaps is None else f"Name a topic of images, such as {perhaps}"
        raise TopicsNotNamed(bag.path, f"has no topic {name} for --{what}", fix, listed)
    if topic.msgtype not in IMAGES:
        found = f"--{what} {name} is of type {topic.msgtype}, and Image and CompressedImage of sensor_msgs are read"
        raise TopicsNotNamed(bag.path, found, "Name a topic of images", listed)
    if not topic.count:
        raise ListError(bag.path, f"--{what} {name} has no message", "Name a topic with messages, or record again")


def _ask_for_topics(bag: Bag, images: Sequence[ImageTopic], color: str | None, depth: str | None) -> FileFault:
    """The error that lists the topics and has the words to call again."""
    if not images:
        types = sorted({topic.msgtype for topic in bag.topics.values()})
        return ListError(
            bag.path,
            f"has no topic of Image or CompressedImage (types: {', '.join(types[:12]) or 'none'})",
            "Let the driver record ROS' own messages; others are not read",
        )
    suggested_color, suggested_depth = suggest_topics(images)
    words = f"--color {color or suggested_color or 'TOPIC'} --depth {depth or suggested_depth or 'TOPIC'}"
    lacking = " and ".join(f"--{what}" for what, name in (("color", color), ("depth", depth)) if name is None)
    found = f"{lacking} {'is' if color or depth else 'are'} not given"
    return TopicsNotNamed(bag.path, found, f"Name the topics, such as {words}", _list_lines(bag, images))


def _list_lines(bag: Bag, images: Sequence[ImageTopic]) -> list[str]:
    transforms = sorted(topic.name for topic in bag.topics.values() if topic.msgtype in TF_MESSAGES)
    return [
        f"{bag.path} holds images on",
        *(f"  {image.line}" for image in images),
        f"  camera_info: {', '.join(list_info_topics(bag)) or 'none'}",
        f"  transforms: {', '.join(transforms) or 'none'}",
    ]
