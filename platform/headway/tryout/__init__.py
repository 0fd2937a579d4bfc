"""One batch, for real, before a worker starts: the task is built, takes a step, is judged, saved and loaded again.

It runs in a child process (`python -m headway.tryout`) beside Ray's own start, from the copy of the code that the
workers get, so that nothing of it leaks into the run and whatever the task does to its process, it does to that one.

    trial     the parent's side: starts the child, waits for what it finds, and says it in the user's words
    small     the child's side: a run in small, on the very engine that workers run
    rows      the few rows that it is tried on
    words     what is refused, and how that is said
"""

from headway.tryout.trial import Found as Found
from headway.tryout.trial import Trial as Trial
from headway.tryout.trial import begun as begun
from headway.tryout.trial import check as check
