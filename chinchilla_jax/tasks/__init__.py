"""Examples of tasks: files in, records, templates, packed batches out."""
