"""Everything that a command may need of a plan's model and data, each made on demand and once."""
