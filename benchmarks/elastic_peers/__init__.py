"""Headway and the peers it is measured against when workers die, stop and arrive: one readable file each."""
