"""How files in folders and archives become classes and splits: rules on names and counts, nothing is opened."""
