"""A live view of running runs in the terminal."""
