"""What people's files hold, a module for each kind."""
