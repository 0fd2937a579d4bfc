"""What of the user's code and files travels to the workers, and how."""
