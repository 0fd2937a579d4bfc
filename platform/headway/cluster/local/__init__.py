"""Clusters on this machine: each node a process, or a machine of its own where namespaces can be made."""
