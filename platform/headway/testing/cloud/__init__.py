"""A cloud to test on: it sells machines, takes them away, refuses, and lies, as told. Its machines are namespaces."""
