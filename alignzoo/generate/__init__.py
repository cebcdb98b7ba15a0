"""Responses from a model: prompts, decoding, batched generation and streams."""
