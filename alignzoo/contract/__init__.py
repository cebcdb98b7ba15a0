"""The contract between methods and the core: batches, interfaces, cards. Independent of the trainer."""
