"""The contract of readers, ways to read their frames, and the count of frames that cannot be read."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from finetune.data.readers.bits import Bits
from finetune.data.readers.channels import DepthChannels
from finetune.data.readers.image_levels import ImageLevels
from finetune.data.sample import DepthSample
from finetune.utils.errors import FileFault

if TYPE_CHECKING:
    from finetune.data.preprocessing import Preprocessing

DepthIs = Literal["z", "range", "disparity", "inverse", "affine_inverse", "z_buffer"]

# Where bad samples are skipped, a run ends once they are more than this number and more than this share of all.
FEW_BAD_SAMPLES, FEW_BAD_PERCENT = 10, 1
NAMED_BAD_SAMPLES = 10


class Reader(ABC):
    """The frames of one data entry: how many there are, and frame i as a ``DepthSample``.

    A reader inherits this class and is a frozen pydantic dataclass; its fields are the options of its recipe entry.
    ``__len__`` and ``__getitem__`` are all that it has to write. Everything else here has a default, and a reader that
    knows better overrides it by a field, a class attribute, a property or a method of the same name. Making a reader
    opens nothing: files are opened when a frame is asked for.

    Attributes:
        root: folder that the paths of its files start from; None where frames have no files.
        meters_per_unit: a stored number times this is meters; None where there is no such number, as for disparity, or
            where the reader of one data set needs no option for it.
        invalid: stored numbers that mean "nothing measured"; None where the reader has no option for them.
        min_depth_m: depths up to this are not valid, meters.
        max_depth_m: depths beyond this are not valid, meters; None for no limit.
        depth_is: what the stored numbers are: depth along the optical axis, distance along the ray, disparity, inverse
            depth, inverse depth of unknown scale and shift, or a renderer's depth buffer.
        bits: how stored numbers of 16 bits are read that are no plain whole numbers; None: they are plain.
        depth_channels: which channel of several is depth; None where there is one.
        depth_key: name of the array or channel that holds depth; None: the usual names.
        disparity_offset_px: added to a stored disparity, pixels; None: nothing is.
        image_levels: black and white of images of more than 8 bits. The run sets it, by ``set_image_levels``; it is no
            option of an entry, since a model sees one kind of image.
        network: what the network will see of images, which says whether their files are reduced as they are decoded;
            None: they are not. See ``decoded_for``.
    """

    root: str | None = None
    meters_per_unit: float | None = None
    invalid: tuple[float, ...] | None = None
    min_depth_m: float = 0.0
    max_depth_m: float | None = None
    depth_is: DepthIs = "z"
    bits: Bits | None = None
    depth_channels: DepthChannels | None = None
    depth_key: str | None = None
    disparity_offset_px: float | None = None
    image_levels: ClassVar[ImageLevels | None] = None
    network: ClassVar[Preprocessing | None] = None

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        # A dataclass takes an attribute of a base class for the default of its field. Without this, `root: str` of a
        # reader would be an option that may be left out.
        for name in inspect.get_annotations(cls):
            if name not in cls.__dict__ and name in Reader.__annotations__:
                setattr(cls, name, dataclasses.field())

    @abstractmethod
    def __len__(self) -> int:
        """How many frames there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> DepthSample:
        """
        Frame ``index``, from 0, as it was measured: not resized, not filled; see ``DepthSample`` for shapes and units.

        Raises:
            FileFault: the frame cannot be read; names its file.
        """

    def source(self, index: int) -> str:
        """
        The name that errors and tables give a frame: its depth file, or words by which a person finds it.

        All frames are named before a run. By default each is read for it; a reader that knows the name says it without.
        """
        return self[index].source

    def files(self, index: int) -> tuple[str, str] | None:
        """
        The image file and the depth file of a frame, not opened; None where a frame has no files of its own.

        Raises:
            ListError: one of them is missing.
        """
        return None

    def require_files(self, index: int) -> None:
        """
        Raises:
            ListError: a file of the frame is missing. Only existence is looked at.
        """
        self.files(index)

    def check_paths(self) -> None:  # noqa: B027 - a reader without files has nothing to look for
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """

    def check_detail(self, input_size: tuple[int, int], zoom: float, *, trains: bool) -> None:  # noqa: B027
        """
        Args:
            input_size: (height, width) that the network sees at least, pixels.
            zoom: the largest by which training enlarges a frame.
            trains: the frames are trained on; else they are scored.

        Raises:
            RecipeError: the frames are kept with less detail than that needs, which packed ones may be.
        """

    def decoded_for(self, network: Preprocessing) -> Self:
        """
        This reader, for frames that a network sees: images are decoded as ``network.decode`` says. Frames that a person
        or a check looks at are decoded in full.

        Raises:
            RecipeError: the frames were packed for another kind of decoding.
        """
        if network.decode == "full":
            return self
        reader = copy.copy(self)
        # Readers are frozen, and this is no option of theirs, as with their levels.
        object.__setattr__(reader, "network", network)
        return reader

    def batch(self, indices: Sequence[int]) -> list[DepthSample]:
        """Several frames, in the order asked for, equal to one by one; for readers that are quicker at several."""
        return [self[index] for index in indices]

    @property
    def has_pseudo_labels(self) -> bool:
        """Whether depth is what a teacher predicted, and not a measurement. May open files."""
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run prints about the entry before it starts: sentences without a full stop."""
        return ()

    def stored_number(self, depth_m: float) -> float | None:
        """The number in a file that becomes this depth, meters; None where that differs from pixel to pixel or map to
        map."""
        return depth_m / self.meters_per_unit if self.meters_per_unit else depth_m

    def has_option(self, name: str) -> bool:
        """Whether an entry of a recipe can set ``name``, so that advice names no key that does not exist."""
        return dataclasses.is_dataclass(self) and name in {option.name for option in dataclasses.fields(self)}


