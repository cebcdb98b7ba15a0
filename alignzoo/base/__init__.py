"""General tools that know nothing about alignment: files, locks, signals, digests, YAML, messages."""
