"""The queue of a cluster: what takes workers of its jobs, not jobs.

place       what lies in the store: the book, led by a lease; wishes; what travels
keeper      decides and has it carried out, turn by turn; one at a time, by the lease
cluster     what a keeper asks of a cluster, and the real one: Ray's job API, runs' requests, Ray's nodes
actor       the keeper as a detached actor on the head, and the Ray job that begins it
asking      what people ask: submit, ls, set, move, rm, rules, log
"""
