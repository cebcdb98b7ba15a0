"""Ranks and shards: how many processes there are, and which part of each weight a process holds."""
