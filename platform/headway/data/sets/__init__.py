"""Public sets: how each is brought, checked and written."""
