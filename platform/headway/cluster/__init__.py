"""Clusters: the files that describe them, how they come, grow, shrink and go, and what watches each of their nodes."""
