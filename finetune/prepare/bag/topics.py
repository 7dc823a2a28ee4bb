"""Which topics of a bag hold color and depth: the ones that the user names, or a list to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from finetune.prepare.bag.cameras import list_info_topics, strip_transport
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
from finetune.utils.errors import FinetuneError, ListError
from finetune.utils.text import did_you_mean, nearest

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


def choose_topics(bag: Bag, color: str | None, depth: str | None) -> tuple[ImageTopic, ImageTopic]:
    """
    Args:
        bag: one with images.
        color, depth: topics that the user named.

    Returns:
        Both topics, with what their first messages say.

    Raises:
        FinetuneError: one of them is not named; the text lists all topics of images and suggests two.
        ListError: one is not in the bag, is of another type, or is empty.
    """
    images = list_images(bag)
    for name, what in ((color, "color"), (depth, "depth")):
        if name is not None:
            _require_images(bag, name, what, images)
    if color is None or depth is None:
        raise FinetuneError(_ask_for_topics(bag, images, color, depth))
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
    listed = "\n".join(f"  {image.line}" for image in images) or "  none"
    topic = bag.topics.get(_named(bag, name))
    if topic is None:
        perhaps = did_you_mean(nearest(name, [image.topic.name for image in images]))
        raise FinetuneError(f"{bag.path}: has no topic {name} for --{what}.{perhaps} Topics of images:\n{listed}")
    if topic.msgtype not in IMAGES:
        expected = "Image and CompressedImage of sensor_msgs are read"
        raise FinetuneError(
            f"{bag.path}: --{what} {name} is of type {topic.msgtype}; {expected}. Topics of images:\n{listed}"
        )
    if not topic.count:
        raise ListError(bag.path, f"--{what} {name} has no message", "Name a topic with messages, or record again")


def _ask_for_topics(bag: Bag, images: Sequence[ImageTopic], color: str | None, depth: str | None) -> str:
    """A text that lists the topics, with the words to call again."""
    if not images:
        types = sorted({topic.msgtype for topic in bag.topics.values()})
        return (
            f"{bag.path}: has no topic of Image or CompressedImage (types: {', '.join(types[:12]) or 'none'}). "
            "Messages of other types are not read: let the driver record ROS' own images."
        )
    suggested_color, suggested_depth = suggest_topics(images)
    words = f"--color {color or suggested_color or 'TOPIC'} --depth {depth or suggested_depth or 'TOPIC'}"
    lines = [
        f"{bag.path}: which topics hold color and depth? Call again with {words}, or with two others of:",
        *(f"  {image.line}" for image in images),
        f"camera_info: {', '.join(list_info_topics(bag)) or 'none'}",
        f"transforms: {', '.join(sorted(t.name for t in bag.topics.values() if t.msgtype in TF_MESSAGES)) or 'none'}",
    ]
    without = [
        image for image in images if strip_transport(image.topic.name) == image.topic.name and not image.encoding
    ]
    if without:
        lines.append(f"A topic without messages cannot be taken: {', '.join(image.topic.name for image in without)}.")
    return "\n".join(lines)
