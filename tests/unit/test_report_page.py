"""The page of a run, as a file: what is said in it, what may run in it, and how large it is."""

from __future__ import annotations

import json
import math
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests.stories import compared, everywhere, png, story, swept

from headway.errors import BadInput
from headway.report import logged, page
from headway.report.page import kept, numbers, opening, plots
from headway.report.page.markup import tag

GOLDEN = Path(__file__).parents[1] / "golden" / "story.json"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`\u2028"


class Read(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, its text, and what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        self._open = name
        if name in ("script", "style", "title"):
            self.inside.setdefault(name, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data
        else:
            self.text += data + " "

    def handle_endtag(self, name: str) -> None:
        self._open = ""

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def drawn(self) -> dict[str, Any]:
        """What the scripts are given."""
        return dict(json.loads(self.inside["script"][0]))


DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "run": story,
    "golden": lambda: dict(json.loads(GOLDEN.read_text())),
    "comparison": lambda: compared(story("a"), story("b", seed=3), job=[{"key": "seed", "values": [1, None]}]),
    "sweep": swept,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_only_its_own_scripts_may_run_and_nothing_is_asked_for(name: str) -> None:
    read = Read(page.render(DOCUMENTS[name]()))
    policy = next(a["content"] or "" for a in read.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = {text: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in read.inside["script"]}
    assert policy.startswith("default-src 'none'; ")
    allowed = re.search(r"script-src ([^;]*)", policy)
    assert allowed is not None
    assert allowed[1].split() == [digest[text] for text in read.inside["script"][1:]]
    style = f"'sha256-{b64encode(sha256(read.inside['style'][0].encode()).digest()).decode()}'"
    assert f"style-src {style}" in policy
    assert [a.get("type") for a in read.named("script")] == ["application/json", None, None]
    for element, attributes in read.tags:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], element
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("data:image/", "#")), (element, attributes)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_texts_that_mean_ill_stay_texts(name: str) -> None:
    document = DOCUMENTS[name]()
    good, bad = Read(page.render(document)), Read(page.render(everywhere(document, HOSTILE)))
    assert len(bad.named("script")) == 3
    assert not [attributes for attributes in bad.named("img") if not (attributes["src"] or "").startswith("data:")]
    assert {element for element, _ in bad.tags} <= {element for element, _ in good.tags} | {"code"}
    assert "alert(1)" in bad.text  # it is said, as it is
    assert isinstance(bad.drawn, dict)
    assert "alert" not in "".join(bad.inside["script"][1:])


def test_a_document_of_a_strange_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no page is made of 'tale'"):
        page.render({"kind": "tale"})


def test_it_says_what_the_story_says() -> None:
    told = story(losses=3)
    text = " ".join(Read(page.render(told)).text.split())
    solid = re.sub(r"\s", "", text)
    for words in told["words"].values():
        assert re.sub(r"[\s`]", "", words) in solid, words
    for said in ("compute", "its node is gone", "joined between two steps", "shirt (6,000)", "git checkout 51f499c"):
        assert said in text
    assert "2 rows set aside" in text
    assert "Shirts are taken for T-shirts" in text


def test_a_run_of_which_nothing_is_known_has_a_page() -> None:
    bare = {"kind": "run", "run": {"name": "bare", "state": "running"}, "words": {"what": "It began."}}
    read = Read(page.render(bare))
    assert "It began." in read.text
    assert "No worker was lost" in read.text
    assert read.drawn["plots"] == []


def test_what_differs_comes_before_the_curves() -> None:
    document = compared(story("a"), story("b"), job=[{"key": "workers.max", "values": [2, None]}])
    text = page.render(document)
    assert text.index("workers.max") < text.index('id="curves"')
    read = Read(text)
    assert "not there" in read.text
    assert "Alike: code, data, environment." in read.text
    loss = next(chart for chart in read.drawn["plots"] if chart["id"] == "curve-0")
    assert [line["label"] for line in loss["series"]] == ["a", "b"]


def test_a_sweep_begins_with_its_best_settings() -> None:
    read = Read(page.render(swept()))
    assert "1e-05" in read.text
    assert read.text.index("The best settings") < read.text.index("All trials")
    points = read.named("circle")
    assert len(points) == 2 * 5  # two settings; the one that failed has no value
    assert sum(a.get("class") == "top" for a in points) == 2


