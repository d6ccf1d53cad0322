"""Messages and records as they are written by others, turned into tasks: pure, one file for each family."""
