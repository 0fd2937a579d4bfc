"""Dashboards, rules and alerts that come with Headway, and a Prometheus that scrapes what is there.

The files are in `dashboards/` of the repository, made by `python -m dashboards.generate`; a wheel has them beside this.
"""
