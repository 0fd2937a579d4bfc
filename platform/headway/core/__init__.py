"""Decisions, pure: nothing here imports ray or torch, reads a clock or opens a file."""
