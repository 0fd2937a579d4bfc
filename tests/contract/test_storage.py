"""Each storage keeps the contract: a folder; S3, as moto serves it; Azure, as azurite does; and Google's, by a double
of ours that keeps to the conditions of its requests: what Google itself answers was not seen."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from headway.storage.opener import open_storage
from headway.storage.options import Options
from headway.storage.protocol import ABSENT
from headway.testing import azure, google
from headway.testing.google import Google
from headway.testing.memory_storage import Memory
from headway.testing.s3 import S3
from headway.testing.storage import Place, StorageContract


class TestFolder(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(partial(open_storage, tmp_path / "runs"))


class TestMemory(StorageContract):
    """The double that other tests use."""

    @pytest.fixture
    def place(self) -> Place:
        return Place(Memory().client, processes=False)


class TestS3(StorageContract):
    @pytest.fixture
    def place(self, s3: S3) -> Place:
        s3.make_bucket("bucket")
        return Place(partial(open_storage, "s3://bucket/some/runs", Options(endpoint=s3.endpoint, retries=2)))


@pytest.mark.skipif(azure.program() is None, reason="azurite is not installed (npm install azurite)")
class TestAzure(StorageContract):
    @pytest.fixture(scope="class")
    @staticmethod
    def service() -> Iterator[azure.Azure]:
        with azure.Azure() as service:
            yield service

    @pytest.fixture
    def place(self, service: azure.Azure, monkeypatch: pytest.MonkeyPatch) -> Place:
        for name, value in azure.KEYS.items():
            monkeypatch.setenv(name, value)
        name = f"box-{uuid.uuid4().hex[:8]}"
        service.make_container(name)
        return Place(partial(open_storage, f"az://{name}/some/runs", Options(endpoint=service.endpoint, retries=2)))


class TestGoogle(StorageContract):
    """To the HTTP request: the answers are a double's."""

    @pytest.fixture
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
        for name, value in google.KEYS.items():
            monkeypatch.setenv(name, value)
        with Google("bucket") as service:
            yield service

    @pytest.fixture
    def place(self, service: Google) -> Place:
        return Place(partial(open_storage, "gs://bucket/some/runs", Options(endpoint=service.endpoint, retries=2)))

    def test_conditions_are_generations(self, place: Place, service: Google) -> None:
        storage = place.open()
        first = storage.put("a", b"1", ABSENT)
        second = storage.put("a", b"2", storage.look("a")[1])
        storage.put("b", b"1")
        said = [each.headers.get(google.CONDITION) for each in service.seen if each.method == "PUT"]
        assert said == ["0", first.partition(" ")[2], None]
        assert int(second.partition(" ")[2]) > int(first.partition(" ")[2])
        assert all(each.headers["authorization"] == "Bearer headway" for each in service.seen)
