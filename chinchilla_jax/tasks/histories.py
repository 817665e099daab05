"""Events of users and items as one sequence of items a user, in the order of time."""

from collections.abc import Iterable, Iterator

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.files import Raw
from chinchilla_jax.tasks.records import History, Tally, Where

NAMES = {
    "user": ("user", "user_id", "userid"),
    "item": ("item", "item_id", "itemid"),
    "timestamp": ("timestamp", "time"),
}


def history(where: Where, fields: dict, tally: Tally) -> Iterator[History]:
    """`user` and `items`, in order already."""
    items = fields["items"]
    require(isinstance(items, list), f"{where}: items is {type(items).__name__}, not a list")
    yield History(where, str(fields["user"]), tuple(map(str, items)))


def events(rows: Iterable[Raw]) -> list[History]:
    """Rows of user, item and timestamp, sorted by time; equal times keep the order of the file."""
    users: dict[str, list[tuple[float, int, str]]] = {}
    first: dict[str, Where] = {}
    for order, row in enumerate(rows):
        user, item, time = (_field(row, name) for name in ("user", "item", "timestamp"))
        try:
            when = float(time)
        except ValueError as error:
            raise UserError(f"{row.where}: timestamp {time!r} is no number") from error
        users.setdefault(user, []).append((when, order, item))
        first.setdefault(user, row.where)
    found = []
    for user, seen in users.items():
        ordered = sorted(seen, key=lambda event: event[:2])
        found.append(History(first[user], user, tuple(e[2] for e in ordered), tuple(e[0] for e in ordered)))
    return found


def is_event(fields: dict) -> bool:
    """Whether a row has a user, an item and a time."""
    return all(any(name in fields for name in names) for names in NAMES.values())


def _field(row: Raw, name: str) -> str:
    found = next((other for other in NAMES[name] if other in row.fields), None)
    require(found is not None, f"{row.where}: no {name}; found {', '.join(row.fields)}")
    return str(row.fields[found])
