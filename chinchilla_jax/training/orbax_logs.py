"""A failed save is one line of ours; without this, Orbax prints several pages of traces before it."""

import functools
import logging
import sys
from pathlib import Path


@functools.cache  # once a process
def quiet_orbax() -> None:
    """Drop Orbax's log of failures that it also raises, of files that we do not need, and asyncio's of late writes."""
    logging.getLogger("absl").addFilter(_keep)
    logging.getLogger("asyncio").addFilter(_keep_late)
    before = sys.unraisablehook

    def hook(failure) -> None:
        # TensorStore reports to an event loop that Orbax has closed at the first error.
        if not (isinstance(failure.exc_value, RuntimeError) and str(failure.exc_value) == "Event loop is closed"):
            before(failure)

    sys.unraisablehook = hook


def _keep(record: logging.LogRecord) -> bool:
    if "orbax" not in Path(record.pathname).parts:
        return True
    # Where nothing is renamed, Orbax writes a file of its own into the whole and looks for one in each item.
    alone = record.levelno == logging.WARNING and str(record.msg).startswith("Metadata file does not exist")
    return record.levelno != logging.ERROR and not alone


def _keep_late(record: logging.LogRecord) -> bool:
    # Writes that fail after the first failed one are nobody's to await: asyncio reports each when it is collected, as a
    # task, a future or a gathering of them.
    said = record.getMessage()
    return not ("exception was never retrieved" in said.partition("\n")[0] and "orbax" in said)
