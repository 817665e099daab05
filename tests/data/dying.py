"""A task that ends its process. In a file of its own, since every new worker imports what it is to run."""

import os


def die(*task):
    """What the kernel does to a process that takes too much memory."""
    os._exit(9)
