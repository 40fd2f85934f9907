"""The page in a real browser: what it shows, that nothing leaves, and that text of models stays text."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from synthdiv.views.report.page import write_report
from tests.conftest import TINY, synthdiv
from tests.views.report.conftest import Study

pytestmark = pytest.mark.browser
HOSTILE = '</script><script>window.ran = 1</script><img src="https://example.com/x" onerror="window.ran = 1">'
ALLOWED = ("file:", "data:", "blob:")


def chromium() -> str:
    """The system's browser; skips where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None and "browser" in re.split(r"[\s,]+", os.environ.get("SYNTHDIV_REQUIRE", "")):
        pytest.fail("SYNTHDIV_REQUIRE has browser, and no Chromium is installed (apt-get install chromium)")
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose prompts, answers, sources and failures hold markup."""
    study = Study(tmp_path_factory.mktemp("browser"))
    study.ask(HOSTILE)
    for seed in range(3):
        study.cell("human", 1.0 + seed, seed)
        study.cell("single", 2.0 + seed, seed, source=HOSTILE, generators="small")
        study.cell("multi", 1.25 + seed, seed, generators="small")
    waiting = study.cell("multi", 7.0, 9, "none", generators="small")
    study.ledger.event(waiting.train or "", "failed", note=HOSTILE)
    return write_report(study.root, "eggs", [])


@pytest.fixture
def opened(browser: Any, written: Path) -> Iterator[Any]:
    with watched(browser, written) as page:
        yield page


@contextmanager
def watched(browser: Any, path: Path) -> Iterator[Any]:
    """The page at 1280 × 800; fails afterwards on a message of the console or a request that leaves."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(ALLOWED) else wrong.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert page.evaluate("window.ran") is None
    page.close()
    assert wrong == []


def draw_all(page: Any) -> int:
    """Scroll to every figure; returns how many there are. Each is drawn, and has its table."""
    boxes = page.locator(".plot")
    for at in range(boxes.count()):
        boxes.nth(at).scroll_into_view_if_needed()
        boxes.nth(at).locator("svg.main-svg").first.wait_for()
        assert boxes.nth(at).locator("xpath=..").locator("details table").count() == 1
    return int(boxes.count())


def test_a_toy_sweep_of_12_cells_from_its_start_to_the_page(browser: Any, tmp_path: Path) -> None:
    grid = ["mix=human,single,multi", "mix.source=oak,elm", "train.seed=0,1,2", "generators.seed=${train.seed}"]
    synthdiv("-m", *grid, "sweep=toy", *TINY, cwd=tmp_path)
    printed = synthdiv("report", "toy", cwd=tmp_path).stdout.splitlines()
    with watched(browser, tmp_path / printed[-1]) as page:
        assert "13 unique cells, vanilla students included (13 done)" in page.locator("header + main").inner_text()
        assert draw_all(page) > 4
        assert page.get_by_text("comparison").first.is_visible()
        assert page.locator("#answers article").count() == 2 + 5, "prompt, human answer, and five arms"
        box = page.get_by_role("heading", name="The answer").locator("xpath=..").locator("table").first.bounding_box()
        assert box["y"] + box["height"] <= 800
    assert any(line.endswith("exploratory") for line in printed[:-1]), "the terminal prints the same answer"


