"""What the command line and the server share."""
