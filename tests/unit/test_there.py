"""The driver of a submission on its cluster, and its parent; what they would begin is put in its place here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

import headway
from headway import runs
from headway.driver import run as runner
from headway.driver.submission import Began, Submission
from headway.errors import BadInput, RunFailed
from headway.job import parse
from headway.jobs import told
from headway.jobs.spec import FILE, Spec, to_json
from headway.jobs.there import before, driver, leaving, main
from headway.jobs.there.driver import Driver
from headway.jobs.there.telling import Out
from headway.notation.plain import write
from headway.runs.requests import Box, Heard, Stop, of_attempt
from headway.storage.protocol import OutOfReach
from headway.testing.s3 import S3

HOME = Path(headway.__file__).parents[1]
TREE = {"name": "j", "task": "/home/anna/task.py:Task", "data": {"train": "/data"}, "steps": 3}
SPEC = Spec("train", "r", "a1", "anna@laptop", "0.1.0", (3, 11), job=write(TREE))


def made_by(attempt: str) -> dict[str, Any]:
    """What a run says of the submission that began it last."""
    return {"submission": {"id": f"headway-r-{attempt}", "attempt": attempt, "by": "ben@desk"}}


@dataclass
class Report:
    """As much of one as a driver looks at."""

    state: str = "finished"
    message: str = ""
    cause: str | None = None


@dataclass
class There:
    """A driver, the folder of its runs, and what would lead a run."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    did: list[str] = field(default_factory=list)
    act: Callable[[Submission], Any] = lambda submission: Report()

    @property
    def spec(self) -> Spec:
        return replace(SPEC, runs=str(self.folder))

    @property
    def place(self) -> runs.Place:
        return runs.Place.of(str(self.folder))

    def make(self, attempt: str, state: str = "interrupted") -> runs.RunFolder:
        run = runs.create(self.place, "r", parse(TREE), made_by(attempt))
        run.write({**run.read(), "state": state})
        return run

    def do(self, verb: str, submission: Submission) -> Any:
        self.did.append(verb)
        return self.act(submission)

    def drive(self, spec: Spec | None = None) -> tuple[int, list[dict[str, Any]]]:
        code = Driver(spec or self.spec, self.folder / "no code", Out().tell).run()
        return code, told.read(self.capsys.readouterr().out.splitlines(keepends=True))


