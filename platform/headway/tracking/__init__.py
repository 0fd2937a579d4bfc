"""Records: what a run did, in a spool of its own at once, and from there in MLflow when MLflow can be reached."""
