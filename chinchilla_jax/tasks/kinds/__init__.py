"""The kinds of task: a file each with what is its own, and `table.KINDS` with a row for each."""
