"""What drivers and workers print, kept with the run: written in segments, read by position, in a folder or a store.

Nothing here knows what a run is, and only Python's own library is imported until a store is opened: a tiny process
beside each worker lives on it.
"""
