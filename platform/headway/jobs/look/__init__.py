"""What is known of runs, wherever they are, and what is asked of them."""
