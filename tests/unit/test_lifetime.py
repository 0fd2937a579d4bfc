"""When a cluster ends by itself."""

from __future__ import annotations

from headway.core.lifetime import Lifetime, said


def test_without_limits_it_stays() -> None:
    assert Lifetime().over(0.0, 0.0, 1e9) == ""
    assert Lifetime().ends_at(5.0) is None


def test_idle_counts_from_the_last_work() -> None:
    limits = Lifetime(idle_s=60.0)
    assert limits.over(0.0, 0.0, 59.0) == ""
    assert limits.over(0.0, 0.0, 60.0) == "no job has run on it for 1 minutes"
    assert limits.over(0.0, 50.0, 100.0) == ""


def test_the_whole_time_counts_whatever_runs() -> None:
    limits = Lifetime(idle_s=60.0, whole_s=7200.0)
    assert limits.over(100.0, 7299.0, 7299.0) == ""
    assert limits.over(100.0, 7300.0, 7300.0) == "it has been up for 2 hours, as long as its file allows"
    assert limits.ends_at(100.0) == 7300.0


def test_a_clock_that_was_put_back_ends_nothing() -> None:
    assert Lifetime(60.0, 60.0).over(1000.0, 1000.0, 10.0) == ""


def test_times_in_words() -> None:
    assert [said(each) for each in (3, 90, 5400)] == ["3 seconds", "1.5 minutes", "1.5 hours"]
