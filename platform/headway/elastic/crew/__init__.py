"""The crew of a sweep: one warm pool of processes, on which its runs come and go."""
