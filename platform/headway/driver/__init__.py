"""The process that leads a run: how it comes to a Ray, what it begins there, and how it ends."""
