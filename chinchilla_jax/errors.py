"""Failures that end a command: one line for the user, one exit code for the scheduler."""


class UserError(Exception):
    """Configuration, data or checkpoint refused; the message names the fix. Never worth re-queueing."""

    exit_code = 78


class StorageError(UserError):
    """Input or output failed, as with a full disk."""

    exit_code = 74


class Preempted(UserError):
    """Stopped by a signal or a hang after the last completed step was saved; re-queue the job."""

    exit_code = 75


class PeerLost(UserError):
    """Another process of the run failed, was killed or never came; start all of them again."""

    exit_code = 69


class Diverged(UserError):
    """Training does not recover from bad steps."""

    exit_code = 77


def one_line(text: str, most: int = 2000) -> str:
    """`text` on one line, control characters spelled out, without its middle beyond `most` characters."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"
