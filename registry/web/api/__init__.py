"""The methods of TaskRegistry as JSON."""
