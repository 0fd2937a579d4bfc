"""Where a run lives: named objects in one place, a folder or an object store, with writes that have a condition."""
