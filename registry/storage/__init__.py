"""Records on disk, safe against kills and concurrent writers."""
