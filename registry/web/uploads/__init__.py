"""Uploads, unpacked and measured before they are believed."""
