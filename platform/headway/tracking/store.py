"""Where MLflow keeps things: which tracking URIs can be used, and how a store is opened for the first time."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from headway.core import secrecy
from headway.errors import BadInput
from headway.tracking import schema

if TYPE_CHECKING:
    from mlflow import MlflowClient

PASSWORD = "HEADWAY_TRACKING_PASSWORD"
HIDDEN = secrecy.HIDDEN
_SECRET = re.compile(r"(?i)([?&;](?:[\w.-]*(?:password|passwd|pwd|secret|token))=)[^&;@\s]+")
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_DRIVERS = {
    "postgresql": {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"},
    "mysql": {"MySQLdb": "mysqlclient"},
    "mssql": {"pyodbc": "pyodbc"},
}
"""By database, modules of Python that speak to it, with the packages that bring them."""
_REMEDY = (
    "Set tracking.uri to http(s)://HOST:PORT, sqlite:///FILE or a database like postgresql://..., "
    "or leave it out for a sqlite file in the runs folder."
)


def default_uri(runs: str | Path) -> str:
    """The sqlite store of a runs folder."""
    return f"sqlite:///{Path(runs).resolve() / DATABASE}"


def check_uri(uri: str) -> str:
    """The URI as any process may use it: a relative sqlite file is made absolute from the current folder.

    A server that does not answer is no error here: its records wait for it.

    Raises:
        BadInput: the URI can never work, whatever is running.
    """
    fact = f"tracking.uri={redact(uri)!r} cannot be used"
    scheme, _, rest = uri.strip().partition(":")
    dialect, _, driver = scheme.lower().partition("+")
    if dialect in ("http", "https"):
        _check_address(uri.strip(), fact)
    elif dialect == "sqlite":
        return f"sqlite:///{_sqlite_file(rest, fact)}"
    elif dialect in _DRIVERS:
        return _with_driver(uri.strip(), dialect, driver, fact)
    elif dialect == "file" or "://" not in uri:
        reason = "MLflow keeps no new records in plain folders" if uri.strip() else "it is empty"
        raise BadInput(fact, reason, _REMEDY)
    elif dialect != "databricks":
        raise BadInput(fact, f"MLflow knows no scheme {scheme!r}", _REMEDY)
    return uri.strip()


def redact(uri: str) -> str:
    """The URI without its passwords, `***` in their places."""
    uri = re.sub(r"(://[^/@\s:]*):[^@\s]*@(?:[^/?@\s]*@)*", rf"\1:{HIDDEN}@", uri)  # the last @ counts
    return _SECRET.sub(rf"\1{HIDDEN}", uri)


def with_password(uri: str) -> str:
    """A URI as it was kept, with its password again, from the variable HEADWAY_TRACKING_PASSWORD.

    Raises:
        BadInput: the variable is not set, or there are several passwords.
    """
    if HIDDEN not in uri:
        return uri
    password = os.environ.get(PASSWORD)
    if not password or uri.count(HIDDEN) > 1:
        raise BadInput(
            f"tracking.uri={uri!r} lacks its password",
            "passwords are not kept with a run",
            f"Set {PASSWORD}, or give the whole URI again: --set tracking.uri=...",
        )
    return uri.replace(HIDDEN, quote(password, safe=""))


def _with_driver(uri: str, dialect: str, driver: str, fact: str) -> str:
    """The URI, with the module that speaks to the database where SQLAlchemy would take another, which is not there."""
    named = {driver: _DRIVERS[dialect].get(driver, driver)} if driver else _DRIVERS[dialect]
    there = [module for module in named if find_spec(module) is not None]
    if not there:
        module, package = next(iter(named.items()))
        raise BadInput(fact, f"it needs the Python package {module}", f"Install it with `pip install {package}`.")
    if driver or dialect != "postgresql" or _chosen() in there:
        return uri
    return f"{dialect}+{there[0]}:{uri.partition(':')[2]}"


def _chosen() -> str:
    """The module that SQLAlchemy takes for PostgreSQL where none is named: since 2.1 another."""
    numbers = re.findall(r"\d+", version("sqlalchemy"))[:2]
    return "psycopg" if [int(number) for number in numbers] >= [2, 1] else "psycopg2"


def _check_address(uri: str, fact: str) -> None:
    try:
        address = urlsplit(uri)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise BadInput(fact, str(error), "Write it as http://HOST:PORT.") from None
    if not host:
        raise BadInput(fact, "it names no host", "Write it as http://HOST:PORT.")
    if address.password:
        reason = "a password in it would be kept with the run's records"
        raise BadInput(
            fact, reason, "Take it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead."
        )


def _sqlite_file(rest: str, fact: str) -> Path:
    path = rest.removeprefix("///")
    if not rest.startswith("///") or not path or ":memory:" in path or "?" in path:
        raise BadInput(
            fact, "it names no file", "Write it as sqlite:///FILE, with three slashes before the file's path."
        )
    file = Path(path).resolve()
    standing = next(folder for folder in file.parents if folder.exists())
    if file.is_dir() or not standing.is_dir() or not os.access(file if file.exists() else standing, os.W_OK):
        raise BadInput(fact, f"{file} cannot be written", "Choose a file in a folder that can.")
    return file


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock file. The lock goes with the process, however that ends.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def connect(uri: str, folder: Path) -> tuple[MlflowClient, str | None]:
    """A client of the store, and the folder (a URI) for the artifacts of new experiments; None where a server decides.

    Args:
        uri: from `check_uri` or `default_uri`.
        folder: where artifacts go when the store is a database on another machine.

    Raises:
        BadInput: it has the tables of another MLflow.
    """
    from mlflow import MlflowClient

    if uri.startswith(("http", "databricks")):
        return MlflowClient(tracking_uri=uri), None

    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else folder / DATABASE
    artifacts = (file.parent / ARTIFACTS).resolve().as_uri()
    # Two first runs of a runs folder would otherwise create and migrate the same tables at once, and one would fail.
    with locked(file.with_name(file.name + ".lock")):
        schema.check(schema.of_file(file) if uri.startswith("sqlite:") else schema.of_database(uri), redact(uri))
        import_module("mlflow.store.tracking.sqlalchemy_store").SqlAlchemyStore(uri, artifacts)
    return MlflowClient(tracking_uri=uri), artifacts


@contextmanager
def by_default(uri: str) -> Iterator[None]:
    """Let this store be the process' default meanwhile: MLflow's registry over a database (3.17) looks for a version's
    logged model in whatever store that is, and makes an mlflow.db in the current folder where none is set."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: none is set
