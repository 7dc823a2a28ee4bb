"""Errors that users can cause: one sentence that names the file, the key and the fix."""

from __future__ import annotations


class FinetuneError(Exception):
    """Any error that a user can cause. Its text is the whole message, ``exit_status`` that of the process."""

    exit_status = 2


class RecipeError(FinetuneError):
    """A key of a recipe, or an option of a reader or a loss, has a value that is not allowed."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        """
        Args:
            key: dotted path of the key, relative to the object that raises: ``lam``, ``optim.lr``.
            value: what was found.
            expected: what to write instead; it follows "expected" in the sentence.
        """
        super().__init__(f"{key} is {value!r}; expected {expected}.")
        self.key = key
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.key, self.value, self.expected)


class RecipeFaults(FinetuneError):
    """All faults of a recipe at once, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class FileFault(FinetuneError):
    """A file, what was found in it, and what to do about it."""

    def __init__(self, source: object, found: str, fix: str, code: str = "") -> None:
        """
        Args:
            source: the file, as the user can open it.
            found: what is wrong with it, without a full stop.
            fix: what to do or write instead, without a full stop.
            code: one word by which programs tell the error from others; the text is for people.
        """
        super().__init__(f"{source}: {found}. {fix}.")
        self.source = str(source)
        self.found = found
        self.fix = fix
        self.code = code

    @property
    def cause(self) -> str:
        """The file and what is wrong with it, without the fix, for a list of several."""
        return f"{self.source}: {self.found}"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # A loader's worker sends it to the main process. By default only the sentence would be pickled, and the error
        # cannot be made from that.
        return type(self), (self.source, self.found, self.fix, self.code)


class DataError(FileFault):
    """An image, a depth map, or the data as a whole is not acceptable."""

    exit_status = 1


class ListError(FileFault):
    """A folder or list file that a recipe names is missing or malformed."""


class CheckpointError(FileFault):
    """A weights file is missing, is not what the recipe says, or lacks weights of the network."""


class ResultError(FinetuneError):
    """The work was done, but its result is not acceptable."""

    exit_status = 1


class ProcessError(ResultError):
    """A process of a launch cannot go on, for a reason that only this process knows."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop; the name of its class if it has no message."""
    return next((line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object, most: int = 200) -> str:
    """``repr`` of the value, cut to a length that fits a sentence."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, or nesting that is too deep
        return f"a {type(value).__name__} without end"
    return text if len(text) <= most else f"{text[:most]}..."
