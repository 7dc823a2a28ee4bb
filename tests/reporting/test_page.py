"""The skeleton of every page: nothing from outside, pictures no larger than told, everything escaped."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.reporting.page import (
    contents,
    data_uri,
    document,
    facts,
    folded,
    paragraph,
    picture,
    section,
    table,
)
from tests.browser import chromium, opened, require_valid

NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


def test_everything_plain_is_escaped() -> None:
    sly = '<script>alert("a&b")</script>'
    body = [
        section(sly, paragraph(sly), facts({sly: sly}), folded(sly, sly), table([sly, sly], [["a", "b"]])),
        contents([sly]),
        picture(NOISE[:32, :32], sly, most_bytes=10_000),
    ]
    page = document(sly, "".join(body))
    require_valid(page)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(&quot;a&amp;b&quot;)&lt;/script&gt;") == 13


def test_what_is_missing_is_left_out_of_facts() -> None:
    assert facts({"seed": 0, "commit": None, "platform": ""}).count("<dt>") == 1


def test_a_picture_is_what_it_was() -> None:
    ramp = np.zeros((40, 60, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 60)
    head, _, data = data_uri(ramp, 50_000).partition(",")
    assert head == "data:image/webp;base64"
    found = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert found is not None
    assert np.abs(found.astype(int) - ramp).mean() < 4


@pytest.mark.parametrize("most_bytes", [40_000, 10_000, 3_000])
def test_a_picture_is_coarser_where_it_would_be_too_large(most_bytes: int) -> None:
    assert len(data_uri(NOISE, 10_000_000)) > 60_000
    assert len(data_uri(NOISE, most_bytes)) <= most_bytes + len("data:image/webp;base64,") + 4


def test_the_policy_keeps_a_page_from_calling_out(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        document("x", '<img src="http://localhost:9/a.png" alt="a">', script="fetch('http://localhost:9/')")
    )
    with chromium() as browser, opened(browser, path) as (page, faults):
        page.wait_for_timeout(100)
        assert not [fault for fault in faults if fault.startswith("request")]
        assert sum("Content Security Policy" in fault for fault in faults) >= 2
