"""The log of a run: plain lines on standard output, with the process if it is not the main one."""

import logging

import pytest

from finetune.training.console import LOGGER, console_log, detail, say, warn


def test_lines_are_plain_and_details_are_for_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with console_log(verbose=verbose):
            say("a 100% plain line")
            warn("a warning")
            detail("a detail")
    assert capsys.readouterr() == ("a 100% plain line\na warning\n" * 2 + "a detail\n", "")
    assert (LOGGER.handlers, LOGGER.level) == ([], logging.NOTSET)


def test_another_process_than_the_main_one_says_which_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    with console_log():
        warn("a warning")
    assert capsys.readouterr().out == "[process 3] a warning\n"


def test_a_program_may_silence_the_log_or_handle_it_itself(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: taken.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.WARNING)
    try:
        with console_log(verbose=True):
            say("a line")
            warn("a warning")
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(logging.NOTSET)
    assert taken == ["a warning"]
    assert capsys.readouterr().out == ""
