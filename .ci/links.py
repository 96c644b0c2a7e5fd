"""Checks that every relative link in the Markdown files given leads to a file and a heading."""

import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*?)\s*$", re.MULTILINE)


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(path)))
    return {title.replace(" ", "-") for title in titles}


def problem(page: Path, link: str) -> str | None:
    target, _, anchor = link.partition("#")
    path = page.parent / target if target else page
    if not path.exists():
        return f"{target} does not exist"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"{path} has no heading #{anchor}"
    return None


def main(pages: list[Path]) -> int:
    broken = 0
    for page in pages:
        for link in LINK.findall(prose(page)):
            if re.match(r"[a-z]+:", link):
                continue
            if why := problem(page, link):
                print(f"{page}: {why}", file=sys.stderr)
                broken += 1
    return 1 if broken else 0


sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
