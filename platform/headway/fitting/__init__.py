"""What a task learns from its training set before it is trained: `task.fit(dataset)`.

    dataset   the training set as `fit` sees it: a few questions, answered with the same bits wherever that is done
    pieces    what it stands on: the rows, cut where they are cut on the disk
    spread    the questions as Ray Data jobs, where the set is too large for one process
    work      a task's `fit`, called and checked

What comes of it is kept beside the run's copy of the code, see `headway.carried.fitted`.
"""

from headway.fitting.dataset import Dataset as Dataset
