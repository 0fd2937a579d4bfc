"""What people see of a sweep: while it is led, and afterwards."""
