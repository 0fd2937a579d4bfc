"""The agent of a node: it hears from the machine's cloud that the machine will go, and drains the node before.

    python -m headway.cluster.agent watch --notices aws

It wants no more of a machine than Ray does: Python, `ray[default]`, and this package as files.
"""
