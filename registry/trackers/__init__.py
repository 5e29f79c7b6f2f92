"""Results that trackers of experiments keep, read from their files."""
