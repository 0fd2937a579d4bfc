"""Sweeps: many runs of one job under other settings, each of them elastic, on one warm set of workers."""
