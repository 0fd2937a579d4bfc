"""Secrets of a submission: which are found, what is sent of them, and where they are taken."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from headway import runs, variables
from headway.core import secrecy
from headway.errors import BadInput
from headway.job import Job, parse, to_yaml
from headway.jobs import secrets
from headway.jobs.spec import Spec, from_json, to_json
from headway.notation import overrides
from headway.tracking.store import redact

WORD = "s3cr3t-0815-word"


def job(**more: Any) -> Job:
    return parse({"name": "a", "task": "t.py:T", "data": {"train": "/d"}, "epochs": 1, "lanes": 1, **more})


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("MY_TOKEN", "abc", True),
        ("WANDB_API_KEY", "abc", True),
        ("AZURE_STORAGE_KEY", "abc", True),
        ("ENCRYPTION_KEY", "abc", True),
        ("DB_PWD", "abc", True),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a", True),
        ("DATABASE_URL", f"postgresql://me:{WORD}@host/db", True),
        ("SOMETHING", "AKIA" + "A1" * 8, True),
        ("SOMETHING", "-----BEGIN RSA PRIVATE KEY-----\nxyz", True),
        *((name, "abc", True) for name in ("PGPASS", "DB_PASS", "PW", "BASIC_AUTH", "NPM_CONFIG__AUTH", "GH_PAT")),
        ("SENTRY_DSN", "https://0123456789abcdef0123@host/1", True),
        ("ANY", "https://0123456789abcdef0123@host/1", True),
        ("SLACK_WEBHOOK", "https://hooks.slack.com/services/T0/B0/abc", True),
        ("ANY", "https://hooks.slack.com/services/T0/B0/abc", True),
        ("HEADER", "Bearer abcdefgh.ijkl", True),
        ("COMPASS", "north", False),
        ("FILE_PAT", "*.jpg", False),
        ("WORDS", "Bearer of news", False),
        ("DATABASE_URL", "postgresql://me@host/db", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/google.json", False),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token", False),
        ("KEYBOARD", "de", False),
        ("MODE", "fast", False),
        ("PWD", "/home/me", False),
    ],
)
def test_variables_are_secret_by_name_or_form(name: str, value: str, is_one: bool) -> None:
    assert secrecy.variable(name, value) is is_one


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("api_key", True),
        ("apiKey", True),
        ("hf_token", True),
        ("password", True),
        ("token", True),
        ("tokenizer", False),
        ("pad_token", False),
        ("num_tokens", False),
        ("key", False),
        ("key_dim", False),
        ("access_pattern", False),
    ],
)
def test_arguments_are_secret_by_fewer_names(name: str, is_one: bool) -> None:
    assert secrecy.argument(name, "something") is is_one


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"postgresql://me:{WORD}@host/db", [WORD]),
        ("postgresql://me:***@host/db", []),
        (f"mysql://host/db?user=me&password={WORD}&ssl=1", [WORD]),
        (f"https://account.blob.core.windows.net/c/b?sv=1&sig={WORD}", [WORD]),
        (f"https://b.s3.amazonaws.com/k?X-Amz-Signature={WORD}", [WORD]),
        ("https://host/path?page=2&sign=up", []),
        ("s3://bucket/some@where", []),
        ("hf_" + "a" * 34, ["hf_" + "a" * 34]),
        ("sk-proj-Abc0123456789defghij", ["sk-proj-Abc0123456789defghij"]),
        ("sk-learn-contrib-with-a-long-name", []),
        ("dapi" + "0a" * 16, ["dapi" + "0a" * 16]),
        ("dapier-than-anything-else-in-here", []),
        ("postgresql://me:${PGPASSWORD}@host/db", []),
        ("postgresql://me:<password>@host/db", []),
        (f"postgresql://me:{WORD}@one/db and mysql://u:another@two", [WORD, "another"]),
        (f"redis://:{WORD}@host", [WORD]),
        ("http://host:8080/path@that", []),
        ("http://[::1]:8080/path@that", []),
        ("ssh://git@host/path", []),
        ("postgresql://me:pa/ss@host/db", ["pa/ss"]),
        ("postgresql://me:p@ss@host/db", ["p@ss"]),
        ("postgresql://me:word@host/db?of=a@b", ["word"]),
        ("https://host:8443", []),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc", ["-----BEGIN OPENSSH PRIVATE KEY-----"]),
        ("a perfectly ordinary sentence: with@signs", []),
    ],
)
def test_secrets_are_seen_within_a_text(text: str, parts: list[str]) -> None:
    assert secrecy.within(text) == parts


LONG = ("a", "A0-", "ey", "eyJ-", "sk-", "http://", "a://b:", "?token", "&a=", "@", " ", "hf_", "-----BEGIN ")


@pytest.mark.parametrize("piece", LONG)
def test_a_long_text_is_read_through_in_one_go(piece: str) -> None:
    """Of 300,000 characters: in what grows with their square this would take minutes."""
    text = piece * (300_000 // len(piece))
    begin = time.process_time()
    secrecy.within(text)
    assert time.process_time() - begin < 8


def full() -> Job:
    return job(
        env={"MY_TOKEN": WORD, "MODE": "fast", "HELD": None, "FILED_KEY": {"file": "/run/secrets/key"}},
        tracking={"uri": f"postgresql://me:{WORD}@host/db"},
    )


def test_references_are_sent_in_the_place_of_literals() -> None:
    tree, found = secrets.stripped(full())
    assert WORD not in json.dumps(tree)
    assert [each.where for each in found] == ["tracking.uri", "env.MY_TOKEN"]
    assert tree["env"] == {"MY_TOKEN": None, "MODE": "fast", "HELD": None, "FILED_KEY": {"file": "/run/secrets/key"}}
    assert tree["tracking"]["uri"] == "postgresql://me:***@host/db"
    assert WORD not in repr(found)
    parse(tree)  # a job still


def test_a_literal_is_refused_without_the_switch_and_nothing_shows_it() -> None:
    _, found = secrets.stripped(full())
    with pytest.raises(BadInput) as caught:
        secrets.allowed(found, send=False)
    text = str(caught.value)
    assert text.startswith("tracking.uri and env.MY_TOKEN hold secrets in clear: whoever has the cluster's token")
    assert "write `MY_TOKEN: null`" in text
    assert "MY_TOKEN: {file: PATH}" in text
    assert "HEADWAY_TRACKING_PASSWORD" in text
    assert "--send-secrets sends them all the same" in text
    assert WORD not in text


def test_the_switch_sends_it_and_says_who_can_read_it() -> None:
    tree, found = secrets.stripped(full())
    sent = secrets.allowed(found, send=True)
    assert sent == {"env.MY_TOKEN": WORD, "tracking.uri": f"postgresql://me:{WORD}@host/db"}
    told = "\n".join(secrets.said(found, "http://head:8265"))
    assert "everybody who has the token of http://head:8265 can read it" in told
    assert "wants no token" in "\n".join(secrets.said(found, "http://head:8265", guarded=False))
    assert WORD not in told
    spec = from_json(to_json(Spec("train", "r", "a1", "me", "1", (3, 11), job=tree, sent=sent)))
    assert spec.job is not None
    there = secrets.resolved({**spec.job, "env": {**spec.job["env"], "FILED_KEY": "x"}}, spec.sent, {"HELD": "h"})
    assert there.env == {"MY_TOKEN": WORD, "MODE": "fast", "HELD": None, "FILED_KEY": "x"}
    assert there.tracking.uri == f"postgresql://me:{WORD}@host/db"
    shown = json.dumps([spec.metadata, {**asdict(spec), "sent": None}])
    assert WORD not in shown, "only `sent` holds it"


def test_what_is_kept_with_a_run_never_holds_it() -> None:
    there = secrets.resolved(*_sent(job(env={"MY_TOKEN": WORD, "URL": f"redis://:{WORD}@h"})))
    assert WORD in json.dumps(there.model_dump())
    assert WORD not in to_yaml(runs.kept(there))


def _sent(given: Job) -> tuple[dict[str, Any], dict[str, str]]:
    tree, found = secrets.stripped(given)
    return tree, secrets.allowed(found, send=True)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"arguments": {"api_key": WORD}}, "arguments.api_key"),
        ({"arguments": {"api_keys": [WORD]}}, "arguments.api_keys.0"),
        ({"arguments": {"db": {"a.b": [f"mysql://u:{WORD}@h"]}}}, 'arguments.db."a.b".0'),
        ({"data": {"train": f"s3://key:{WORD}@bucket/x"}}, "data.train"),
        ({"data": {"train": [{"path": f"https://h/x?sig={WORD}"}]}}, "data.train.0.path"),
        ({"data": {"train": "/d", "store": {"endpoint": f"http://a:{WORD}@h"}}}, "data.store.endpoint"),
    ],
)
def test_a_secret_anywhere_else_is_found_and_its_keeping_told(more: dict[str, Any], where: str) -> None:
    _, found = secrets.stripped(job(**more))
    assert [(each.where, each.parts) for each in found] == [(where, (WORD,))]
    with pytest.raises(BadInput, match="name a variable under env") as caught:
        secrets.allowed(found, send=False)
    assert WORD not in str(caught.value)
    assert secrets.allowed(found, send=True) == {}, "it travels in the job itself"
    assert "is kept with the run, too, and shown by MLflow" in "".join(secrets.said(found, "a"))


def test_an_ordinary_job_has_none() -> None:
    given = job(
        env={"TOKENIZERS_PARALLELISM": "false", "HF_HOME": "/x"},
        arguments={"tokenizer": "bert-base", "pad_token": "[PAD]", "tokens": 100, "sep_token": "</s> and more"},
        tracking={"uri": "https://mlflow.example.org:8443"},
        data={"train": "s3://bucket/data", "store": {"endpoint": "http://minio:9000"}},
    )
    tree, found = secrets.stripped(given)
    assert found == []
    assert tree == given.model_dump()
    assert secrets.allowed(found, send=False) == {}
    assert secrets.stripped(job(env=["MY_TOKEN"]))[1] == []


def test_settings_of_a_resume_are_looked_at_too() -> None:
    given = ["epochs=3", f"env.MY_TOKEN={WORD}", f"tracking.uri=postgresql://me:{WORD}@h/d", "workers.max=2"]
    plain, found = secrets.stripped_settings(given)
    assert WORD not in json.dumps(plain)
    assert (plain[0], plain[3]) == ("epochs=3", "workers.max=2")
    sent = secrets.allowed(found, send=True)
    there = secrets.resolved_settings(plain, sent)
    tree: dict[str, Any] = {"env": {"A": "b"}, "tracking": {"enabled": True}}
    for setting in there:
        overrides.apply(tree, setting, lambda _, value: value)
    assert tree["env"] == {"A": "b", "MY_TOKEN": WORD}
    assert tree["tracking"] == {"enabled": True, "uri": f"postgresql://me:{WORD}@h/d"}
    with pytest.raises(BadInput, match="not of the form"):
        secrets.stripped_settings(["epochs"])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (f"env.MY_TOKEN={WORD}", "env.MY_TOKEN=null"),
        (f'env={{"A": 1, "MY_TOKEN": {WORD}}}', 'env={"A": 1, "MY_TOKEN": null}'),
        (f"tracking.uri=postgresql://me:{WORD}@h/d", 'tracking.uri="postgresql://me:***@h/d"'),
        (
            f"tracking={{uri: 'mysql://me:{WORD}@h/d', enabled: true}}",
            'tracking={"uri": "mysql://me:***@h/d", "enabled": true}',
        ),
        ("env.MY_KEY={file: /run/key}", "env.MY_KEY={file: /run/key}"),
        ("env=[MY_TOKEN]", "env=[MY_TOKEN]"),
    ],
)
def test_a_setting_without_its_secret_sets_the_same_place(given: str, sent: str) -> None:
    assert secrets.stripped_settings([given])[0] == [sent]


def test_a_list_of_names_is_not_replaced_by_a_sent_value() -> None:
    plain, found = secrets.stripped_settings([f"env.MY_TOKEN={WORD}"])
    tree: dict[str, Any] = {"env": ["A", "B"]}
    first = secrets.resolved_settings(plain, secrets.allowed(found, send=True))[0]
    with pytest.raises(BadInput, match="env is a list") as caught:
        overrides.apply(tree, first, lambda _, value: value)
    assert tree == {"env": ["A", "B"]}
    assert WORD not in str(caught.value), "what stands in its place comes first"


def test_a_file_gives_the_value_where_the_run_is_led(tmp_path: Path) -> None:
    held = tmp_path / "key"
    held.write_text(f"{WORD}\n")
    given = job(env={"MY_KEY": {"file": str(held)}, "A": "1"})
    assert variables.given(given, {}) == {"MY_KEY": WORD, "A": "1"}
    assert variables.secrets(given, {}) == [WORD]
    assert runs.kept(given).env == given.env
    assert parse(given.model_dump()) == given
    assert secrets.stripped(given)[1] == []
    held.unlink()
    with pytest.raises(BadInput, match=r"env\.MY_KEY\.file=.*No such file"):
        secrets.resolved(given.model_dump(), {}, {})
    assert variables.secrets(given, {}) == [], "nothing is known of it here"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "is no text"), (b"a\0b", "NUL byte"), (b"x" * (65 << 10), "more than 64 KiB")],
)
def test_a_file_that_holds_no_value_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        variables.read_file("A", str(tmp_path / "key"))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"file": "relative"}, "write its whole path"),
        ({"flie": "/x"}, r"only \{file: PATH\} is known"),
        ({"file": 3}, r"only \{file: PATH\} is known"),
        ({"file": "/x", "more": 1}, r"only \{file: PATH\} is known"),
    ],
)
def test_odd_references_are_refused(said: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        job(env={"A": said})
    assert str(caught.value).count("env") == 1


def test_a_name_that_is_not_set_on_the_cluster_says_where_it_is_wanted() -> None:
    with pytest.raises(BadInput, match="env names MINE, which is not set on the machine that leads the run") as caught:
        secrets.resolved(job(env=["MINE"]).model_dump(), {}, {})
    assert "--send-secrets" in caught.value.remedy
    assert secrets.resolved(job(env=["MINE"]).model_dump(), {}, {"MINE": "x"}).env == ["MINE"]


def test_files_with_a_secret_in_them_are_known_by_all_that_is_secret_here(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file")
    given = job(
        env={
            "MY_TOKEN": WORD,
            "HELD_TOKEN": None,
            "FILED": {"file": str(tmp_path / "key")},
            "DB": "redis://:inurl-1@h",
        },
        tracking={"uri": "postgresql://me:ofmlflow@h/d"},
    )
    found = secrets.must_stay(given, {"HELD_TOKEN": "of-my-shell"})
    assert sorted(found) == ["from-a-file", "inurl-1", "of-my-shell", "ofmlflow", WORD]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://u:p@ss@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:pa/ss@h/db", "postgresql://u:***@h/db"),
        ("mysql://u:word@h?of=a@b", "mysql://u:***@h?of=a@b"),
    ],
)
def test_nothing_of_a_password_is_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown
