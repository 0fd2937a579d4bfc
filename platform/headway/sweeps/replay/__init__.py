"""Sweeps over recorded learning curves: the same loop, searchers and schedulers, on a virtual clock."""
