"""The user's config file: what it may say, what stands above it, and what is said of one that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.config import Config, load, path_of
from headway.errors import BadInput
from headway.storage.options import Options


def written(folder: Path, text: str) -> dict[str, str]:
    """An environment that names a config file of this text."""
    path = folder / "config.yaml"
    path.write_text(text)
    return {"HEADWAY_CONFIG": str(path)}


def test_where_it_is(tmp_path: Path) -> None:
    assert path_of({}) == Path("~/.config/headway/config.yaml").expanduser()
    assert path_of({"XDG_CONFIG_HOME": "/x"}) == Path("/x/headway/config.yaml")
    assert path_of({"XDG_CONFIG_HOME": "/x", "HEADWAY_CONFIG": "~/mine"}) == Path("~/mine").expanduser()
    (tmp_path / "headway").mkdir()
    (tmp_path / "headway" / "config.yaml").write_text("runs: s3://bucket/runs")
    assert load({"XDG_CONFIG_HOME": str(tmp_path)}).runs == "s3://bucket/runs"


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert load({"XDG_CONFIG_HOME": str(tmp_path)}) == Config(runs=None, store=Options())


@pytest.mark.parametrize("text", ["", "# nothing\n", "store: {}\n"])
def test_an_empty_file_says_nothing(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Config()


def test_all_of_it(tmp_path: Path) -> None:
    text = "runs: ~/runs\nstore:\n  region: eu-central-1\n  sse: aws:kms\n  kms_key: key\n  timeout_s: 5\n"
    config = load(written(tmp_path, text))
    assert config.runs == str(Path.home() / "runs")
    wanted = Options(region="eu-central-1", sse="aws:kms", kms_key="key", timeout_s=5.0)
    assert config.store == wanted


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    environ = written(tmp_path, "runs: a\nstore: {region: one, retries: 3, anonymous: true}\n")
    environ |= {"HEADWAY_RUNS": "s3://b/c", "HEADWAY_STORE_REGION": "two", "HEADWAY_STORE_TIMEOUT_S": "1.5"}
    environ |= {"HEADWAY_STORE_ANONYMOUS": "false", "HEADWAY_STORE_ENDPOINT": ""}
    config = load(environ)
    assert config.runs == "s3://b/c"
    assert config.store == Options(region="two", retries=3, anonymous=False, timeout_s=1.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs: a\nstoer: {}\n", r"line 2: unknown key 'stoer'. Did you mean 'store'\?"),
        ("runs: a\nstore:\n  # where\n  regoin: x\n", r"line 4: unknown key 'store.regoin'. Did you mean 'region'\?"),
        ("store:\n  retries: many\n", r"line 2: store.retries='many'"),
        ("store:\n  retries: 1000000000000\n", r"line 2: store.retries=1000000000000: .*less than"),
        ("store:\n  timeout_s: 1.0e+300\n", r"line 2: store.timeout_s=1e\+300: .*less than"),
        ("store:\n  timeout_s: 1.0e-9\n", r"line 2: store.timeout_s=1e-09: .*greater than"),
        ("store:\n  retries: true\n", r"line 2: store.retries=True: is true, which is no value for it"),
        ("store:\n  sse: DES\n", r"line 2: store.sse='DES'"),
        ("store:\n  kms_key: k\n", r"line 1: .*kms_key and bucket_key are for sse: aws:kms"),
        ("store:\n  endpoint: host:9000\n", r"line 2: store.endpoint='host:9000'.*is no URL"),
        ("store:\n  endpoint: http://me:secret@host\n", r"line 2: .*keys belong into the environment"),
        ("runs: [a]\n", r"line 1: runs"),
        ("runs: ''\n", r"line 1: runs.*is empty"),
        ("runs: a\nruns: b\n", r"line 2: key 'runs' is given twice"),
        ("runs: a\n  store: {\n", r"line 2: mapping values are not allowed here"),
        ("just text\n", r"line 1: it should hold keys and values"),
        ("store: 5\n", r"line 1: store"),
    ],
)
def test_a_broken_file_is_named_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    environ = written(tmp_path, text)
    with pytest.raises(BadInput, match=said) as caught:
        load(environ)
    assert str(caught.value).startswith(environ["HEADWAY_CONFIG"])


def test_a_key_in_the_endpoint_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        load(written(tmp_path, "store:\n  endpoint: http://me:secret@host\n"))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="HEADWAY_CONFIG names it"):
        load({"HEADWAY_CONFIG": str(tmp_path / "no.yaml")})
    with pytest.raises(BadInput, match="cannot be read"):
        load({"HEADWAY_CONFIG": str(tmp_path)})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        load({"HEADWAY_CONFIG": str(tmp_path / "binary")})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADWAY_STORE_REGOIN", "x", r"HEADWAY_STORE_REGOIN is set: nothing is called so. .*HEADWAY_STORE_REGION"),
        ("HEADWAY_STORE_RETRIES", "many", r"the variable HEADWAY_STORE_RETRIES: retries='many'"),
        ("HEADWAY_STORE_KMS_KEY", "key", r"kms_key and bucket_key are for sse"),
    ],
)
def test_a_broken_variable_is_named(tmp_path: Path, name: str, value: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load({"XDG_CONFIG_HOME": str(tmp_path), name: value})


def test_words_stay_words(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HEADWAY_STORE_SSE": "aws:kms", "HEADWAY_STORE_KMS_KEY": "alias/a"}
    assert load(environ).store == Options(sse="aws:kms", kms_key="alias/a")