def test_every_figure_is_drawn_and_has_its_table(opened: Any) -> None:
    boxes = opened.locator(".plot")
    for at in range(draw_all(opened)):
        boxes.nth(at).scroll_into_view_if_needed()
        box = boxes.nth(at).locator("svg.main-svg").first.bounding_box()
        for part in (0.3, 0.5, 0.7, 0.9):  # what a tooltip adds is allowed by the policy too
            opened.mouse.move(box["x"] + part * box["width"], box["y"] + 0.6 * box["height"])
    assert opened.locator("#loss .scatterlayer .trace").count() == 3, "a curve for each trained arm"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_names_of_comparisons_leave_room_for_the_effects(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    box = opened.locator("#effects .plot").first
    box.scroll_into_view_if_needed()
    plot = box.locator(".nsewdrag").first
    plot.wait_for(state="attached")
    assert plot.evaluate("node => node.getBoundingClientRect().width") > 0.45 * box.bounding_box()["width"]


def test_the_answer_is_in_sight_without_scrolling(opened: Any) -> None:
    for name in ("The design", "The answer"):
        box = opened.get_by_role("heading", name=name).locator("xpath=..").locator("table").first.bounding_box()
        assert box["y"] + box["height"] <= 800, name
    first = opened.locator("#answer .stacked td:first-child").first
    first.evaluate("node => { node.textContent = 'distinct_2_within@'.repeat(4); }")
    fits = "node => node.scrollWidth <= node.clientWidth"
    assert opened.locator("#answer .scroll").first.evaluate(fits), "models and n too, whatever the names"


def test_on_a_telephone_the_answer_is_read_without_scrolling_sideways(opened: Any) -> None:
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.evaluate("document.querySelectorAll('#answer details').forEach((each) => { each.open = true; })")
    tables = opened.locator("#answer .scroll").all()
    assert [table.evaluate("node => node.scrollWidth <= node.clientWidth") for table in tables] == [True]
    number = opened.locator("#answer td.number").first
    assert number.evaluate("node => getComputedStyle(node, '::before').content").startswith('"difference')


def test_markup_in_answers_sources_and_failures_stays_text(opened: Any) -> None:
    assert opened.locator("#answers article").count() == 2 + 4, "the prompt, the human answer and four arms"
    for text in opened.locator("#answers pre").all_text_contents():
        assert text == "a human answer" or text.endswith(HOSTILE)
    assert HOSTILE in opened.locator("#unfinished").inner_text()
    opened.locator("#effects .plot").first.scroll_into_view_if_needed()
    assert HOSTILE in opened.locator("#effects .yaxislayer-above").first.text_content()
    assert opened.locator("img").count() == 0
    assert opened.locator("script").count() == 3, "data, plotly and ours"


def test_answers_are_filtered_by_arm_and_by_words(opened: Any) -> None:
    opened.get_by_label("Arms with", exact=True).fill("human")
    assert opened.locator("#answers article h4").all_text_contents()[2:] == ["human"]
    opened.get_by_label("Prompts and answers with").fill("question 2")
    assert opened.locator("#count").inner_text() == "1 of 3 prompts"
    assert opened.locator("#answers mark").first.inner_text() == "question"
    opened.get_by_label("Prompts and answers with").fill("no such word")
    assert opened.locator("#answers article").count() == 0
    opened.get_by_label("Prompts and answers with").fill("")
    first = opened.locator("#answers article").first.inner_text()
    opened.get_by_label("Next prompt").click()
    assert opened.locator("#answers article").first.inner_text() != first


def test_every_score_is_behind_the_search(opened: Any) -> None:
    assert opened.locator("#hits").inner_text() == "16 scores"
    opened.get_by_label("Measures and arms with").fill("nll_2 human")
    (row,) = opened.locator("#scores tbody tr").all()
    assert row.locator("td").all_text_contents()[:4] == ["nll_2 ↓ (nats/token)", "human", "2", "0.5776"]


@pytest.mark.parametrize("width", [390, 1280])
def test_tables_need_no_scrolling_to_the_side(opened: Any, width: int) -> None:
    """On a phone each row is a block; on a desktop an open table has the width of the page."""
    opened.set_viewport_size({"width": width, "height": 800})
    boxes = opened.locator(".scroll:has(.stacked)")
    assert boxes.count() > 10
    opened.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    wide = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth).map(node => node.innerText.slice(0, 80))"
    assert boxes.evaluate_all(wide) == []


@pytest.mark.parametrize("width", [390, 800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_width_in_light_and_dark(opened: Any, width: int, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (opened.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    light, dark = (sum(map(int, re.findall(r"\d+", each))) for each in (paper, ink))
    assert (light > 600 > 300 > dark) if scheme == "light" else (light < 100 < 600 < dark)


def test_paper_has_every_figure_and_no_controls(opened: Any) -> None:
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.wait_for_function(
        "document.querySelectorAll('.plot svg.main-svg').length >= document.querySelectorAll('.plot').length"
    )
    opened.emulate_media(media="print")
    assert not opened.locator("nav, .controls").first.is_visible()
