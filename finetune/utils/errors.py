"""What users can cause, said in one sentence that names the file, the key and the fix."""

from __future__ import annotations

from typing import Any


class FinetuneError(Exception):
    """Anything a user can cause; its text is the whole message, ``exit_status`` what the process ends with."""

    exit_status = 2


class RecipeError(FinetuneError):
    """One key of a recipe, or of the options of a reader or a loss, has a value it cannot have."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        """
        Args:
            key: dotted path of the key, seen from the object that raises: ``lam``, ``optim.lr``.
            value: what was found.
            expected: what to write instead; it follows "expected" in the sentence.
        """
        super().__init__(f"{key} is {value!r}; expected {expected}.")
        self.key = key
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.expected)


class RecipeFaults(FinetuneError):
    """All faults of one recipe at once, a line each."""

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
            code: one word by which a program that catches the error tells it from others; its text is for people.
        """
        super().__init__(f"{source}: {found}. {fix}.")
        self.source = str(source)
        self.found = found
        self.fix = fix
        self.code = code

    @property
    def cause(self) -> str:
        """What is wrong with which file, without the fix, for a list of several."""
        return f"{self.source}: {self.found}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by its sentence alone, as exceptions are, it could not be made again: it comes from a loader's worker.
        return type(self), (self.source, self.found, self.fix, self.code)


class DataError(FileFault):
    """An image, a depth map or what they add up to is not acceptable."""

    exit_status = 1


class ListError(FileFault):
    """A folder or list file that a recipe names is missing or malformed."""


class CheckpointError(FileFault):
    """A weights file is missing, is not what the recipe says, or does not cover the network."""


class ResultError(FinetuneError):
    """The work ended, but what came out is not acceptable."""

    exit_status = 1


class ProcessError(ResultError):
    """One process of a launch cannot go on, and only it knows why."""


def first_line(error: BaseException) -> str:
    """Of what an error of a library says, without its full stop; or its name, where it says nothing."""
    return next((line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object, most: int = 200) -> str:
    """The value as Python writes it, up to a length that fits a sentence."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers and nesting without end
        return f"a {type(value).__name__} without end"
    return text if len(text) <= most else f"{text[:most]}..."