def test_a_long_run_has_a_page_of_two_megabytes_at_most() -> None:
    document = story(steps=100_000, losses=50)
    assert sum(len(one["value"]) for one in document["series"]) > 16_000
    text = page.render(document)
    assert len(text.encode()) <= 2_000_000
    assert len(Read(text).drawn["plots"]) >= 8


def test_many_long_series_share_the_room() -> None:
    document = story(steps=4000)
    document["series"] = [{**document["series"][0], "name": f"loss {n}", "group": "recorded"} for n in range(40)]
    assert len(page.render(document).encode()) <= 2_000_000


def test_packed_numbers_come_out_again() -> None:
    pack = plots.floats([1.5, None, float("nan"), float("inf"), -3e39, 1e-9])
    values = struct.unpack("<6f", b64decode(pack["f"]))
    assert values[0] == 1.5
    assert all(value != value for value in values[1:5])
    assert values[5] == pytest.approx(1e-9)
    assert struct.unpack("<2I", b64decode(plots.whole([0, 1_000_000])["u"])) == (0, 1_000_000)


def test_thinning_keeps_the_spike() -> None:
    values = [1.0] * 50_000
    values[31_234] = 99.0
    line = plots.line("loss", {"step": list(range(50_000)), "seconds": None, "value": values}, most=1000)
    shown = struct.unpack(f"<{len(b64decode(line['value']['f'])) // 4}f", b64decode(line["value"]["f"]))
    assert len(shown) <= 1000
    assert max(shown) == 99.0


def test_a_mean_is_drawn_over_what_is_noisy_alone() -> None:
    assert plots.noisy([(-1.0) ** n for n in range(200)])
    assert not plots.noisy([n / 200 for n in range(200)])
    assert not plots.noisy([(-1.0) ** n for n in range(20)])
    assert not plots.noisy([None] * 200)


def test_the_marks_that_matter_stay() -> None:
    checkpoints = [{"step": n, "seconds": n, "kind": "checkpoint", "words": "checkpoint"} for n in range(1000)]
    found = plots.marks([*checkpoints, {"step": 700, "seconds": 700, "kind": "lost", "words": "lost w1"}])
    assert len(found) == plots.MARKS
    assert [mark["words"] for mark in found if mark["kind"] == "lost"] == ["lost w1"]
    assert [mark["seconds"] for mark in found] == sorted(mark["seconds"] for mark in found)


def test_pictures_that_are_none_or_too_large_are_not_in_the_page() -> None:
    def shown(**more: Any) -> Read:
        figure = {"name": "x", "step": 1, "caption": "", **more}
        return Read(page.render({**story(), "evaluations": [], "figures": [figure]}))

    assert len(shown(mime="image/png", data=png(4, 4)).named("img")) == 1
    assert shown(mime="text/html", data=png(4, 4)).named("img") == []
    assert shown(mime="image/png", data='"><script>').named("img") == []
    large = shown(mime="image/png", data="A" * (kept.MOST_BYTES + 4))
    assert large.named("img") == []
    assert "Too large for this page" in large.text


def test_the_newest_picture_of_a_name_comes_first() -> None:
    each = [
        {"name": "x", "step": n, "mime": "image/png", "data": png(4, 4 + n), "caption": f"no {n}"} for n in range(3)
    ]
    text = page.render({**story(), "evaluations": [], "figures": each})
    assert text.index("no 2") < text.index("2 earlier ones") < text.index("no 1")


def test_what_a_task_logged_is_shown_as_its_story_tells_it(tmp_path: Path) -> None:
    picture = b64decode(png(4, 4))
    each = [
        ("figure", "filters", "image/png", picture),
        ("text", "notes", "text/plain", b"by hand"),
        ("table", "worst", "application/json", b'{"columns": ["id"], "data": [[40021]]}'),
        ("artifact", "file", "", b"xyz"),
    ]
    index = []
    for kind, name, mime, content in each:
        path = f"logged/{name}/step-00000001"
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(content)
        index.append({"step": 1, "time": 1.0, "name": name, "kind": kind, "path": path, "mime": mime, "caption": ""})
    (tmp_path / logged.INDEX).write_text("".join(f"{json.dumps(line)}\n" for line in index))
    figures = [figure.model_dump(mode="json") for figure in logged.told(tmp_path)]
    read = Read(page.render({**story(), "evaluations": [], "figures": figures}))
    assert [image["src"] for image in read.named("img")] == [f"data:image/png;base64,{png(4, 4)}"]
    for said in ("by hand", "40,021", "logged/file/step-00000001, 3 bytes"):
        assert said in read.text


