"""What one process knows of the tables, read again where they changed."""
