"""What sweeps are held against: the same trials by other means."""
