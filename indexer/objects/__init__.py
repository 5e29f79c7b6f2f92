"""Data that a Python program holds."""
