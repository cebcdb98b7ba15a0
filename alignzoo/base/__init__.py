"""Small tools that know nothing of alignment: files, locks, signals, digests, YAML, words for people."""
