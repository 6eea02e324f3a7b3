# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: links that lead out of ``docs/`` become plain names, because a site has no sources beside it.

Links within ``docs/`` stay, and a broken one fails the strict build. That links to sources lead somewhere is held by
``tests/unit/test_rows_page.py``.
"""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page, with its text."""
    docs = Path(__file__).parent

    def outside(match: re.Match[str]) -> str:
        text, target = match[1], match[2].partition("#")[0]
        if (docs / page.file.src_path).parent.joinpath(target).resolve().is_relative_to(docs):
            return match[0]
        return text if text.startswith("`") else f"`{text}`"

    return _LINK.sub(outside, markdown)
