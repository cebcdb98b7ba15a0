"""Golden values of losses, one module per family."""
