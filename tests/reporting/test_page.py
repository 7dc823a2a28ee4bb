"""The skeleton of every page: nothing from outside, pictures within their limit, every value escaped."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from jinja2 import UndefinedError

from finetune.reporting.page import (
    Cell,
    Table,
    encode_picture,
    get_template_engine,
    make_picture,
    render_template,
)
from finetune.reporting.tables import ProtocolLine
from tests.browser import chromium, opened, require_valid
from tests.reporting.macros import render_macro

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "finetune" / "reporting" / "templates").iterdir())
NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


def fill_page(content: str, script: str = "", **values: object) -> str:
    """A page with a body of its own, which is a template."""
    source = (
        '{% extends "page.html" %}{% import "parts.html" as parts %}'
        f"{{% block content %}}{content}{{% endblock %}}{{% block script %}}{script}{{% endblock %}}"
    )
    return get_template_engine().from_string(source).render(values)


def test_every_part_is_escaped() -> None:
    sly = '<script>alert("a&b")</script>'
    cells = [Cell(text=sly), Cell(text=sly, code=True), Cell(text=sly, bold=True), Cell(text=sly, color=1)]
    body = (
        "{{ parts.show_sections({sly: parts.show_facts({sly: sly}) ~ parts.show_folded_text(sly, sly)"
        "~ parts.show_table(table) ~ parts.show_protocol(protocol) ~ parts.show_picture(picture)}) }}"
    )
    page = fill_page(
        body,
        title=sly,
        sly=sly,
        table=Table(heads=[sly, sly, sly, sly], rows=[cells], kind=sly),
        protocol=ProtocolLine(name=sly, settings=[(sly, sly)]),
        picture=make_picture(NOISE[:32, :32], sly, max_bytes=10_000),
    )
    require_valid(page)
    assert "<script>" not in page
    # Title 2, link and heading 2, fact 2, folded text 3, table 9, protocol 3, picture 1.
    assert page.count("&lt;script&gt;alert(&#34;a&amp;b&#34;)&lt;/script&gt;") == 22


def test_no_template_turns_escaping_off() -> None:
    for path in TEMPLATES:
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("name", ["run.html", "check.html", "compare.html"])
def test_a_value_that_is_missing_raises(name: str) -> None:
    with pytest.raises(UndefinedError, match="is undefined"):
        render_template(name, title="x")
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        fill_page("{{ nothing }}", title="x")


@pytest.mark.slow
def test_the_template_engine_is_imported_for_a_page_only() -> None:
    # A command that prints text, or only its help, must not wait for it.
    modules = [f"finetune.reporting.{name}_report" for name in ("check", "compare", "run")]
    program = f"import sys, {', '.join(modules)}\nassert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_what_is_missing_is_left_out_of_facts() -> None:
    facts = render_macro("parts.html", "show_facts", {"seed": 0, "commit": None, "platform": ""})
    assert facts.count("<dt>") == 1 and "<dd>0</dd>" in facts


def test_a_picture_is_what_it_was() -> None:
    ramp = np.zeros((40, 60, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 60)
    head, _, data = encode_picture(ramp, 50_000).partition(",")
    assert head == "data:image/webp;base64"
    found = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert found is not None
    assert np.abs(found.astype(int) - ramp).mean() < 4


@pytest.mark.parametrize("most_bytes", [40_000, 10_000, 3_000])
def test_a_picture_is_coarser_where_it_would_be_too_large(most_bytes: int) -> None:
    assert len(encode_picture(NOISE, 10_000_000)) > 60_000
    assert len(encode_picture(NOISE, most_bytes)) <= most_bytes + len("data:image/webp;base64,") + 4


def test_the_policy_keeps_a_page_from_calling_out(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        fill_page(
            '<img src="http://localhost:9/a.png" alt="a">', "<script>fetch('http://localhost:9/')</script>", title="x"
        )
    )
    with chromium() as browser, opened(browser, path) as (page, faults):
        page.wait_for_timeout(100)
        assert not [fault for fault in faults if fault.startswith("request")]
        assert sum("Content Security Policy" in fault for fault in faults) >= 2
