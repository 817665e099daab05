"""What is done to documents, and which are left out: functions over batches of documents, in numpy."""
