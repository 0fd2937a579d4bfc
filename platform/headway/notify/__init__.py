"""Word to people: what becomes of a run, posted to addresses of theirs (webhooks), and never in the way of it."""
