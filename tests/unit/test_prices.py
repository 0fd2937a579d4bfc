"""Lists of prices: those of the package, one's own, and what is said of a machine that is on none."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.cluster import file
from headway.cluster.prices.book import SHIPPED, Book, Price, load, parse, region, shipped
from headway.errors import BadInput
from headway.job import load as load_job


@pytest.mark.parametrize("kind", SHIPPED)
def test_the_lists_of_the_package_can_be_read(kind: str) -> None:
    found = shipped(kind)
    assert all(each.per_hour > 0 for each in found)
    assert bool(found) == (kind != "this-machine")


@pytest.mark.parametrize(
    ("zone", "of"),
    [
        ("eu-central-1a", "eu-central-1"),
        ("us-central1-b", "us-central1"),
        ("us-east-1", "us-east-1"),
        ("eastus", "eastus"),
        ("", ""),
    ],
)
def test_a_zone_is_in_its_region(zone: str, of: str) -> None:
    assert region(zone) == of


def test_what_is_nearest_counts_and_the_users_list_goes_first() -> None:
    ours = [Price("m", "x-1", 1.0), Price("m", "*", 2.0), Price("c", "*", 5.0, 0.5), Price("storage", "*", 0.02)]
    book = Book([Price("m", "x-1a", 3.0), Price("*", "z-1", 9.0)], ours)
    assert book.per_hour("m", "x-1a") == 3.0
    assert book.per_hour("m", "x-1b") == 1.0
    assert book.per_hour("m", "y-1") == 2.0
    assert book.per_hour("c", "z-1c") == 9.0
    assert (book.per_hour("c", "", True), book.per_hour("m", "", True)) == (0.5, None)
    assert (book.per_hour("storage", "z-1"), Book([Price("*", "*", 1.0)]).per_hour("storage")) == (0.02, None)


def test_a_missing_price_is_told_with_its_type_and_zone_and_what_to_do() -> None:
    with pytest.raises(BadInput) as refused:
        Book(shipped("aws")).needed("m7i.larg", "eu-central-1a", spot=True)
    said = str(refused.value)
    assert "there is no price of m7i.larg in eu-central-1a, spot" in said
    assert "m7i.large" in said, "what is nearest"
    assert "`m7i.larg,eu-central-1a,DOLLARS,DOLLARS`" in said
    assert "provider.headway.prices" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no prices"),
        ("type,zone,dollars\n", "line 1: column 'dollars'"),
        ("# a\ntype,per_hour\nm,\n", "line 3: per_hour is missing"),
        ("type,per_hour\nm,abc\n", "line 2: per_hour='abc'"),
        ("type,per_hour\nm,-1\n", "it is no number of dollars"),
        ("type,per_hour\n,1\n", "line 2: type is missing"),
        ("type,per_hour\nm,1\nm,2\n", "line 3: m in * has a price already"),
        ("type,per_hour\nm,1,7\n", "it has 3 values for 2 columns"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_by_its_line(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("*", r"\*")):
        parse(text, "mine.csv")


def test_a_list_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- {type: m, per_hour: 0.5}\n- {type: c, zone: x-1, per_hour: 1, spot_per_hour: 0.25}\n")
    assert load(path) == (Price("m", "*", 0.5), Price("c", "x-1", 1.0, 0.25))
    path.write_text("m: 0.5\n")
    with pytest.raises(BadInput, match="is no list of prices"):
        load(path)
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "none.csv")


CLUSTER = """\
cluster_name: t
provider: {type: this-machine, headway: {prices: PRICES}}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {resources: {CPU: 1}, max_workers: 1}
"""


def test_a_clusters_file_names_a_list_that_travels_with_it(tmp_path: Path) -> None:
    prices = tmp_path / "mine.csv"
    prices.write_text("type,per_hour\nworker,0.5\n")
    found = file.parse(Path("c.yaml"), CLUSTER.replace("PRICES", str(prices)))
    row = {"type": "worker", "zone": "*", "per_hour": 0.5, "spot_per_hour": None}
    assert found.for_ray("1")["provider"]["headway"]["prices"] == [row]
    inline = file.parse(Path("c.yaml"), CLUSTER.replace("PRICES", "[{type: worker, per_hour: 0.5}]"))
    assert inline.for_ray("1")["provider"]["headway"]["prices"] == [row]
    with pytest.raises(BadInput, match="write the whole path"):
        file.parse(Path("c.yaml"), CLUSTER.replace("PRICES", "mine.csv"))
    prices.unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        found.for_ray("1")


def test_a_job_names_a_list_and_holds_its_rows(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("type,per_hour\n*,0.5\n")
    (tmp_path / "job.yaml").write_text(
        "name: j\ntask: task.py:Task\ndata: {train: data}\nlanes: 2\nlane_batch: 4\nsteps: 3\nprices: mine.csv\n"
    )
    job = load_job(tmp_path / "job.yaml")
    assert job.prices is not None
    assert [(each.type, each.per_hour) for each in job.prices] == [("*", 0.5)]
    with pytest.raises(BadInput, match="cannot be read"):
        load_job(tmp_path / "job.yaml", ["prices=none.csv"])
