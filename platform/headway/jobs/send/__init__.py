"""What is sent to a cluster, and what comes of it until a run has begun there."""
