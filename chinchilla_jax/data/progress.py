"""Progress shown as a bar on a terminal and as a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

EVERY = 10.0  # seconds between two lines


@contextlib.contextmanager
def progress(label: str, total: int, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Gives `advance(n)`, which moves the bar by `n` bytes of `total`; a `total` of 0 is an unknown one."""
    from rich.console import Console

    console = Console()
    if not show:
        yield lambda n: None
    elif console.is_terminal:
        from rich import progress as bars

        columns = (bars.TextColumn(label), bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
        with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(label, total=total or None)
            yield lambda n: bar.advance(task, n)
    else:
        yield _lines(label, total)


def _lines(label: str, total: int) -> Callable[[int], None]:
    begun = shown = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal shown, done
        done += n
        now = time.monotonic()
        if now - shown >= EVERY:
            shown = now
            share = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
            print(f"{label}: {done / 1e6:,.1f}{share}, {done / 1e6 / (now - begun):.1f} MB/s", flush=True)

    return advance
