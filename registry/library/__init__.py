"""The parts of TaskRegistry."""
