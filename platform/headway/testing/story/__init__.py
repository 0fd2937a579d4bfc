"""The drill on a cloud: what happens in it, what it comes to, and how it is run."""
