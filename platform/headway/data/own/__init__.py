"""Datasets of the user's own: a map-style `Dataset`, arrays, a frame, a stream; named in the job as a task is."""
