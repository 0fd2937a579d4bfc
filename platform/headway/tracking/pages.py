"""Addresses of MLflow's pages. Without the word in them MLflow 3.17 opens in its mode for agents, whatever the
experiment's tag says, and shows no curves."""

from __future__ import annotations

from urllib.parse import quote

MODE = "workflowType=machine_learning"


def home(address: str) -> str:
    """The list of experiments of a server at this address."""
    return f"{address.rstrip('/')}/#/experiments?{MODE}"


def of_run(uri: str, experiment: str | None, run: str | None) -> str | None:
    """The page of a run; None where the store has no pages of its own (`headway ui` shows those of a file).

    Args:
        uri: of the store, without a password.
        experiment: MLflow's id of it.
        run: MLflow's id.
    """
    if not uri.startswith(("http://", "https://")) or not run or not experiment:
        return None
    return f"{uri.rstrip('/')}/#/experiments/{quote(experiment)}/runs/{quote(run)}?{MODE}"


def of_version(uri: str, name: str, version: str) -> str | None:
    """The page of a registered model's version; None as of `of_run`."""
    if not uri.startswith(("http://", "https://")):
        return None
    return f"{uri.rstrip('/')}/#/models/{quote(name)}/versions/{quote(version)}?{MODE}"
