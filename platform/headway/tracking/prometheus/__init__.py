"""Figures for Prometheus: served by the recorder's process, found through a file, and given to Ray's exporter."""