def test_a_table_with_infinities_is_shown() -> None:
    one = {"step": 1, "values": {}, "tables": {"distances": [[0.0, math.inf], [math.inf, 1.0]]}}
    assert "∞" in Read(page.render({**story(), "evaluations": [one]})).text


def test_columns_of_tables_stay_apart_whatever_metrics_and_runs_are_called() -> None:
    one, two = story("what"), story("what")
    for each in (one, two):
        each["headline"]["metrics"] = dict.fromkeys(("run", "state", "steps", "time", "workers", "best"), 0.5)
        each["series"].append({**each["series"][0], "group": "validation"})
    read = Read(page.render(compared(one, two, job=[{"key": "seed", "values": [1, 2]}])))
    assert [len(chart["series"]) for chart in read.drawn["plots"] if chart["id"].startswith("curve-")] == [2] * 8
    document = swept()
    document["report"]["metric"] = "steps"
    for trial in document["report"]["trials"]:
        trial["settings"] = {"why": 1, "state": 2}
    assert "All trials" in Read(page.render(document)).text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.number(1234567), "1,234,567"),
        (numbers.number(-0.00012345), "\u22120.0001234"),
        (numbers.number(float("nan")), "not a number"),
        (numbers.number(None), "\u2013"),
        (numbers.duration(0.084), "0.08\u202fs"),
        (numbers.duration(3599.7), "1\u202fh 0\u202fmin"),
        (numbers.duration(90061), "1\u202fd 1\u202fh"),
        (numbers.share(0.99999), ">\u202f99.9\u202f%"),
        (numbers.share(1.0), "100.0\u202f%"),
        (numbers.size(5_060_000), "5.1\u202fMB"),
        (numbers.size(999), "999\u202fB"),
        (numbers.dollars(0.0274), "$0.027"),
        (numbers.dollars(1234.5), "$1,234.50"),
        (numbers.counted(1, "loss", "losses"), "1 loss"),
        (numbers.several(2, 4), "2\u20134"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_elements_escape_what_they_hold() -> None:
    assert tag("p", "a<b", [tag("b", "&"), None, ["x"]], title='"') == '<p title="&quot;">a&lt;b<b>&amp;</b>x</p>'
    assert tag("input", disabled=True, hidden=False, aria_label="x") == '<input disabled aria-label="x">'


def test_a_command_in_a_sentence_is_code() -> None:
    assert "".join(map(str, opening.prose("Say `headway ls`."))) == "Say <code>headway ls</code>."
    assert opening.prose("a ` alone") == ["a ` alone"]


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = page.write(story(), tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(BadInput, match="it is a folder"):
        page.write(story(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="no page can be written"):
        page.write(story(), tmp_path / "file" / "report.html")


def test_what_others_made_is_what_they_made() -> None:
    folder = files(page) / "vendor"
    told = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.M)
    assert {name for name, _ in told} == {
        one.name for one in folder.iterdir() if not one.name.endswith((".md", ".LICENSE"))
    }
    for name, digest in told:
        assert sha256((folder / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("look", [":root", ":root.dark"])
def test_its_words_can_be_read(look: str) -> None:
    style = (files(page) / "web" / "page.css").read_text()
    block = style[style.index(f"{look} {{") :].partition("}")[0]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))

    def light(name: str) -> float:
        parts = [int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for ink in ("ink", "soft", "faint", "accent", "good", "bad", "warn", "calm"):
        for paper in ("paper", "card", "wash"):
            bright, dark = sorted((light(ink), light(paper)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {paper}"  # WCAG 2.2, AA


def test_the_command_wants_a_file_for_several_runs_or_what_is_sent_round(run: Any) -> None:
    code, _, said = run("report", "a", "b")
    assert (code, "Name its file: --html FILE." in said) == (2, True)
    code, _, said = run("report", "a", "--redact")
    assert (code, "it is about a page that is sent round" in said) == (2, True)
    code, _, said = run("report", "gone", "--html", "x.html")
    assert code == 2
    assert "gone" in said
