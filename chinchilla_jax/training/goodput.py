"""Where the time of a run went, from events.jsonl alone, over all the attempts that it took.

An attempt begins with an event `begin`. What it did after the checkpoint that the next attempt went on from was done
again or came to nothing: it is `lost`, and so is the time until that next attempt begins. What came before is split by
the seconds that its events tell; the rest is `productive`. The shares sum to 1.
"""

from typing import Any

PARTS = ("productive", "compiling", "restoring", "saving", "evaluating", "lost")
# event -> what its field `seconds` counts as; the event is written when that is over
SPENT = {"compiled": "compiling", "restored": "restoring", "saved": "saving", "evaluated": "evaluating"}


def goodput(events: list[dict[str, Any]]) -> dict[str, Any]:
    """{"seconds": whole time, "attempts": n, "shares": {part: share}} of the rows of events.jsonl."""
    attempts = split(events)
    parts = dict.fromkeys(PARTS, 0.0)
    for attempt, following in zip(attempts, [*attempts[1:], None]):
        begun = attempt[0]["time"]
        kept = useful(attempt, following)
        spent = dict.fromkeys(PARTS, 0.0)
        for row in attempt:
            if row["event"] in SPENT and row["time"] <= kept:
                spent[SPENT[row["event"]]] += min(row.get("seconds", 0.0), row["time"] - begun)
        spent["productive"] = max(0.0, kept - begun - sum(spent.values()))
        spent["lost"] = (following[0]["time"] if following else attempt[-1]["time"]) - kept
        for name, seconds in spent.items():
            parts[name] += seconds
    whole = sum(parts.values())
    shares = {name: seconds / whole if whole else 0.0 for name, seconds in parts.items()}
    return {"seconds": whole, "attempts": len(attempts), "shares": shares}


def split(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each attempt; what stands before the first `begin` was written by an older version."""
    attempts: list[list[dict[str, Any]]] = []
    for row in events:
        if row["event"] == "begin":
            attempts.append([])
        if attempts:
            attempts[-1].append(row)
    return attempts


def useful(attempt: list[dict[str, Any]], following: list[dict[str, Any]] | None) -> float:
    """The moment up to which an attempt's work was kept."""
    if following is None:
        return attempt[-1]["time"]
    [resumed] = [row["step"] for row in following if row["event"] == "start"][:1] or [None]
    if resumed is None:  # the next attempt did not get so far: what counts is what came after it
        saved = [row["time"] for row in attempt if row["event"] == "saved"]
    else:
        saved = [row["time"] for row in attempt if row["event"] == "saved" and row["step"] <= resumed]
    return max(saved, default=attempt[0]["time"])


def table(found: dict[str, Any]) -> str:
    """In words."""
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["shares"].items() if share >= 0.0005)
    return f"goodput over {found['attempts']} attempt(s), {found['seconds']:,.0f} s: {shares}"
