"""What went wrong, and whose fault it is: the user's, a machine's, or Headway's own."""
