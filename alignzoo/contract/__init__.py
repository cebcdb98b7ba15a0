"""What methods and the core agree on: batches, interfaces, cards. It knows no trainer."""
