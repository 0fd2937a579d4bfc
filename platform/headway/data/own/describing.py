"""The job's own datasets, made and looked at in a process of their own: what they come to, without their code in ours.

That process is told on its standard input what to look at, and leaves its answer in a file. What the code prints goes
to standard error.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.data.own import naming
from headway.data.own.manifest import Described
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.carried import code
    from headway.job import Job

ANSWER = "answer"


def describe(job: Job, source: code.Source) -> dict[str, Described]:
    """What is known of the job's own datasets, by use; {} where it has none.

    Args:
        job: to be followed.
        source: of the task.

    Raises:
        BadInput: one cannot be made, is empty, does not pickle; carries the user's traceback where their code raised.
    """
    names = naming.named(job)
    if not names:
        return {}
    with tempfile.TemporaryDirectory(prefix="headway-data-") as folder:
        process = subprocess.run(
            [sys.executable, "-P", "-m", "headway.data.own.describing", folder],
            input=pickle.dumps((sys.path, job, source)),
            env=_environment(),
            check=False,
        )
        try:
            answer = pickle.loads((Path(folder) / ANSWER).read_bytes())
        except OSError:
            raise _ended(names, process.returncode) from None
    if isinstance(answer, BadInput):
        raise answer
    found: dict[str, Described] = answer
    return {use: replace(each, notes=(*each.notes, *_notes(use, each))) for use, each in found.items()}


def _notes(use: str, found: Described) -> list[str]:
    if found.stream:
        return [
            f"data.{use}={found.name} is a stream: a run that is resumed, and a worker that joins, goes through the "
            "rows before its place, and has the same ones only if the stream gives the same each time; no epochs, no "
            "shuffle, no word on whether every row came. A Dataset with a length, or a folder of Parquet, has all that"
        ]
    return [
        f"data.{use}={found.name} is read row by row by its own code. `headway data prepare` would make a folder of it "
        "that is read in large pieces, ahead, with every digest checked, from buckets too, sampled by its columns"
    ]


def _environment() -> dict[str, str]:
    ours = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])}


def _ended(names: dict[str, str], status: int) -> BadInput:
    name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    told = ", ".join(f"data.{use}={text.rpartition('/')[2]}" for use, text in names.items())
    return BadInput(
        f"{told}: its code ended its process with {name}",
        "it would end the workers too",
        "Look at what was called there; its last words are above.",
    )


def main() -> None:
    """Look at what standard input names, and leave the answer in the folder of the first argument."""
    folder = Path(sys.argv[1])
    os.dup2(2, 1)
    path, job, source = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    import torch  # noqa: F401  what the code draws as it is imported is then seeded, as in a worker

    answer: Any
    try:
        from headway.data.own.opening import described, opened

        answer = described(opened(job, source), job)
    except BadInput as error:
        answer = error
    part = folder / f"{ANSWER}.part"
    part.write_bytes(pickle.dumps(answer))
    part.replace(folder / ANSWER)
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(0)  # threads and exit handlers of the user's are not waited for


if __name__ == "__main__":
    main()
