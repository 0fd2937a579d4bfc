"""The drill on a cloud, in small: a run begins at its least, grows, is told of an end, loses a machine while none is
to be had, grows again when some are, and ends with the weights of the quiet run; and nothing is left."""

from __future__ import annotations

import pytest
from tests.ray.conftest import Project
from tests.ray.conftest import project as project

from headway.testing.faults import Fault
from headway.testing.links import cut_possible
from headway.testing.story.acts import Act
from headway.testing.story.drill import drill

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(cut_possible() is not None, reason=f"no machines can be made here: {cut_possible()}"),
]

ACTS = (
    Act(Fault("reclaim", "node", 5, (0,), 5.0), whole=True),
    Act(Fault("empty", "", 10, (), 12.0), after=True, whole=True),
    Act(Fault("kill", "node", 12, (1,)), after=True),
)


@pytest.mark.long
def test_machines_come_and_go_and_nothing_shows(project: Project) -> None:
    found = drill(project.job, faults=ACTS, nodes=2, steps=200, tell=print)
    print(found.shown())
    assert (found.state, found.message) == ("finished", "")
    assert [fault["time"] is not None for fault in found.faults] == [True, True, True]
    assert (found.samples_missed, found.same_samples, found.same_weights) == (0, True, True)
    assert found.steps_repeated == 0
    assert [size["workers"] for size in found.sizes][:2] == [1, 2], "begins at its least, and grows"
    assert found.sizes[-1]["workers"] == 2, "what was lost has been replaced"
    (notice,) = found.notices
    assert notice["in_time"]
    workers = [machine for machine in found.machines if not machine["head"]]
    whys = [machine["why"] for machine in workers]
    assert "killed" in whys
    assert set(whys) <= {"reclaimed", "killed", "terminated"}, "all are gone, if not by themselves then let go"
    assert any("none is left" in line["answer"] for line in found.autoscaler)
    assert found.idle_s is not None
    assert found.leftovers == []
    assert found.dollars == pytest.approx(sum(machine["dollars"] for machine in found.machines), abs=1e-4)
    assert found.good
