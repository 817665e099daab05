"""The train step compiled ahead of time, and its program read: memory, work, communication, what to change."""
