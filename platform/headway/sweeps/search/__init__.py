"""Searchers: which settings are to be tried next."""

from headway.sweeps.search.protocol import Known as Known
from headway.sweeps.search.protocol import Searcher as Searcher
from headway.sweeps.search.protocol import SearcherFailed as SearcherFailed
from headway.sweeps.search.registry import ahead as ahead
from headway.sweeps.search.registry import create as create
