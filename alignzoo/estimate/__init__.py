"""What a run would take, on paper: memory, work and time from a model's shapes alone, without its weights."""
