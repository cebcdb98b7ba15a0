"""Compares runs over seeds, and shows what differs between two."""
