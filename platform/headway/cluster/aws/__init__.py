"""Clusters on EC2: spot machines by the cheapest (type, zone) that is to be had, and nothing left behind."""
