"""A run in the calling process, without Ray: one worker, whose training is this process's own thread.

    leading       from a checked plan to a report, as `headway.driver.leading` does on a cluster
    training      the worker, which is the calling thread
    member        its membership, and its way to a recorder that is an object of this process
    follower      a thread that shows how far the run is, and keeps its account
    first_step    what is said of a task that fails before a step is done
    surroundings  what the run finds in this process and changes, put back as it was

Job, records, checkpoints and bits are those of a run on a cluster, so that either goes on with what the other began.
"""

ADDRESS = "in-process"
"""As `headway.train(..., address=)` takes it."""
