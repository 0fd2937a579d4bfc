"""The page of a run in a real browser: that it is drawn, what a reader can do and find there, how fast it is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser import DESKTOP, PHONE, Sight, opened, outward
from tests.stories import compared, everywhere, story, swept

from headway.report import page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GOLDEN = Path(__file__).parents[1] / "golden" / "story.json"
WITHIN_MS = 120_000
DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "run": story,
    "golden": lambda: dict(json.loads(GOLDEN.read_text())),
    "comparison": lambda: compared(story("a"), story("b", seed=3), job=[{"key": "seed", "values": [1, 2]}]),
    "sweep": swept,
}
QUESTIONS = {
    "what was trained?": ("header", r"A convolutional network of 421,642 parameters"),
    "on what data?": ("header", r"60,000 images of fashion-mnist"),
    "how well?": ("header", r"accuracy of 0\.9127"),
    "how long did it take?": ("header", r"2 minutes 27 seconds, for 2,400 steps"),
    "what did it cost?": ("header", r"\$0\.0274"),
    "what was lost, and did it matter?": ("header", r"3 workers were lost. It did not matter"),
    "what was done again?": ("#trouble", r"0 steps were done again"),
    "how is it run again?": ("#again", r"headway train job\.yaml --set seed=1"),
}
"""What somebody who has not seen the run asks, where the answer stands, and what it is."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Of the page of a document, by its name."""
    folder = tmp_path_factory.mktemp("pages")

    def of(name: str) -> str:
        path = folder / f"{name}.html"
        return (path if path.exists() else page.write(DOCUMENTS[name](), path)).as_uri()

    return of


@pytest.fixture
def sight(chromium: Browser, address: Callable[[str], str]) -> Iterator[Sight]:
    """The page of a run, on a desk, with all its charts drawn."""
    with opened(chromium, address("run"), within_s=WITHIN_MS / 1000) as found:
        drawn(found.page)
        yield found
        assert found.errors == []


def drawn(page: Page) -> None:
    page.set_default_timeout(WITHIN_MS)
    page.wait_for_selector("html[data-drawn]")


def shown(page: Page) -> dict[str, tuple[float, float]]:
    """From where to where each chart goes."""
    found = page.eval_on_selector_all("[data-shown]", "all => all.map(e => [e.dataset.plot, e.dataset.shown])")
    return {name: (float(text.split()[0]), float(text.split()[1])) for name, text in found}


def ink(page: Page, plot: str) -> str:
    """What is drawn in a chart."""
    return str(page.eval_on_selector(f"#plot-{plot} .canvas canvas", "canvas => canvas.toDataURL()"))


