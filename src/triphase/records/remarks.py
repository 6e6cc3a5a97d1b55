"""What is said about the records of a source once: of how many it is true, and where the first of them is."""

from triphase.records.lines import Row


class Remarks:
    """The remarks on rows (`Row.remarks`), each counted."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, str]] = {}

    def add(self, row: Row | None) -> None:
        """Count the remarks on the row of a record."""
        if row is None or not row.remarks:
            return
        for remark in sorted(row.remarks):
            count, number, where = self._found.get(remark, (0, row.number, row.where))
            self._found[remark] = (count + 1, number, where)

    def update(self, part: "Remarks") -> None:
        """Add those on another part of the same file."""
        for remark, (count, number, where) in part._found.items():
            before, first, place = self._found.get(remark, (0, number, where))
            self._found[remark] = (before + count, *min((number, where), (first, place)))

    def lines(self) -> list[str]:
        """A line for each."""
        return [
            f"{remark} ({f'{count} records, the first is ' if count > 1 else ''}{where})"
            for remark, (count, _, where) in self._found.items()
        ]
