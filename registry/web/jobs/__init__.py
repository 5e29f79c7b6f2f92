"""Long work, in a process of its own, that survives a restart."""
