"""Events of users and items as one sequence of items a user, in the order of time."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.files import Raw
from chinchilla_jax.tasks.records import History, Tally, Where

REPEATED = "events that repeat another: the same user, item and timestamp"
NAMES = {
    "user": ("user", "user_id", "userid"),
    "item": ("item", "item_id", "itemid", "movie_id", "movieid", "product_id", "productid"),
    "timestamp": ("timestamp", "time"),
}


def history(where: Where, fields: dict, tally: Tally) -> Iterator[History]:
    """`user` and `items`, in order already."""
    items = fields["items"]
    require(isinstance(items, list), f"{where}: items is {type(items).__name__}, not a list")
    yield History(where, _name(where, "user", fields["user"]), tuple(_name(where, "item", item) for item in items))


def events(rows: Iterable[Raw], tally: Tally) -> list[History]:
    """Rows of user, item and timestamp, sorted by time; equal times keep the order of the file."""
    users: dict[str, list[tuple[float, int, str]]] = {}
    first: dict[str, Where] = {}
    seen: set[tuple[str, str, float]] = set()
    for order, row in enumerate(rows):
        user, item = (_name(row.where, name, _field(row, name)) for name in ("user", "item"))
        when = _time(row)
        if (user, item, when) in seen:
            tally.note(REPEATED, row.where)
        seen.add((user, item, when))
        users.setdefault(user, []).append((when, order, item))
        first.setdefault(user, row.where)
    found = []
    for user, said in users.items():
        ordered = sorted(said, key=lambda event: event[:2])
        found.append(History(first[user], user, tuple(e[2] for e in ordered), tuple(e[0] for e in ordered)))
    return found


def is_event(fields: dict) -> bool:
    """Whether a row has a user, an item and a time."""
    return all(any(name in fields for name in names) for names in NAMES.values())


def lacking(row: Raw) -> str:
    """Why a row of RecBole's format is no event."""
    return (
        f"{row.where}: the first line of an .inter file is user_id:token, item_id:token and timestamp:float, parted by "
        f"tabs; found {', '.join(row.fields)}"
    )


def _time(row: Raw) -> float:
    time = _field(row, "timestamp")
    try:
        when = float(time)
    except (TypeError, ValueError) as error:
        raise UserError(f"{row.where}: timestamp {time!r:.40} is no number; correct it, or leave it out") from error
    require(math.isfinite(when), f"{row.where}: timestamp {time!r} is not finite; correct it, or leave the event out")
    return when


def _name(where: Where, what: str, value: Any) -> str:
    known = isinstance(value, (str, int, float)) and bool(str(value).strip())
    require(known, f"{where}: {what} {value!r:.40} is neither a name nor a number; correct it, or leave it out")
    return str(value)


def _field(row: Raw, name: str) -> Any:
    found = next((other for other in NAMES[name] if other in row.fields), None)
    require(found is not None, f"{row.where}: no {name}; found {', '.join(row.fields)}")
    return row.fields[found]
