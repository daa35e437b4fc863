"""What people start: the command line; nothing imports it."""
