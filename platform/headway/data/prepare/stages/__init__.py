"""What a prepare does on the cluster and writes here, each stage resumable by the journal."""
