"""The HTML of a report: template, style, scripts and data in one file that loads nothing else."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
# In the order in which they are joined into one script.
SCRIPTS = (
    *("elements.js", "tables.js", "plots.js", "results.js", "quantization.js"),
    *("alignments.js", "cards.js", "error_tables.js", "utterances.js", "report.js"),
)


def report_page(data: Mapping) -> str:
    """Return the page.

    Texts of the data come from transcripts and file names. They stand in a script element that is
    no script, escaped so that nothing in them ends it; the scripts put them into the page as text.
    The page's policy allows this style and these scripts by their hashes, audio, and nothing else.

    Args:
        data: as `gather` returns it; JSON-able, no NaN.
    """
    style = _asset("style.css")
    script = "\n".join(["'use strict';", *map(_asset, SCRIPTS)])
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": html.escape(policy),
        "style": style,
        "data": json_for_script(data),
        "script": script,
    }
    # All at once: a part may have the look of another's place.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("template.html"))


def json_for_script(data: object) -> str:
    """Return JSON that stays inside of a script element: no `<`, so no `</script` and no `<!--`."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
