"""Metrics that are no means over rows, for `Task.measures()`. Those of torchmetrics work beside them."""

from __future__ import annotations

from headway.metrics.classes import F1 as F1
from headway.metrics.classes import ClassAccuracy as ClassAccuracy
from headway.metrics.classes import Confusion as Confusion
from headway.metrics.likelihood import Perplexity as Perplexity
from headway.metrics.ranking import AUC as AUC

__all__ = ["AUC", "F1", "ClassAccuracy", "Confusion", "Perplexity"]
