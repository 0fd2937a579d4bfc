"""People are told of a run by webhooks: nothing waits for whoever is told, and nobody sees where that is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.stalls import Stalls
from tests.waiting import until
from typer.testing import CliRunner

from headway import runs
from headway.cli.app import app
from headway.core.alarms import KINDS, Limits, Seen, Word
from headway.core.retry import Policy
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadInput
from headway.job import load, parse, to_yaml
from headway.notation.plain import read
from headway.notify.addresses import Address, addresses
from headway.notify.forms import About, body, clean, tree
from headway.notify.lookout import Lookout
from headway.notify.sender import MOST, NotNow, Refused, Sender, post
from headway.notify.webhook import fault_of
from headway.runs import RunFolder

SECRET = "T0AAAAAAA/B0BBBBBBB/cccccccccccccccccccccccc"
JOB: dict[str, Any] = {"name": "digits", "task": "task.py:Digits", "data": {"train": "/data"}, "epochs": 1}
QUICK = Policy(first_pause_s=0.01, longest_pause_s=0.05)


class Listener:
    """Takes posts, and answers as it is told."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/services/{SECRET}"
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.answers: list[int] = []
        """The next; 200 where there are none."""
        self.after = ""
        """When to come again, where the answer says that."""
        self.hangs = threading.Event()
        self.hangs.set()


