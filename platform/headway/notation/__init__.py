"""What people write in YAML and after `--set`: read, overridden, checked and shown in their words."""
