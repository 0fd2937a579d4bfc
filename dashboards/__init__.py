"""Dashboards: one description of panels, and what is made of it for Grafana and Perses."""
