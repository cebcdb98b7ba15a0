"""One optimizer step: a small interface over micro-batches, and the controllers that use it."""
