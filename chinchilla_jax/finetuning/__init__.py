"""What of a model trains, and what stands still: methods, targets, adapters."""