@contextmanager
def listening() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked += 1
            found.hangs.wait(20.0)
            code = found.answers.pop(0) if found.answers else 200
            if code == 200:
                found.taken.append(told)
            self.send_response(code)
            self.send_header("Location", found.url)
            if found.after:
                self.send_header("Retry-After", found.after)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Listener(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.hangs.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


def address(url: str, form: str = "json", on: tuple[str, ...] = KINDS, limits: Limits | None = None) -> Address:
    return Address("notify.0 (host)", url, frozenset(on), form, limits or Limits())


def told(number: int = 0, kind: str = "stalled", over: bool = False) -> dict[str, Any]:
    return tree(About("one", "/runs/one", "here"), Word(kind, f"word {number}", over), 5.0, {"step": number})


@pytest.fixture
def sender() -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def make(url: str, said: list[str] | None = None, **more: Any) -> Sender:
        found = Sender(address(url, **more), (said if said is not None else []).append, patience=QUICK)
        made.append(found)
        return found

    yield make
    for each in made:
        each.end(time.monotonic() + 2.0)
        each.close()


def close(sender: Sender, within_s: float = 10.0) -> int:
    sender.end(time.monotonic() + within_s)
    return sender.close()


def test_words_come_in_order(listener: Listener, sender: Callable[..., Sender]) -> None:
    posts = sender(listener.url)
    for number in range(5):
        posts.add(told(number))
    assert close(posts) == 0
    assert [word["text"] for word in listener.taken] == [f"word {number}" for number in range(5)]
    assert {name: listener.taken[3][name] for name in ("version", "kind", "over", "run", "step", "time")} == {
        "version": 1,
        "kind": "stalled",
        "over": False,
        "run": "one",
        "step": 3,
        "time": 5.0,
    }
    assert len({word["id"] for word in listener.taken}) == 5


@pytest.mark.parametrize("answer", [500, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(listener: Listener, sender: Callable[..., Sender], answer: int) -> None:
    said: list[str] = []
    listener.answers = [answer] * 4
    posts = sender(listener.url, said)
    posts.add(told(1))
    until(lambda: posts.sent == 1)
    assert listener.asked == 5
    assert len(said) == 2, said
    assert str(answer) in said[0]
    assert said[1] == "notify.0 (host) is told again"


def test_nobody_there_is_asked_again_until_somebody_is(sender: Callable[..., Sender]) -> None:
    with listening() as gone:
        url = gone.url
    said: list[str] = []
    posts = sender(url, said)
    posts.add(told(1))
    until(lambda: said)
    assert "cannot be told: Connection refused; it is tried again" in said[0]
    assert close(posts, 0.3) == 1
    assert not any(SECRET in each or "127.0.0.1" in each for each in said)


@pytest.mark.parametrize("answer", [400, 401, 403, 404, 410, 302])
def test_who_refuses_is_left_alone(listener: Listener, sender: Callable[..., Sender], answer: int) -> None:
    said: list[str] = []
    listener.answers = [answer]
    posts = sender(listener.url, said)
    posts.add(told(1))
    until(lambda: said)
    assert "takes no words" in said[0]
    assert str(answer) in said[0]
    posts.add(told(2))
    posts.add(told(3))
    assert close(posts) == 3
    assert (listener.asked, listener.taken) == (1, [])


def test_the_end_waits_for_nobody_for_long(listener: Listener, sender: Callable[..., Sender]) -> None:
    listener.hangs.clear()
    posts = sender(listener.url)
    posts.add(told(1))
    until(lambda: listener.asked == 1)
    began = time.monotonic()
    assert close(posts, 0.5) == 1
    assert time.monotonic() - began < 3.0


def test_at_the_end_it_is_tried_at_once_whatever_the_pause() -> None:
    tries: list[float] = []

    def posting(url: str, content: bytes, timeout_s: float) -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise NotNow("away", 0.0)

    posts = Sender(address("http://h/x"), lambda _: None, posting, Policy(first_pause_s=60.0, longest_pause_s=60.0))
    posts.add(told(1))
    until(lambda: tries)
    assert close(posts, 10.0) == 0
    assert len(tries) == 3
    assert tries[-1] - tries[0] < 5.0


def test_what_waits_is_bounded(sender: Callable[..., Sender]) -> None:
    first = threading.Event()
    taken: list[str] = []

    def posting(url: str, content: bytes, timeout_s: float) -> None:
        first.wait(10.0)
        taken.append(json.loads(content)["text"])

    posts = Sender(address("http://h/x"), lambda _: None, posting)
    for number in range(3 * MOST):
        posts.add(told(number))
    first.set()
    assert close(posts) >= 2 * MOST - 1
    assert len(taken) <= MOST + 1
    assert taken[-1] == f"word {3 * MOST - 1}", "the newest are sent"


def test_only_what_was_wished_for_is_told(listener: Listener, sender: Callable[..., Sender]) -> None:
    posts = sender(listener.url, on=("failed",))
    for kind in KINDS:
        posts.add(told(1, kind))
    assert close(posts) == 0
    assert [word["kind"] for word in listener.taken] == ["failed"]


def test_a_redirect_is_not_followed(listener: Listener) -> None:
    listener.answers = [307]
    with pytest.raises(Refused, match="307"):
        post(listener.url, b"{}", 5.0)
    assert listener.asked == 1


def test_slacks_form() -> None:
    word = tree(About("a<b>&c", "/x", "h"), Word("finished", "finished (step 9 of 9)"), 1.0, {"metrics": {"auc": 0.91}})
    line = json.loads(body("slack", word))
    assert line == {"text": ":white_check_mark: *a&lt;b&gt;&amp;c* finished (step 9 of 9) (auc 0.91)"}
    assert json.loads(body("slack", told(1)))["text"].startswith(":warning: *one* word 1")
    assert json.loads(body("slack", told(1, over=True)))["text"].startswith(":arrow_forward:")


def test_what_is_no_number_is_null_and_secrets_are_left_out() -> None:
    about = About("one", "s3://b/one?token=abcdefgh", "here", hidden=["hunter22"])
    text = f"the task raised Oops('hunter22 https://hooks.slack.com/services/{SECRET}')"
    found = json.loads(
        body("json", tree(about, Word("failed", text), 1.0, {"loss": float("nan"), "metrics": {"a": float("inf")}}))
    )
    assert (found["loss"], found["metrics"]) == (None, {"a": None})
    assert "hunter22" not in found["text"]
    assert SECRET not in json.dumps(found)
    assert "abcdefgh" not in found["path"]
    assert len(clean("x" * 10_000)) == 2000


# Of a run


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(*to: Address, **more: Any) -> Recorder:
        folder = tmp_path / "one"
        folder.mkdir(exist_ok=True)
        if not (folder / "run.json").exists():
            RunFolder(folder).write({"run": "one", "state": "running", "created": time.time()})
        made.append(Recorder(str(folder), None, {}, 10, notify=to, **more))
        return made[-1]

    yield make
    for each in made:
        each.release()


def _step(recorder: Recorder, step: int) -> None:
    now = time.time()
    if step == 0:
        began = {"kind": "began", "step": 0, "total_steps": 10, "steps_per_epoch": 5, "time": now}
        recorder.push("w1", [began])
    taken = {"kind": "step", "step": step, "epoch": 0, "loss": 0.5, "lr": 0.1, "rows": 8, "time": now, "samples": "x"}
    recorder.push("w1", [taken])


def test_a_run_tells_of_its_end(listener: Listener, recorded: Callable[..., Recorder]) -> None:
    recorder = recorded(address(listener.url))
    _step(recorder, 0)
    recorder.finish("failed", "the task raised X", 0.0, "task")
    (word,) = listener.taken
    assert (word["kind"], word["run"], word["state"], word["step"]) == ("failed", "one", "failed", 1)
    assert word["text"] == "failed: the task raised X (step 1 of 10)"


def test_a_run_that_stalls_and_loses_workers_tells_so(listener: Listener, recorded: Callable[..., Recorder]) -> None:
    recorder = recorded(address(listener.url, limits=Limits(stalled_s=0.5, storm=3)))
    _step(recorder, 0)
    until(lambda: listener.taken, "it is told that the run stalls")
    _step(recorder, 1)
    until(lambda: len(listener.taken) >= 2, "it is told that the run goes on")  # and it may stall again
    for worker in ("w2", "w3", "w4"):
        event = {"kind": "recovery", "time": time.time(), "cause": "link_cut", "workers": [worker], "pause_s": 0.1}
        recorder.event({**event, "step": 2, "generation": 2})
    until(lambda: any(word["kind"] == "recovery_storm" for word in listener.taken), "it is told of the storm")
    recorder.finish("finished", "", 0.0)
    told = [(word["kind"], word["over"]) for word in listener.taken]
    assert told[:2] == [("stalled", False), ("stalled", True)]
    assert told.count(("recovery_storm", False)) == 1
    assert told[-1] == ("finished", False)


def test_an_address_that_is_dead_delays_nothing(recorded: Callable[..., Recorder], tmp_path: Path) -> None:
    with listening() as gone:
        url = gone.url
    recorder = recorded(address(url, limits=Limits(stalled_s=0.5)))
    _step(recorder, 0)
    until(lambda: any("cannot be told" in text for text in recorder.progress(0)["messages"]), within_s=10.0)
    with Stalls() as stalls:
        began = time.monotonic()
        for step in range(1, 2000):
            _step(recorder, step)
        assert time.monotonic() - began - stalls.lost_s(began) < 5.0
        began = time.monotonic()
        recorder.finish("finished", "", 0.0)
        assert time.monotonic() - began - stalls.lost_s(began) < 8.0
    facts = RunFolder(tmp_path / "one").read()
    assert facts["state"] == "finished"
    assert any("not sent to notify.0" in note for note in facts["notes"])


def test_who_goes_on_with_a_run_whose_leader_was_killed_tells_that(
    listener: Listener, recorded: Callable[..., Recorder]
) -> None:
    first = recorded(address(listener.url))
    _step(first, 0)
    until(lambda: first.progress(0)["step"] == 1)
    first._scribe.flush(5.0)
    first._standing.close()
    first._lookout.close(0.0)
    first._scribe.close(5.0)
    first.release()  # as if it had been killed: no end is written
    second = recorded(address(listener.url))
    until(lambda: listener.taken)
    assert listener.taken[0]["kind"] == "stopped"
    assert "the process that led the run is gone; it goes on now" in listener.taken[0]["text"]
    second.finish("finished", "", 0.0)
    second.release()
    third = recorded(address(listener.url))
    third.finish("finished", "", 0.0)
    assert [word["kind"] for word in listener.taken] == ["stopped", "finished", "finished"]


def test_a_run_without_addresses_has_no_threads_for_them(recorded: Callable[..., Recorder]) -> None:
    before = {thread.name for thread in threading.enumerate()}
    recorder = recorded()
    assert not {thread.name for thread in threading.enumerate()} - before & {"lookout", "notify"}
    recorder.finish("finished", "", 0.0)


def test_who_looks_on_ends_with_the_run(listener: Listener) -> None:
    others = set(threading.enumerate())
    lookout = Lookout(About("a", "b", "c"), [address(listener.url)], lambda: (Seen(), {}), lambda _: None, 0.01)
    lookout.start()
    lookout.ended("finished", "")
    assert lookout.close() == []
    until(lambda: not any(thread.name in ("lookout", "notify") for thread in set(threading.enumerate()) - others))


# In a job


def hooked(*hooks: dict[str, Any]) -> Any:
    return parse({**JOB, "notify": list(hooks)})


def test_a_jobs_hooks_read_back_from_its_file(tmp_path: Path) -> None:
    text = "name: a\ntask: a.py:A\ndata: {train: x}\nepochs: 1\nnotify:\n- {url_file: /x, on: [failed], form: slack}\n"
    path = tmp_path / "job.yaml"
    path.write_text(text)
    job = load(path)
    assert (job.notify[0].on, job.notify[0].form) == (["failed"], "slack"), "YAML takes the key `on` for true"
    assert parse(read(to_yaml(job))) == job
    changed = load(path, ["notify.0.stalled_s=90m", "notify.0.on=[stalled]"])
    assert (changed.notify[0].stalled_s, changed.notify[0].on) == (5400.0, ["stalled"])


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"url": f"htps://hooks.slack.com/services/{SECRET}"}, "begin with http"),
        ({"url": f"https://me:abc@host/{SECRET}"}, "before its host"),
        ({"url": f"https://:99999/{SECRET}"}, "host or port cannot be read"),
        ({"url": f"https:///{SECRET}"}, "names no host"),
        ({"url": f"https://host/{SECRET} "}, "spaces"),
        ({"url": ""}, "is empty"),
        ({}, "none is given"),
        ({"url_file": f"{SECRET}"}, "whole path"),
        ({"url_file": "/x", "url_env": "Y"}, "url_file and url_env"),
        ({"url_env": "no name"}, "url_env"),
        ({"url_file": "/x", "on": ["done"]}, "'finished'"),
        ({"url_file": "/x", "on": []}, "the list is empty"),
        ({"url_file": "/x", "form": "teams"}, "form"),
        ({"url_file": "/x", "stalled_s": 0}, "stalled_s"),
        (f"https://host/{SECRET}", "a dictionary"),
    ],
)
def test_an_address_that_is_none_is_refused_at_the_door_and_not_shown(hook: Any, words: str) -> None:
    with pytest.raises(BadInput) as raised:
        hooked(hook)
    assert words in str(raised.value)
    if "url_file" not in hook:
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "https://hooks.slack.com/services/A/B/c", "http://[::1]:80/"])
def test_addresses_that_are_some(url: str) -> None:
    assert fault_of(url) == ""