def set_image_levels(readers: Iterable[Reader], levels: ImageLevels | None) -> None:
    """Let readers read their images by these levels: a model has one kind of image, whatever its entries."""
    if levels is None:
        return
    for reader in readers:
        # Readers are frozen, and this is no option of theirs: entries that differ only in it must stay equal.
        object.__setattr__(reader, "image_levels", levels)


def too_many_bad(bad: int, asked: int) -> bool:
    """Whether unreadable samples are too many of those asked for to be an accident."""
    return bad > FEW_BAD_SAMPLES and 100 * bad > FEW_BAD_PERCENT * asked


@dataclass(kw_only=True)
class BadSamples:
    """Training samples of a run that could not be read, in all processes; a function of the steps taken.

    Attributes:
        count: how often an unreadable sample was asked for; frames that were tried in its place do not count.
        named: what was wrong with the first ten different frames, in the order of the samples.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, skipped: Sequence[tuple[int, str]]) -> list[str]:
        """
        Args:
            skipped: (k, cause) of the batches of one step, in any order.

        Returns:
            The causes that are to be printed now.
        """
        causes = dict.fromkeys(cause for _, cause in sorted(skipped, key=lambda fault: fault[0]))
        new = [cause for cause in causes if cause not in self.named][: NAMED_BAD_SAMPLES - len(self.named)]
        self.count += len({k for k, _ in skipped})
        self.named += new
        return new

    def summary(self, asked: int) -> str:
        """One sentence without a full stop; ``asked``: how many samples were asked for so far."""
        return (
            f"{self.count} of the {asked} training samples asked for could not be read; "
            f"the first: {'; '.join(self.named)}"
        )


def read_frames(reader: Reader, frames: Sequence[int]) -> list[DepthSample]:
    """Frames of a reader, in the order asked for; together where the reader is quicker so."""
    return reader.batch(frames) if frames else []


def try_read(reader: Reader, frame: int) -> DepthSample | FileFault:
    """A frame of a reader, or why it cannot be read."""
    try:
        return reader[frame]
    except FileFault as fault:
        return fault


def list_sources(reader: Reader) -> list[str]:
    """The names of all frames of a reader."""
    return [reader.source(index) for index in range(len(reader))]
