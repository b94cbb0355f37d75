"""The page as text: nothing loaded, nothing run but its own script, the data whole."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from espnet_lite.report.page import ASSETS, SCRIPTS, json_for_script, report_page

NASTY = [
    "</script><script>alert(1)</script>",
    "</SCRIPT ><!-- <script>",
    "<![CDATA[ ]]>",
    "{{title}} {{data}} \\1 \\g<0>",
    "\x00\x1f\r\n\u2028\u2029 \U0001f40d \u05d0",
    "&lt; &amp; ' \"",
]


class Parts(html.parser.HTMLParser):
    """Start tags with their attributes, and the text of the elements."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[int, str]] = []  # (position of the open tag, text)
        self._is_open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._is_open = True

    def handle_endtag(self, tag):
        self._is_open = False

    def handle_data(self, data):
        if self._is_open:
            self.texts.append((len(self.tags) - 1, data))

    def text_of(self, tag: str, **attributes: str) -> str:
        [position] = [
            i
            for i, (name, found) in enumerate(self.tags)
            if name == tag and (found == attributes or not attributes)
        ]
        return "".join(text for at, text in self.texts if at == position)


def script_of(parts: Parts) -> str:
    [position] = [i for i, tag in enumerate(parts.tags) if tag == ("script", {})]
    return "".join(text for at, text in parts.texts if at == position)


@pytest.mark.parametrize("text", NASTY)
def test_data_comes_back_whole_and_ends_no_script(text):
    data = {"title": text, text: [text, 1.5, None, {"x": text}]}
    parts = Parts(report_page(data))
    found = json.loads(parts.text_of("script", type="application/json", id="data"))
    assert found == data
    assert [tag for tag, _ in parts.tags if tag in ("script", "img")] == ["script", "script"]
    written = json_for_script(data)
    assert "<" not in written and json.loads(written) == data


def test_the_title_is_escaped():
    page = report_page({"title": NASTY[0]})
    assert page.count("&lt;/script&gt;&lt;script&gt;alert(1)") == 2
    assert Parts(page).text_of("h1") == NASTY[0]


def test_nan_is_refused():
    with pytest.raises(ValueError, match="Out of range float"):
        report_page({"title": "x", "rtf": float("nan")})


def test_nothing_is_loaded():
    page = report_page({"title": "x"})
    for tag, attributes in Parts(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and "style" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    # The one address is the name of a namespace.
    assert re.findall(r"\w+://[^'\" ]*", page) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in page and "@import" not in page


def test_the_policy_names_the_style_and_the_script_by_their_hashes():
    parts = Parts(report_page({"title": "x"}))
    [policy] = [
        attributes["content"]
        for tag, attributes in parts.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for name, text in (("style-src", parts.text_of("style")), ("script-src", script_of(parts))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_scripts_make_no_markup_of_text():
    text = "".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "fetch(",
    ):
        assert forbidden not in text
    assert {path.name for path in ASSETS.glob("*.js")} == set(SCRIPTS)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_the_script_is_javascript(tmp_path):
    path = tmp_path / "script.js"
    path.write_text(script_of(Parts(report_page({"title": "x"}))), encoding="utf-8")
    done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
