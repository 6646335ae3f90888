"""The page of `psld report`: whole, self-contained, and working in a browser where there is one."""

import json
import re
from html.parser import HTMLParser

import pytest

import chromium
from psld.cli import main
from psld.report.html import definitions, json_block

SWEEP = [
    {"process": "PSLD(gamma=0.01)", "sampler": "A", "nfe": 5.0, "frechet": 2.0, "frechet_floor": 1.7},
    {"process": "PSLD(gamma=0.01)", "sampler": "A", "nfe": 10.0, "frechet": 1.3, "frechet_floor": 1.7},
    {"process": "PSLD(gamma=0.01)", "sampler": "B", "nfe": 10.0, "frechet": 3.1, "frechet_floor": 1.7},
]


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts that are data."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_data(self, data):
        if self.inside:
            self.data.append(data)

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A published checkpoint with the rows of a sweep: nothing is measured here."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "rows.json").write_text(json.dumps(SWEEP))
    file = folder / "report.html"
    command = ["report", "psld-digits", "--out", str(file), "--sweep", str(folder / "rows.json"), "--num", "9"]
    assert main([*command, "--steps", "5", "--searched", "200"]) == 0
    return file


def test_nothing_is_loaded_from_elsewhere_and_every_link_has_its_end(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    names = {attributes["id"] for _, attributes in elements.tags if "id" in attributes}
    for tag, attributes in elements.tags:
        for key in ("src", "href", "data", "srcset"):
            link = attributes.get(key)
            if link is not None:
                assert link.startswith(("data:", "#")), (tag, link)
                assert not link.startswith("#") or link[1:] in names
        if tag == "img":
            assert "alt" in attributes  # empty where the text beside says it
    assert [json.loads(block) for block in elements.data]


def test_it_says_what_was_measured_and_how(page):
    text = page.read_text(encoding="utf-8")
    for section in ("samples", "nearest", "film", "phase-space", "speed-quality", "recipe", "configuration"):
        assert f'id="{section}"' in text
    assert "psld report psld-digits" in text and "nothing was measured anew" in text
    assert "3.1" in text and "PreconditionedState" in text


def test_hostile_text_stays_text():
    hostile = "</script><script>alert(1)</script>"
    assert "<script>" not in definitions({hostile: hostile})
    block = json_block("x", {"name": hostile})
    assert block.count("</script>") == 1
    (found,) = Elements(block).data
    assert json.loads(found) == {"name": hostile}


def test_a_report_that_is_there_is_kept(page, capsys):
    before = page.read_bytes()
    assert main(["report", "psld-digits", "--quick", "--out", str(page)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert page.read_bytes() == before
    assert main(["report", "psld-digits", "--quick"]) == 1
    assert "give --out" in capsys.readouterr().err


def test_a_process_without_momentum_has_a_report(tmp_path):
    file = tmp_path / "vp.html"
    small = ["--quick", "--num", "4", "--steps", "5", "--searched", "100"]
    assert main(["report", "vp-digits", "--out", str(file), *small]) == 0
    assert 'id="phase-space"' in file.read_text(encoding="utf-8")


@pytest.mark.skipif(chromium.browser() is None, reason="no Chromium: set PSLD_CHROMIUM to the program")
def test_in_a_browser(page, tmp_path):
    with chromium.Page(tmp_path / "profile") as tab:
        colours = set()
        for width, dark in ((1200, False), (390, False), (1200, True)):
            tab.open(page, width=width, dark=dark)
            assert tab.complaints() == []
            assert tab.ask("document.documentElement.scrollWidth") <= width
            colours.add(tab.ask("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2
        picture = "[...document.querySelectorAll('[data-phase] canvas')].map(c => c.toDataURL()).join()"
        move = "(v => {const s = document.querySelector('[data-phase] input'); s.value = v; "
        move += "s.dispatchEvent(new Event('input'))})"
        tab.ask(f"{move}(0)")
        first = tab.ask(picture)
        tab.ask(f"{move}(document.querySelector('[data-phase] input').max)")
        last = tab.ask(picture)
        assert first != last
        tab.ask(f"{move}(0)")
        tab.ask("document.querySelector('[data-phase] button').click()")
        tab.wait("Number(document.querySelector('[data-phase] input').value) > 0")
        box = tab.ask(
            "(r => [r.left + r.width / 2, r.top + r.height / 2])((b => {b.scrollIntoView(); return "
            "b.getBoundingClientRect()})(document.querySelector('#speed-quality [data-chart]')))"
        )
        tab.mouse("mouseMoved", *box)
        tab.wait("/Fr|NFE|[0-9]/.test(document.querySelector('#speed-quality .tooltip')?.textContent ?? '')")
        assert re.search(r"\d", tab.ask("document.querySelector('#speed-quality .tooltip').textContent"))
        assert tab.complaints() == []
