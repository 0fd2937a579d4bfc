"""Whether a database has the tables of the MLflow that is installed. MLflow itself moves an older one to its own tables
without asking, and tells of a newer one that it is out of date."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from headway.core.secrecy import HIDDEN
from headway.errors import BadInput

_QUERY = "SELECT version_num FROM alembic_version"
_REVISION = re.compile(r"^(revision|down_revision) = ['\"](\w+)['\"]", re.MULTILINE)


def check(found: str | None, shown: str) -> None:
    """Raises BadInput where a database is of another MLflow's tables.

    Args:
        found: its revision; None where it has none, which is no reason.
        shown: the store for people, without a password.
    """
    known, newest = _revisions()
    if found is None or newest is None or found == newest:
        return
    installed = _installed()
    if found in known:
        raise BadInput(
            f"{shown} has the tables of an earlier MLflow",
            f"they are of revision {found}, those of MLflow {installed}, which is installed, of {newest}",
            f"Keep a copy of the database, then run `mlflow db upgrade {_address(shown)}`; or name another store "
            "(tracking.uri). Records wait in the runs' folders meanwhile.",
        )
    raise BadInput(
        f"{shown} has the tables of another MLflow, a later one most likely",
        f"MLflow {installed}, which is installed, does not know their revision {found}",
        "Use the MLflow that made them here too, or name another store (tracking.uri). Records wait in the runs' "
        "folders meanwhile.",
    )


def of_file(file: Path) -> str | None:
    """The revision of a sqlite file; None where it has no tables of MLflow's, or is busy."""
    if not file.is_file() or not file.stat().st_size:
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=1.0)) as database:
            row = database.execute(_QUERY).fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def of_database(uri: str) -> str | None:
    """The revision of a database that is served; None where it has no tables of MLflow's. Raises whatever its client
    does where it is away, or does not let one in."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None
            row = connection.execute(sqlalchemy.text(_QUERY)).fetchone()
    finally:
        engine.dispose()
    return str(row[0]) if row else None


@cache
def _revisions() -> tuple[frozenset[str], str | None]:
    """Those that the installed MLflow knows, and the newest; read from its files, for to import it takes seconds."""
    spec = find_spec("mlflow")
    known: set[str] = set()
    below: set[str] = set()
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in Path(place).glob("store/db_migrations/versions/*.py"):
            said = dict(_REVISION.findall(path.read_text(encoding="utf-8")))
            known.update(said.get("revision", "").split())
            below.update(said.get("down_revision", "").split())
    newest = known - below
    return frozenset(known), newest.pop() if len(newest) == 1 else None


def _installed() -> str:
    try:
        return version("mlflow")
    except PackageNotFoundError:
        return "?"


def _address(shown: str) -> str:
    address = shown.partition("=")[2].strip("'") if shown.startswith("tracking.uri=") else shown
    return "ITS-URI" if HIDDEN in address else address
