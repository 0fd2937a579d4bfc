"""A run's records as tables for other tools."""

from headway.records.export import Exported as Exported
from headway.records.export import export as export
