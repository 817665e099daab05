"""What a task is scored by: definitions of the field, by its own libraries where there are such."""
