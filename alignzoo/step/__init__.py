"""One optimizer step: micro-batches behind a few verbs, and the controllers that use them."""
