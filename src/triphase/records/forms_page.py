"""The table of forms in docs/data.md, written from `FORMS`.

python -m triphase.records.forms_page docs/data.md     writes it between its two marks
"""

import json
import sys
from pathlib import Path

from triphase.records.forms import FORMS

BEGIN, END = "<!-- forms: begin -->", "<!-- forms: end -->"


def table() -> str:
    """Every form with its possible roles and an example."""
    lines = ["| form | for | a row |", "|---|---|---|"]
    for form in FORMS:
        rows = [json.dumps(each, ensure_ascii=False).replace("|", "\\|") for each in (form.example, *form.more)]
        lines.append(f"| {form.name} | {', '.join(form.roles)} | {' '.join(f'`{row}`' for row in rows)} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """``page`` with the table between its markers updated."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_table(target.read_text(encoding="utf-8")), encoding="utf-8")
