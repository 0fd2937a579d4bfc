"""What earlier sweeps found, for one that begins where they ended (`from:`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from headway.durable import replace
from headway.errors import BadData, RunFailed
from headway.runs.place import Place
from headway.sweeps import conclusion, folder
from headway.sweeps.report import TrialReport
from headway.sweeps.search.protocol import Known

FILE = "known.json"


def kept(names: Iterable[str], place: Place, folder: Path) -> list[Known]:
    """The same as the sweep began with it, whatever became of the earlier ones since.

    Args:
        folder: of the sweep, for who leads it.

    Raises:
        BadInput: as `known`, where the sweep begins.
        BadData: what was kept is damaged.
        RunFailed: it cannot be kept.
    """
    path = folder / FILE
    try:
        if path.exists():
            return [Known(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
        found = known(names, place)
        if found:
            replace(path, json.dumps([asdict(each) for each in found]))
        return found
    except OSError as error:
        raise RunFailed(f"{path} cannot be kept", error.strerror or str(error), "Mend the folder.") from None
    except (ValueError, TypeError) as error:
        raise BadData(
            f"{path} is damaged", str(error), "Put an older copy of it back, or begin anew: --name."
        ) from None


def known(names: Iterable[str], place: Place) -> list[Known]:
    """Of every trial of these sweeps that has a result, in order.

    Args:
        names: of sweeps of the place, or their folders or URLs.

    Raises:
        BadInput: there is none of that name, or nothing is known of it.
    """
    found = []
    for name in names:
        sweep = folder.find(place, name)
        report = conclusion.load(sweep)
        found += [one for trial in report.trials if (one := _of(trial)) is not None]
    return found


def _of(trial: TrialReport) -> Known | None:
    if trial.state == "diverged":
        return Known(trial.settings, trial.step, math.nan, True)
    if trial.value is None:
        return None
    return Known(trial.settings, trial.step, trial.value, trial.state == "finished")
