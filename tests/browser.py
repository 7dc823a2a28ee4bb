"""Pages as a browser shows them: what goes wrong in it, and what it asks the network for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (390, 1440)
_VOID = {"meta", "link", "img", "input", "br", "hr"}


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window; skips with a word where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install playwright)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1440, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """
    Gives:
        The page, and a list of what must not be: messages on the console, errors of scripts, and requests for anything
        but the file itself, none of which gets through.
    """
    faults: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)

    def only_the_file(route: Any) -> None:
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            faults.append(f"request for {route.request.url[:80]}")
            route.abort()

    context.route(lambda url: not url.startswith("data:"), only_the_file)
    page = context.new_page()
    page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.goto(path.as_uri())
    yield page, faults
    context.close()


def require_sound(browser: Any, path: Path) -> None:
    """Nothing goes wrong; at both widths nothing is wider than the screen; every picture can be seen and has a text."""
    for width, scheme in zip(WIDTHS, ("dark", "light"), strict=True):
        with opened(browser, path, width=width, scheme=scheme) as (page, faults):
            assert page.evaluate("document.documentElement.scrollWidth") == width
            pictures = page.evaluate(
                "Promise.all([...document.images].map(async one => (await one.decode(), [one.naturalWidth, one.alt])))"
            )
            assert all(shown > 0 and alt for shown, alt in pictures)
            light = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)")))
            assert (light > 384) == (scheme == "light")
            assert not faults


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag} has an attribute twice"
        if "id" in given:
            self.ids.append(given["id"] or "")
        if (given.get("href") or "").startswith("#"):
            self.links.append((given["href"] or "")[1:])
        if tag == "p":
            assert "p" not in self.open, "a paragraph within a paragraph"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"{tag} is closed in itself, which HTML does not know"

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def require_valid(page: str) -> None:
    """Elements are closed in order, no id is given twice, and every link within the page leads somewhere."""
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    assert len(set(tags.ids)) == len(tags.ids)
    assert set(tags.links) <= set(tags.ids)
