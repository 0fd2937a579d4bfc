"""What of a submission runs on the cluster.

main        the Ray job's own process: starts the driver, keeps what it prints, closes what it left (leaving)
driver      leads the run; what it settles before (before), what it says (shown)
needs       packages that must be there
preflight   what is tried before a run begins, on every node that can hold a worker (reach)
examine     what `headway doctor` looks at, on every machine (machine)
telling     how all of them tell whoever submitted
"""