def test_an_address_is_found_where_the_run_is_led(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://one.example/abc\n")
    job = hooked({"url_file": str(tmp_path / "hook")}, {"url_env": "MY_HOOK"}, {"url": "https://three.example/x"})
    found, notes = addresses(job.notify, {"MY_HOOK": "https://two.example/def"})
    assert [each.url for each in found] == [
        "https://one.example/abc",
        "https://two.example/def",
        "https://three.example/x",
    ]
    assert notes == []
    assert "abc" not in repr(found)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"url_file": "{}/absent"}, "No such file"),
        ({"url_file": "{}/wrong"}, "begin with http"),
        ({"url_file": "{}"}, "Is a directory"),
        ({"url_env": "MY_HOOK"}, "is not set"),
    ],
)
def test_a_file_or_variable_without_one_is_refused(hook: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("ftp://sekret.example/abc")
    job = hooked({name: value.format(tmp_path) for name, value in hook.items()})
    with pytest.raises(BadInput, match=words) as raised:
        addresses(job.notify, {})
    assert "sekret" not in str(raised.value)


def test_an_address_in_clear_is_kept_nowhere(tmp_path: Path) -> None:
    url = f"https://hooks.example/services/{SECRET}"
    job = hooked({"url": url, "form": "slack"}, {"url_file": "/x"})
    run = runs.create(tmp_path, "one", job)
    assert SECRET not in run.job_file.read_text()
    assert SECRET not in repr(job)
    again = load(run.job_file)
    assert (again.notify[0].url, again.notify[0].form) == ("***", "slack")
    _, notes = addresses(again.notify[:1], {})
    assert "notify.0.url was not kept" in notes[0]
    there = load(run.job_file, ["notify.0.url=null", "notify.0.url_file=/y"])
    assert (there.notify[0].url, there.notify[0].url_file) == (None, "/y")


# headway notify test


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: digits\ntask: a.py:A\ndata: {train: x}\nepochs: 1\nnotify:\n- {url_env: MY_HOOK, on: [failed]}\n"
    )
    return path


