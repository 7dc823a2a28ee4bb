"""The messages of an image topic, listed by their times without decoding a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tqdm import tqdm

from finetune.prepare.bag.messages import IMAGE, Stamped, decode_image, decode_message, stamp_ns
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.bag.topics import ImageTopic
from finetune.utils.errors import DataError, ListError


@dataclass(frozen=True, kw_only=True)
class MessagePlace:
    """
    Attributes:
        log_ns: when it was recorded, nanoseconds.
        number: among those of the topic that were recorded at this time, from 0.
        stamp_ns: time of its header, nanoseconds.
    """

    log_ns: int
    number: int
    stamp_ns: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """
    Attributes:
        topic: with what its first message says.
        places: of its messages, in the order in which they were recorded.
        frames: that its headers name.
        meters_per_unit: what the first message of a RealSense SDK says; 0.0 without.
        damaged: count of messages that are left out.
    """

    topic: ImageTopic
    places: Sequence[MessagePlace]
    frames: Sequence[str]
    meters_per_unit: float
    damaged: int

    def times_s(self, clock: str) -> list[float]:
        """Times of the messages, seconds, by the clock ``header`` or ``log``."""
        return [(place.log_ns if clock == "log" else place.stamp_ns) / 1e9 for place in self.places]


def list_stream(bag: Bag, topic: ImageTopic) -> Stream:
    """
    Raises:
        ListError: no message can be read.
        DataError: the bag is damaged.
    """
    places: list[MessagePlace] = []
    frames: dict[str, None] = {}
    unit, damaged = 0.0, 0
    at_one_time: Counter[int] = Counter()
    name, msgtype = topic.topic.name, topic.topic.msgtype
    # A large bag is read for minutes. The bar is for terminals only.
    total, words = topic.topic.count, f"listing {name}"
    for log_ns, raw in tqdm(bag.messages(name), words, total, leave=False, unit="message", disable=None):
        number = at_one_time[log_ns]
        at_one_time[log_ns] += 1
        try:
            message: Stamped
            if msgtype == IMAGE:
                message, unit_of_message = decode_image(raw, ros1=bag.ros1)
                unit = unit or unit_of_message
            else:
                message = cast(Stamped, decode_message(raw, msgtype, ros1=bag.ros1))
        except ValueError:
            damaged += 1
            continue
        places.append(MessagePlace(log_ns=log_ns, number=number, stamp_ns=stamp_ns(message)))
        frames[message.header.frame_id.lstrip("/")] = None
    if not places:
        raise ListError(bag.path, f"no message of {name} can be read", "Copy the bag again, or name another topic")
    return Stream(topic=topic, places=places, frames=list(frames), meters_per_unit=unit, damaged=damaged)


def read_message(bag: Bag, stream: Stream, index: int) -> object:
    """
    A message, as an object; no pixel is decoded.

    Raises:
        DataError: the bag is damaged there.
    """
    place = stream.places[index]
    raw = bag.read_message(stream.topic.topic.name, place.log_ns, place.number)
    try:
        if stream.topic.topic.msgtype == IMAGE:
            return decode_image(raw, ros1=bag.ros1)[0]
        return decode_message(raw, stream.topic.topic.msgtype, ros1=bag.ros1)
    except ValueError as error:
        source = describe_place(bag.path, stream, index)
        raise DataError(source, f"is damaged ({error})", "Copy the bag again") from None


def describe_place(path: object, stream: Stream, index: int) -> str:
    """Where a person finds a message: the bag, the topic, and the seconds since the topic began."""
    since_s = (stream.places[index].log_ns - stream.places[0].log_ns) / 1e9
    return f"{path}: {stream.topic.topic.name} at {since_s:.3f} s"
