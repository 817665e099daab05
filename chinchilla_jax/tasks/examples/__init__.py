"""Built-in examples for tasks, made on first use from what packages of PyPI and Debian carry (`builtin:NAME`)."""
