"""Runs without machines: the decisions of `headway.core`, driven by a virtual clock or by chance."""
