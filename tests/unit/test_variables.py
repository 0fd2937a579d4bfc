"""The submitter's variables: which are given, and what is written of them."""

from __future__ import annotations

from typing import Any

import pytest

from headway import runs, variables
from headway.errors import BadInput
from headway.job import Job, parse, to_yaml


def job(env: Any = None) -> Job:
    more = {} if env is None else {"env": env}
    return parse({"name": "a", "task": "t.py:T", "data": {"train": "/d"}, "epochs": 1, "lanes": 1, **more})


SHELL = {
    "MLFLOW_TRACKING_PASSWORD": "p",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_ROLE_ARN": "its own",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "its own",
    "HF_TOKEN": "h",
    "HF_HOME": "/here",
    "PATH": "/bin",
    "MINE": "m",
}


def test_credentials_are_given_without_being_named() -> None:
    usual = {"MLFLOW_TRACKING_PASSWORD": "p", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "h"}
    assert variables.given(job(), SHELL) == usual
    assert variables.given(job(["MINE", "HF_HOME"]), SHELL) == {**usual, "MINE": "m", "HF_HOME": "/here"}
    assert variables.given(job({"MINE": None, "A": 1, "HF_TOKEN": "other"}), SHELL) == {
        **usual,
        "MINE": "m",
        "A": "1",
        "HF_TOKEN": "other",
    }
    assert variables.given(job(["EMPTY"]), {"EMPTY": ""}) == {"EMPTY": ""}


def test_a_name_that_is_not_set_is_told_before_the_start() -> None:
    with pytest.raises(BadInput, match="env names THIS, THAT, which are not set"):
        variables.given(job(["THIS", "MINE", "THAT"]), SHELL)


def test_values_are_written_nowhere() -> None:
    found = runs.kept(job({"MY_TOKEN": "secret", "DB_PASSWORD": "secret", "MODE": "fast", "HELD": None}))
    assert found.env == {"MY_TOKEN": None, "DB_PASSWORD": None, "MODE": "fast", "HELD": None}
    assert "secret" not in to_yaml(found)
    assert runs.kept(job(["MY_TOKEN"])).env == ["MY_TOKEN"]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (["A-B"], "'A-B' is no name of a variable"),
        ({"A": True}, "the value of A is True, and a variable holds text: put it in quotes"),
        ({"A": [1]}, "the value of A is .*put it in quotes"),
        ([1], "1 is no name of a variable"),
        ("HOME", "write a list of names, or name: value"),
        (None, ""),
    ],
)
def test_odd_variables_are_refused_in_the_users_words(env: Any, words: str) -> None:
    if env is None:
        assert job().env == []
        return
    with pytest.raises(BadInput, match=words) as caught:
        job(env)
    assert str(caught.value).count("env") == 1, "no tags of pydantic's"
