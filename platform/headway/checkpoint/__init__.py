"""Durable state: asynchronous, atomic, verified."""
