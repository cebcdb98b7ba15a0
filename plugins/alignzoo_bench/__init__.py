"""The standing comparison of methods in an embedded world."""