def test_a_test_word_is_sent(listener: Listener, job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HOOK", listener.url)
    done = CliRunner().invoke(app, ["notify", "test", str(job_file)])
    assert done.exit_code == 0, done.output
    assert done.output == "notify.0 (127.0.0.1): taken\n"
    assert (listener.taken[0]["kind"], listener.taken[0]["job"]) == ("test", "digits")
    done = CliRunner().invoke(app, ["notify", "test", str(job_file), "--set", "notify.0.form=slack", "--json"])
    assert json.loads(done.output) == {"tried": [{"address": "notify.0 (127.0.0.1)", "error": ""}]}
    assert listener.taken[1] == {"text": ":warning: *digits* a test: word of its runs comes here"}


def test_a_test_word_that_is_refused_is_said(
    listener: Listener, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_HOOK", listener.url)
    listener.answers = [404]
    done = CliRunner().invoke(app, ["notify", "test", str(job_file)])
    assert (done.exit_code, done.output) == (3, "notify.0 (127.0.0.1): the answer is 404 Not Found\n")


def test_a_job_that_names_nobody_is_said(job_file: Path) -> None:
    done = CliRunner().invoke(app, ["notify", "test", str(job_file), "--set", "notify=[]"])
    assert isinstance(done.exception, BadInput)
    assert "names nobody" in str(done.exception)


@pytest.mark.parametrize(("after", "seconds"), [("7", 7.0), ("\u00b2", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)])
def test_whatever_an_answer_says_of_when_it_is_tried_again(listener: Listener, after: str, seconds: float) -> None:
    listener.answers, listener.after = [503], after
    with pytest.raises(NotNow) as raised:
        post(listener.url, b"{}", 20.0)
    assert raised.value.args[1] == seconds


def test_no_fact_tells_what_is_hidden() -> None:
    about = About("r", "/runs/r", "host", hidden=["opensesame"])
    facts = {"waits": "for opensesame at postgresql://u:letmein99@db/x", "metrics": {"opensesame": 1.0}}
    told = json.dumps(tree(about, Word("stalled", "no step for 20 min"), 1.0, facts))
    assert "opensesame" not in told
    assert "letmein99" not in told
    assert "for ***" in told
