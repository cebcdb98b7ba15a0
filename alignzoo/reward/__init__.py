"""Rewards: what they are given, how their scores are kept, and the soft labels that scores give."""
