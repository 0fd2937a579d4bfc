"""Headway's reader and the peers it is measured against: one readable module each, run in processes of their own.

A module has

    VERSIONS     what its own environment holds, or () if it lives in ours
    SETTINGS     what a reader of the results should know
    make(kind, folder)                  writes the peer's own format from the source arrays, if it has one
    epochs(kind, folder, variant)       gives a function: epoch number -> iterator of batches (dicts of tensors)

and imports at its top only what every environment has: NumPy and torch.
"""
