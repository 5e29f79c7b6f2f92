"""Commands: each parses, calls one method of TaskRegistry, and prints."""
