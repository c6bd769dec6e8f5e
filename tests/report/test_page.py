"""The page: complete, valid, safe, and with the numbers it was given."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probe.report.page import bar, render_page, verdict
from probe.report.payload import embed, pack, pictures, unpack
from tests.report import example

VOID = {"meta", "img", "input", "br", "hr", "link"}
SECTIONS = ["looks", "heads", "adds", "needs", "ablations", "clips", "tokens", "lens", "exact"]
SECTIONS += ["repeat", "means"]


class Page(HTMLParser):
    """Every element with its attributes, the text of the data script, and that tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.data, self.text, self.here = "", "", None
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.here = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.here = None

    def handle_data(self, data: str) -> None:
        if self.here == "data":
            self.data += data
        elif not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(example.findings())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_section_is_there_in_order(page: Page) -> None:
    assert [attrs["id"] for tag, attrs in page.elements if tag == "section"] == SECTIONS
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert "red circle" in page.text and "98 %" in page.text and "6.40" in page.text
    for line in example.findings().summary:
        assert line in page.text


def test_nothing_is_fetched(html: str, page: Page) -> None:
    assert "http:" not in html and "https:" not in html and "@import" not in html
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed")
        assert "href" not in attrs
        assert attrs.get("src", "data:").startswith("data:")
    assert not re.findall(r"url\((?!data:)", html)
    policy = next(
        a["content"] for _, a in page.elements if "content" in a and "'none'" in a["content"]
    )
    assert policy.startswith("default-src 'none'")


def test_a_reader_without_eyes_or_mouse_is_served(page: Page) -> None:
    assert all(attrs.get("alt") for tag, attrs in page.elements if tag == "img")
    controls = [a for tag, a in page.elements if tag in ("input", "select")]
    assert {"source", "layer", "gain", "time", "query"} == {a["id"] for a in controls}
    tokens = [a for _, a in page.elements if "token" in a.get("class", "").split()]
    assert len(tokens) == 10 and all(a["tabindex"] == "0" and a["aria-label"] for a in tokens)


def test_ids_that_the_script_uses_exist(html: str, page: Page) -> None:
    used = set(re.findall(r"\$\(\"([\w-]+)\"\)", html)) | set(
        re.findall(r"chart\(\"([\w-]+)\"", html)
    )
    assert len(used) > 15
    assert used <= {attrs.get("id") for _, attrs in page.elements}


@pytest.mark.parametrize("field", ["question", "answer", "gold", "model", "target", "versus"])
def test_text_is_escaped(field: str) -> None:
    evil = "<script>alert('1')</script>&\"x"
    html = render_page(example.findings(**{field: evil}))
    assert "<script>alert" not in html
    Page(html)


def test_text_in_tables_notes_and_manifest_is_escaped() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    found = example.findings()
    kept = found.redundancy["kept"].assign(answer=evil)
    html = render_page(
        example.findings(
            notes=(evil,),
            summary=(evil,) * 5,
            manifest={"command": evil, "settings": {evil: [evil]}},
            tokens=found.tokens.assign(token=evil),
            redundancy=found.redundancy | {"kept": kept},
            ablations=found.ablations.assign(name=evil),
        )
    )
    assert "<img src=x" not in html
    assert json.loads(Page(html).data)["kept"][0]["answer"][0] == evil


def test_notes_come_before_everything(page: Page) -> None:
    assert "Read this first" not in str(page.elements)
    html = render_page(example.findings(notes=("It knows only coloured shapes.",)))
    assert html.index("It knows only coloured shapes.") < html.index("<h1>")