@pytest.fixture
def there(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> There:
    monkeypatch.setenv("HEADWAY_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("{}")
    found = There(tmp_path / "runs", capsys)

    def train(job: Any, *, submission: Submission, name: str, runs_folder: str, watch: Any) -> Any:
        return found.do("train", submission)

    def resume(name: str, *, submission: Submission, **_: Any) -> Any:
        return found.do("resume", submission)

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr(runner, "resume", resume)
    return found


def begin(submission: Submission) -> Report:
    submission.began(Began("r", "/runs/r", None, 1, None))
    return Report()


def test_a_run_that_is_not_there_is_begun(there: There) -> None:
    there.act = begin
    code, said = there.drive()
    assert (code, there.did) == (0, ["train"])
    assert [tree["told"] for tree in said] == ["began", "ended"]
    assert said[0]["where"] == "/runs/r"
    assert said[1] == {"told": "ended", "state": "finished", "message": "", "exit_code": 0}


def test_a_name_that_another_submission_has_is_refused_and_its_run_left_alone(there: There) -> None:
    run = there.make("another")
    facts = run.read()
    code, said = there.drive()
    assert (code, there.did, run.read()) == (2, [], facts)
    assert [tree["told"] for tree in said] == ["refused"]
    assert "is taken" in said[0]["fact"]
    assert "submitted by ben@desk; it is interrupted" in said[0]["reason"]
    assert "headway resume r" in said[0]["remedy"]


def test_a_check_of_a_name_that_is_taken_is_refused_too(there: There) -> None:
    there.make("another")
    code, said = there.drive(replace(there.spec, kind="check"))
    assert (code, said[0]["told"]) == (2, "refused")


def test_what_this_submission_made_is_gone_on_with(there: There) -> None:
    there.make("a1")
    there.act = begin
    code, said = there.drive()
    assert (code, there.did) == (0, ["resume"])
    assert [tree["told"] for tree in said] == ["began", "ended"]


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_what_this_submission_leads_elsewhere_is_that_run(
    there: There, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It is waited for, and its end is this job's."""
    run = there.make("a1", "running")

    def led(_: Submission) -> Any:
        raise runs.Led("run r is running", "process 7 on head leads it", "")

    looks = iter([True, OutOfReach("the store", "is away", ""), True])

    def is_led(_: Any) -> bool:
        found = next(looks, False)
        if isinstance(found, OutOfReach):
            raise found
        if found:
            return True
        run.write({**run.read(), "state": state, "message": "by its leader"})
        return False

    monkeypatch.setattr(runs.RunFolder, "is_led", is_led)
    monkeypatch.setattr(driver, "LOOK_S", 0.0)
    there.act = led
    code, said = there.drive()
    assert (code, there.did) == (0 if state == "finished" else 130, ["resume"])
    assert [tree["told"] for tree in said] == ["note", "began", "ended"]
    assert said[1]["elsewhere"] is True
    assert (said[2]["state"], said[2]["message"]) == (state, "by its leader")


def test_where_the_run_is_removed_meanwhile_that_is_its_end(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    run = there.make("a1", "running")

    def led(_: Submission) -> Any:
        raise runs.Led("run r is running", "process 7 on head leads it", "")

    def removed(_: Any) -> bool:
        run.discard()
        raise runs.NoRun("no run 'r'")

    monkeypatch.setattr(runs.RunFolder, "is_led", removed)
    there.act = led
    code, said = there.drive()
    assert (code, said[-1]["state"], said[-1]["message"]) == (130, "interrupted", "it was removed")


def test_where_that_leader_goes_its_twin_takes_over(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    there.make("a1", "running")

    def led(submission: Submission) -> Any:
        if there.did == ["resume"]:
            raise runs.Led("run r is running", "process 7 on head leads it", "")
        return begin(submission)

    monkeypatch.setattr(runs.RunFolder, "is_led", lambda _: False)
    there.act = led
    code, said = there.drive()
    assert (code, there.did) == (0, ["resume", "resume"])
    assert [tree["told"] for tree in said] == ["note", "began", "began", "ended"]
    assert [tree.get("elsewhere", False) for tree in said if tree["told"] == "began"] == [True, False]


def test_what_another_leads_is_not_taken_from_it(there: There) -> None:
    there.make("another", "running")

    def led(_: Submission) -> Any:
        raise runs.Led("run r is running", "process 7 on head leads it", "")

    there.act = led
    code, said = there.drive(replace(there.spec, kind="resume", job=None))
    assert (code, said[0]["told"], said[0]["fact"]) == (2, "refused", "run r is running")


def test_what_this_submission_has_finished_is_not_run_again(there: There) -> None:
    there.make("a1", "finished")
    code, said = there.drive()
    assert (code, there.did) == (0, [])
    assert [tree["told"] for tree in said] == ["note", "began", "ended"]
    assert said[1]["elsewhere"] is True


def test_a_resume_that_this_submission_has_led_to_the_end_is_told_of(there: There) -> None:
    there.make("a1", "finished")
    code, said = there.drive(replace(there.spec, kind="resume", job=None))
    assert (code, there.did, [tree["told"] for tree in said]) == (0, [], ["note", "began", "ended"])


def test_a_twin_that_was_faster_is_found(there: There) -> None:
    """Two jobs of one submission: one makes the run, after the other had looked for it."""

    def late(submission: Submission) -> Any:
        if there.did == ["train"]:
            there.make("a1")
            raise runs.Taken("r is taken", "", "")
        return begin(submission)

    there.act = late
    code, _ = there.drive()
    assert (code, there.did) == (0, ["train", "resume"])


def test_a_name_that_is_taken_by_what_is_no_run_is_refused(there: There) -> None:
    def taken(_: Submission) -> Any:
        raise runs.Taken("r is taken", "a run of that name is there", "")

    there.act = taken
    code, said = there.drive()
    assert (code, there.did, said[0]["told"]) == (2, ["train"], "refused")


def test_a_run_of_which_nothing_was_written_is_begun_anew(there: There) -> None:
    run = there.make("a1", "running")
    run.job_file.unlink()
    there.act = begin
    code, _ = there.drive()
    assert (code, there.did) == (0, ["train"])


def test_what_fails_before_it_began_is_refused_and_afterwards_has_ended(there: There) -> None:
    def refuse(_: Submission) -> Any:
        raise BadInput("data.train=/data", "there is none", "Make it.")

    def fail(submission: Submission) -> Any:
        begin(submission)
        raise RunFailed("its machines", "are gone", "Resume it.")

    there.act = refuse
    code, said = there.drive()
    assert (code, [tree["told"] for tree in said], said[0]["reason"]) == (2, ["refused"], "there is none")
    there.act = fail
    code, said = there.drive()
    assert (code, [tree["told"] for tree in said]) == (3, ["began", "ended"])
    assert said[1]["state"] == "failed"


def test_a_fault_of_ours_is_told_whole(there: There) -> None:
    there.act = lambda _: {}["no such thing"]
    code, said = there.drive()
    assert (code, said[0]["told"]) == (3, "refused")
    assert "KeyError: 'no such thing'" in said[0]["traceback"]


@pytest.mark.parametrize(("by", "state", "code"), [(None, "interrupted", 130), ("ben@desk", "stopped", 4)])
def test_an_end_before_the_beginning_is_told_as_such(there: There, by: str | None, state: str, code: int) -> None:
    def end(_: Submission) -> Any:
        raise Heard(Stop(by, 1.0)) if by else KeyboardInterrupt

    there.act = end
    found, said = there.drive()
    assert (found, said[0]["told"], said[0]["state"], said[0]["exit_code"]) == (code, "ended", state, code)
    assert "nothing was started" in said[0]["message"]


def test_a_stop_that_was_asked_for_before_there_is_a_run_is_heard(there: There) -> None:
    before_it = Box.of(there.place, "r")

    def wait(_: Submission) -> Any:
        before_it.ask(of_attempt("a1"), Stop("ben@desk", 1.0))
        until(lambda: False, "the end that was asked for")

    there.act = wait

    def interrupt(*_: Any) -> None:  # as the first signal to a command does
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        code, said = there.drive()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert (code, said[0]["state"]) == (4, "stopped")
    assert "ben@desk" in said[0]["message"]
    assert before_it.asked(of_attempt("a1")) is None


def test_a_run_in_a_store_knows_whose_it_is_from_its_first_moment(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver may be killed before a word of it is shipped."""
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "head"))
    s3.make_bucket("first")
    made = runs.create(runs.Place.of("s3://first/runs"), "r", parse(TREE), made_by("a1"))
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "other"))
    found = runs.find(runs.Place.of("s3://first/runs"), "r")
    assert not found.job_file.exists()
    facts = before.facts_of(found)
    assert before.is_ours(facts, SPEC)
    assert not before.is_ours(facts, replace(SPEC, attempt="a2"))
    assert "submitted by ben@desk" in str(before.taken(found, facts))
    made.discard()


def test_stores_are_spoken_to_as_submitted_but_where_the_node_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headway import config

    (tmp_path / "config.yaml").write_text("store: {region: eu-central-1}\n")
    monkeypatch.setenv("HEADWAY_CONFIG", str(tmp_path / "config.yaml"))
    spec = replace(SPEC, store={"region": "us-east-1", "endpoint": "http://127.0.0.1:9", "retries": 8, "sse": None})
    with before.laid(spec):
        store = config.load().store
        assert (store.region, store.endpoint, store.retries) == ("eu-central-1", "http://127.0.0.1:9", 8)
    assert config.load().store.endpoint is None


BEGAN = """
import json, os, signal, sys, time
from headway.jobs.there.telling import teller
tell = teller()
print("before it began", flush=True)
tell("began", run="r", where={run!r}, far=None, epoch=1, resumed_from=None)
print("step 1/3", flush=True)
"""


@dataclass
class Job:
    """The parent, begun as Ray begins it; its driver is a few lines."""

    folder: Path
    parent: subprocess.Popen[str] | None = None

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "r"

    def begin(self, driver: str, spec: Spec = SPEC, stdout: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        (self.folder / FILE).write_text(to_json(replace(spec, runs=str(self.folder / "runs"))))
        (self.folder / "driver_of_a_test.py").write_text(textwrap.dedent(driver).format(run=str(self.run)))
        code = (
            "import sys; from headway.jobs.there import main; main.DRIVER = 'driver_of_a_test'; sys.exit(main.main())"
        )
        self.parent = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{HOME}"},
            stdout=stdout,
            text=True,
        )
        return self.parent

    def end(self) -> tuple[int, str, list[dict[str, Any]]]:
        """Exit code, what was printed, what was told."""
        assert self.parent is not None
        out, _ = self.parent.communicate(timeout=60)
        return self.parent.returncode, out, told.read(out.splitlines(keepends=True))

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.run.glob("logs/driver/*/*.log")))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    run = runs.create(tmp_path / "runs", "r", parse(TREE), made_by("a1"))
    assert run.read()["submission"] == made_by("a1")["submission"]
    with run.led() as epoch:
        assert epoch == 1
    found = Job(tmp_path)
    yield found
    if found.parent is not None:
        found.parent.kill()
        found.parent.communicate()


def test_what_a_driver_prints_is_passed_on_and_kept_with_its_run(job: Job) -> None:
    job.begin(BEGAN + "tell('ended', state='finished', message='', exit_code=0)")
    code, out, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (0, ["began", "ended"])
    assert "step 1/3" in out
    assert "before it began" in job.log()
    assert "step 1/3" in job.log()
    assert told.MARK not in job.log()


def test_what_is_told_begins_a_line_whatever_was_printed_before(job: Job) -> None:
    job.begin(
        BEGAN
        + """
sys.stderr.write("40%|####    ")
print(chr(58) * 2 + 'headway:: {{"told": "ended", "state": "failed", "exit_code": 7}}')
sys.stderr.write("90%|####    ")
tell("ended", state="finished", message="", exit_code=0)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    )
    code, out, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (0, ["began", "ended"])
    assert said[1]["state"] == "finished"
    assert "40%" in out
    assert "90%" in out


def test_children_of_a_driver_tell_nothing(job: Job) -> None:
    job.begin(
        BEGAN
        + """
import subprocess
mine = "import os; from headway.jobs.there.telling import WAY; print(WAY in os.environ, os.listdir('/proc/self/fd'))"
subprocess.run([sys.executable, "-c", mine], close_fds=False)
tell('ended', state='finished', message='', exit_code=0)
"""
    )
    code, out, _ = job.end()
    assert code == 0
    assert "False ['0', '1', '2', '3']" in out


def test_a_run_that_is_led_elsewhere_is_no_end_without_a_word(job: Job) -> None:
    """The driver itself, below its parent: its run has finished, and nothing but the run's own facts is needed."""
    run = runs.find(job.folder / "runs", "r")
    run.write({**run.read(), "state": "finished"})
    job.begin("from headway.jobs.there import driver; sys = __import__('sys'); sys.exit(driver.main())")
    code, _, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (0, ["note", "began", "ended"])
    assert said[1]["elsewhere"] is True
    assert run.read()["state"] == "finished"


def test_a_driver_that_was_killed_is_told_of_and_its_run_closed(job: Job) -> None:
    job.begin(BEGAN + "os.kill(os.getpid(), signal.SIGKILL)")
    code, _, said = job.end()
    assert (code, said[-1]["told"], said[-1]["state"], said[-1]["exit_code"]) == (3, "ended", "failed", 3)
    assert "SIGKILL" in said[-1]["message"]
    facts = json.loads((job.run / "run.json").read_text())
    assert (facts["state"], facts["cause"]) == ("failed", "platform")
    assert "SIGKILL" in facts["message"]


def test_a_run_that_was_made_and_did_not_begin_goes_with_its_driver(job: Job) -> None:
    job.begin("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", replace(SPEC, runs=None))
    code, _, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (3, ["refused"])
    assert not job.run.exists()


def test_a_package_that_is_broken_is_told_of_all_the_same(job: Job) -> None:
    (job.folder / "pydantic.py").write_text("raise ImportError('libpydantic.so')")
    job.begin("import pydantic")
    code, out, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (3, ["refused"])
    assert "its run could not be closed: ImportError: libpydantic.so" in out


def test_what_another_submission_made_does_not_go(job: Job) -> None:
    job.begin("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", replace(SPEC, attempt="a2"))
    assert job.end()[0] == 3
    assert job.run.exists()


def test_a_run_that_somebody_goes_on_with_already_is_not_closed(there: There) -> None:
    run = there.make("a1", "running")
    for _ in range(2):
        with run.led():
            pass
    assert leaving.close(there.spec, {"run": "r", "epoch": 1}, "killed") == "running"
    assert leaving.close(there.spec, {"run": "r", "epoch": 2}, "killed") == "failed"


def test_a_full_disk_of_rays_log_does_not_hold_a_run_up(job: Job) -> None:
    text = BEGAN + "for i in range(3000): print('x' * 99, i)\ntell('ended', state='finished', message='', exit_code=0)"
    with Path("/dev/full").open("w") as full:
        parent = job.begin(text, stdout=full)
    assert parent.wait(60) == 0
    assert "xxx 2999" in job.log()


def test_a_driver_that_ends_without_a_word_before_it_began_is_refused(job: Job) -> None:
    job.begin("print('Segmentation fault'); raise SystemExit(7)")
    code, out, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (3, ["refused"])
    assert "exit code 7" in said[0]["fact"]
    assert "Segmentation fault" in out
    assert job.log() == ""


def test_a_process_of_the_tasks_that_holds_the_pipe_does_not_keep_the_job(job: Job) -> None:
    job.begin(
        BEGAN
        + """
import subprocess
subprocess.Popen(["sleep", "90"], start_new_session=True)
tell('ended', state='finished', message='', exit_code=0)
"""
    )
    assert job.parent is not None
    assert job.parent.wait(60) == 0


def test_an_end_is_asked_for_by_a_word_and_not_by_a_signal(job: Job) -> None:
    parent = job.begin(
        BEGAN
        + """
signal.signal(signal.SIGTERM, lambda *_: os._exit(99))
print("asked:", os.read(0, 5).decode().strip(), flush=True)
tell("ended", state="interrupted", message="", exit_code=130)
os._exit(130)
"""
    )
    until(lambda: "step 1/3" in job.log(), "the driver has begun", within_s=60)
    parent.terminate()
    code, out, _ = job.end()
    assert code == 130
    assert "asked: stop" in out


def test_a_driver_whose_parent_was_killed_goes_on_to_its_checkpoint(job: Job) -> None:
    parent = job.begin(
        """
import sys
from headway.driver import run
from headway.jobs.there import driver
def train(*_, submission, watch, **__):
    from pathlib import Path
    from headway.driver.progress import Progress
    from headway.driver.submission import Began
    import threading, time
    from headway.driver import signals
    stop = threading.Event()
    with signals.asking(stop):
        submission.began(Began("r", "{run}", None, 1, None))
        Path("{run}.began").touch()
        while not stop.is_set():
            watch(Progress("r", 0, 3, 0, None, 0.0, 0.0, 0, 0.0, {{}}, ["x" * 100]))
            time.sleep(0.01)
        for _ in range(100):
            watch(Progress("r", 0, 3, 0, None, 0.0, 0.0, 0, 0.0, {{}}, ["the run is asked to end"]))
        Path("{run}.checkpoint").touch()
    from headway.core.ends import End
    return End("interrupted", "ended by a signal")
run.train = train
sys.exit(driver.main())
""",
        replace(SPEC, run="other", job=write(TREE)),
    )
    until(lambda: job.run.with_name("r.began").exists(), "the driver has begun", within_s=60)
    parent.kill()
    until(lambda: job.run.with_name("r.checkpoint").exists(), "its checkpoint", within_s=60)


def test_packages_that_are_not_there_are_named_before_anything_begins(job: Job) -> None:
    job.begin(BEGAN, replace(SPEC, packages={"no-such-distribution": "1.0"}))
    code, out, said = job.end()
    assert (code, [tree["told"] for tree in said]) == (2, ["lacks", "refused"])
    assert said[0]["packages"] == {"no-such-distribution": ["1.0", None]}
    assert main.HERE in said[1]["fact"]
    assert "before it began" not in out
