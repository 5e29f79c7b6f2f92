"""The content that every registry starts with, and what reads it."""
