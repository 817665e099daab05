"""Rows of a table with tabs in which some fields stand in quotes, since they hold a tab or a newline."""

import re

MOST_LINES = 1000  # of a row


def cells_at(lines: list[str], start: int, width: int) -> tuple[list[str], int]:
    """The fields of a row that begins at line `start`, and how many lines it takes: `width` fields, if that may be."""
    alone = lines[start].split("\t")
    opened = alone[-1].startswith('"') and not closed(alone[-1])
    if not width or (len(alone) == width and not opened):
        return alone, 1
    for end in range(start + 1, min(start + MOST_LINES, len(lines)) + 1):
        cells = joined("\n".join(lines[start:end]).split("\t"), width)
        fits = len(cells) == width and all(closed(cell) for cell in cells if "\n" in cell)
        if fits and (end > start + 1 or len(alone) > width):
            return [unquoted(cell) for cell in cells], end - start
        if len(cells) > width or not opened:
            break
    return alone, 1


def closed(cell: str) -> bool:
    """Whether a field stands in quotes as a whole."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def joined(cells: list[str], width: int) -> list[str]:
    """Fields of which those between an opening and a closing quote are one, as long as there are too many."""
    found, cells = [], list(cells)
    while cells:
        over, last = len(found) + len(cells) - width, 0
        if over > 0 and cells[0].startswith('"') and not closed(cells[0]):
            last = next((n for n in range(1, min(over, len(cells) - 1) + 1) if cells[n].endswith('"')), 0)
        found.append("\t".join(cells[: last + 1]))
        del cells[: last + 1]
    return found


def unquoted(cell: str) -> str:
    """A field without the quotes that hold its tabs or newlines."""
    return cell[1:-1].replace('""', '"') if closed(cell) and re.search("[\t\n]", cell) else cell
