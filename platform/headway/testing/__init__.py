"""Contract suites for whoever writes a strategy of their own, and scripted faults for whoever runs a job."""
