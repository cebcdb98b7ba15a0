"""Everything a command may need from a plan's model and data, each created on demand and once."""