def middle(page: Page, plot: str, across: float = 0.5) -> tuple[float, float]:
    """A place in a chart, in pixels of the window."""
    over = page.locator(f"#plot-{plot} .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    return box["x"] + across * box["width"], box["y"] + box["height"] / 2


@pytest.mark.parametrize(
    ("name", "look"), [("run", "dark"), ("golden", "desk"), *((name, "phone") for name in DOCUMENTS), ("sweep", "dark")]
)
def test_it_is_drawn_and_asks_for_nothing(chromium: Browser, address: Any, name: str, look: str) -> None:
    screen = PHONE if look == "phone" else DESKTOP
    with opened(chromium, address(name), screen=screen, dark=look == "dark", within_s=WITHIN_MS / 1000) as sight:
        drawn(sight.page)
        assert sight.errors == []
        assert outward(sight) == []
        inks = sight.page.eval_on_selector_all(
            ".canvas canvas",
            "all => all.map(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter(v => v).length)",
        )
        assert inks
        assert min(inks) > 2000
        wide, room = sight.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room


def test_a_reader_finds_the_answers(sight: Sight) -> None:
    for question, (place, answer) in QUESTIONS.items():
        text = " ".join(sight.page.inner_text(place).split())
        assert re.search(answer, text), question
    box = sight.page.locator("header .words").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < DESKTOP[1]  # the first lines are on the first screen


def test_pointing_tells_the_values_there_on_all_charts(sight: Sight) -> None:
    sight.page.mouse.move(*middle(sight.page, "loss"))
    tip = sight.page.locator("#plot-loss .tip")
    tip.wait_for(state="visible")
    assert re.search(r"step 1,\d\d\d", tip.inner_text())
    assert "validation/loss" in tip.inner_text()
    assert sight.page.locator("#plot-account .keys b").first.inner_text() != ""
    assert not sight.page.locator("#plot-account .tip").is_visible()


def test_dragging_zooms_all_charts_and_a_double_click_goes_back(sight: Sight) -> None:
    whole = shown(sight.page)
    reset = sight.page.locator("[data-do=reset]")
    assert reset.is_disabled()
    sight.page.mouse.move(*middle(sight.page, "loss", 0.25))
    sight.page.mouse.down()
    sight.page.mouse.move(*middle(sight.page, "loss", 0.5), steps=5)
    sight.page.mouse.up()
    sight.page.wait_for_selector("[data-do=reset]:enabled")
    near = shown(sight.page)
    assert near.keys() == whole.keys()
    assert len(set(near.values())) == 1
    low, high = near["loss"]
    assert low == pytest.approx(600, abs=20)
    assert high == pytest.approx(1200, abs=20)
    sight.page.mouse.dblclick(*middle(sight.page, "workers"))
    sight.page.wait_for_selector("[data-do=reset]:disabled")
    assert shown(sight.page) == whole


def test_the_keyboard_does_the_same(sight: Sight) -> None:
    whole = shown(sight.page)
    box = sight.page.locator("#plot-loss .canvas")
    box.focus()
    sight.page.keyboard.press("ArrowRight")
    tip = sight.page.locator("#plot-loss .tip")
    tip.wait_for(state="visible")
    first = tip.inner_text()
    sight.page.keyboard.press("Shift+ArrowRight")
    assert tip.inner_text() != first
    sight.page.keyboard.press("+")
    assert shown(sight.page)["account"] != whole["account"]
    sight.page.keyboard.press("0")
    assert shown(sight.page) == whole


def test_series_marks_and_scale_are_switched(sight: Sight) -> None:
    before = ink(sight.page, "loss")
    key = sight.page.locator("#plot-loss .keys button").nth(1)
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    without = ink(sight.page, "loss")
    assert without != before
    key.click()
    assert ink(sight.page, "loss") == before
    for switch in ("smooth", "marks", "log"):
        button = sight.page.locator(f"[data-switch={switch}]")
        held = button.get_attribute("aria-pressed")
        button.click()
        assert button.get_attribute("aria-pressed") != held
        assert ink(sight.page, "loss") != before, switch
        button.click()
    sight.page.mouse.move(0, 0)
    assert ink(sight.page, "loss") == before


def test_steps_and_time(sight: Sight) -> None:
    assert shown(sight.page)["loss"] == (0, 2400)
    sight.page.click("[data-axis=time]")
    low, high = shown(sight.page)["loss"]
    assert low == 0
    assert high == pytest.approx(story()["run"]["seconds"], abs=1)
    assert len(set(shown(sight.page).values())) == 1
    sight.page.click("[data-axis=step]")
    assert shown(sight.page)["loss"] == (0, 2400)


def test_what_happened_stands_over_the_charts(sight: Sight) -> None:
    told = sight.page.eval_on_selector_all(".ribbon button", "all => all.map(e => e.title)")
    assert any("lost w1; the others went on" in text for text in told)
    sight.page.locator(".ribbon button", has=sight.page.locator(".sign.lost")).first.click()
    sight.page.wait_for_selector("[data-do=reset]:enabled")
    low, high = shown(sight.page)["loss"]
    assert low < 533 < high < 1200


def test_long_lists_are_folded(sight: Sight) -> None:
    assert not sight.page.locator("#events ol").is_visible()
    sight.page.locator("#events summary").focus()
    sight.page.keyboard.press("Enter")
    assert sight.page.locator("#events li").first.is_visible()


def test_light_and_dark(sight: Sight) -> None:
    def back() -> str:
        return str(sight.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, before = back(), ink(sight.page, "loss")
    sight.page.click("[data-do=theme]")
    assert back() != light
    assert ink(sight.page, "loss") != before
    sight.page.click("[data-do=theme]")
    assert back() == light


def test_on_paper_it_is_light_and_whole(chromium: Browser, address: Any) -> None:
    with opened(chromium, address("run"), dark=True, within_s=WITHIN_MS / 1000) as sight:
        drawn(sight.page)
        sight.page.emulate_media(media="print")
        sight.page.wait_for_selector("html:not(.dark)")
        assert not sight.page.locator("nav").is_visible()
        assert sight.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        pdf = sight.page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20


def test_without_scripts_the_words_are_there(chromium: Browser, address: Any) -> None:
    with opened(chromium, address("run"), java_script_enabled=False, within_s=WITHIN_MS / 1000) as sight:
        for question, (place, answer) in QUESTIONS.items():
            assert re.search(answer, " ".join(sight.page.inner_text(place).split())), question


def test_texts_that_mean_ill_do_nothing(chromium: Browser, tmp_path: Path) -> None:
    bad = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    for name, make in DOCUMENTS.items():
        path = page.write(everywhere(make(), bad), tmp_path / f"{name}.html")
        with opened(chromium, path.as_uri(), within_s=WITHIN_MS / 1000) as sight:
            drawn(sight.page)
            assert sight.page.title() != "taken", name
            assert outward(sight) == []
            assert sight.errors == []


@pytest.mark.alone
def test_of_a_long_run_it_is_written_and_seen_at_once(chromium: Browser, tmp_path: Path) -> None:
    document = story(steps=100_000, losses=50)
    page.render(story())  # imports
    began = time.process_time()
    path = page.write(document, tmp_path / "long.html")
    assert time.process_time() - began <= 2.0
    assert path.stat().st_size <= 2_000_000
    seen = []
    for _ in range(3):  # of several, for the machine may be busy
        with opened(chromium, path.as_uri(), within_s=WITHIN_MS / 1000) as sight:
            drawn(sight.page)
            entries = "performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"
            seen += sight.page.evaluate(entries)
            assert sight.errors == []
    assert min(seen) <= 1000, seen
