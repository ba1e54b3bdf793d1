"""Tables of the pages in docs/, between the markers that name them."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write_table(page: str, name: str, lines: list[str]) -> None:
    """Put `lines` between `<!-- name: begin -->` and `<!-- name: end -->`, and print them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = (DOCS / page).read_text()
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    (DOCS / page).write_text("\n".join([before + begin, "", *lines, "", end + after]))
    print("\n".join(lines))