def test_data_comes_back_as_it_was_given(page: Page) -> None:
    found, data = example.findings(), json.loads(page.data)
    mass = found.data.attention_mass
    frames = [f"frame {n}" for n in range(16)]
    overlays = {item["name"]: item for item in data["overlays"]}
    for query in ("question", "last"):
        item = overlays[f"attention from {query}"]
        expected = mass.sel(query_group=query, key_group=frames).mean("head").values
        np.testing.assert_allclose(item["byFrame"], expected, rtol=1e-5)
        received = found.data.attention_received.sel(query_group=query).mean("head").values
        cells = unpack(item).reshape(6, 16, 6, 6)
        for layer in range(6):
            painted = found.layout.paint(received[layer], size=(6, 6))
            np.testing.assert_allclose(cells[layer], painted, atol=2e-5 * painted.max())
    assert set(overlays) == {"attention from question", "attention from last", "contribution"}
    np.testing.assert_allclose(
        data["contributions"]["values"], found.data.contributions.values, rtol=1e-5
    )
    assert data["contributions"]["sum"] == pytest.approx(6.4)
    norm = next(item for item in data["kept"] if item["score"] == "norm")
    table = found.redundancy["kept"].query("score == 'norm'").sort_values("tokens")
    np.testing.assert_allclose(norm["margin"], table["margin"], rtol=1e-5)
    assert data["seconds"] == found.clip.seconds.tolist()
    assert data["evidence"][0] == {"frame": 2, "box": [21, 39, 46, 64]}
    assert (data["full"], data["blind"]) == (6.4, 0.7)


def test_the_frames_are_the_clip(page: Page) -> None:
    found = example.findings()
    sources = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert len(sources) == 16
    picture = Image.open(io.BytesIO(base64.b64decode(sources[9].split(",")[1])))
    np.testing.assert_array_equal(np.asarray(picture), found.clip.frames[9])


def test_large_frames_shrink_and_the_page_stays_small() -> None:
    shape = example.Shape(layers=28, rows=14, cols=14, height=360, width=640)
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    assert (
        Image.open(io.BytesIO(base64.b64decode(pictures(noise[None])[0].split(",")[1]))).width
        == 448
    )
    assert len(render_page(example.findings(shape))) < 3e6


def test_what_is_not_known_is_left_out() -> None:
    found = example.findings()
    html = render_page(
        example.findings(
            gold=None,
            versus=None,
            evidence=(),
            data=found.data.drop_vars(
                ["contributions_position", "contributions_error", "attention_entropy"]
            ),
            hallucination={"counterfactuals": found.hallucination["counterfactuals"]},
            tokens=found.tokens.iloc[:1],
        )
    )
    page = Page(html)
    assert "Right answer" not in page.text and "decides the question" not in page.text
    assert "Yes-or-no" not in page.text
    assert len(json.loads(page.data)["overlays"]) == 2


def test_no_value_is_null_not_nan() -> None:
    found = example.findings()
    data = found.data.copy(deep=True)
    data["attention_mass"][0] = np.nan
    data["attention_received"][0] = np.nan
    page = Page(render_page(example.findings(data=data)))
    assert json.loads(page.data)["overlays"][0]["byFrame"][0] == [None] * 16


def test_failed_checks_stand_out() -> None:
    checks = pd.DataFrame({"name": ["sum"], "value": [0.5], "limit": [1e-5], "passed": [False]})
    html = render_page(example.findings(checks=checks))
    assert "✗ failed" in html and "1.0 × 10⁻⁵" in html


def test_packing_keeps_five_digits_and_gaps() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    values[1, 2] = np.nan
    values[2] = 7
    back = unpack(pack(values)).reshape(values.shape)
    np.testing.assert_allclose(back, values, atol=1e-4)
    assert np.isnan(unpack(pack(np.full((2, 3), np.nan)))).all()


def test_embedded_json_cannot_end_its_script() -> None:
    text = embed({"a": "</script><!--\u2028 é & ü"})
    assert "<" not in text and ">" not in text and "&" not in text and "\u2028" not in text
    assert json.loads(text)["a"] == "</script><!--\u2028 é & ü"


def test_verdict() -> None:
    assert verdict("Red circle.", "red circle") == "right"
    assert verdict("It is the red circle", "red") == "partly"
    assert verdict("reddish", "red") == "wrong"
    assert verdict("red", None) is None


def test_bars_start_at_zero() -> None:
    assert bar(3.0, -1.0, 3.0) == "--from:25.00%;--wide:75.00%;--zero:25.00%"
    assert bar(-1.0, -1.0, 3.0) == "--from:0.00%;--wide:25.00%;--zero:25.00%"
    assert bar(0.0, 0.0, 0.0) == "--from:0.00%;--wide:0.00%;--zero:0.00%"
