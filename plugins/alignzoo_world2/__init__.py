"""World 2: a synthetic world in which what is harmful depends on combinations of words."""
