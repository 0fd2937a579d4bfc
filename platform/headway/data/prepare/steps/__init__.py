"""What is done to rows on their way: transform, filter, drop duplicates, split, mask, pack."""
