"""Fine-tuning from a base run and examples to a tuned run: settings, validation, the best step, the report."""
