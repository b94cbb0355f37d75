"""The page in a browser: no errors, sorting, filters, keyboard, phone, markup in a transcript."""

import json

import pytest

from espnet_lite.bin import write_report
from espnet_lite.report.gather import gather
from espnet_lite.report.page import report_page
from espnet_lite.score.results import read_rows

CARDS = "[...document.querySelectorAll('article')].map((one) => one.getAttribute('aria-label'))"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser(chromium_module, recipe, tmp_path_factory):
    """A Chromium, and the recipe's report written."""
    program = chromium_module.find_chromium()
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    arguments = ["--results_dir", str(recipe.folder), "--expdir", str(recipe.exp)]
    assert write_report.main(arguments) == 0
    with chromium_module.Chromium(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(browser, recipe):
    """The browser with the report open at desktop size; the test must leave no message."""
    browser.messages.clear()
    browser.show(width=1280)
    browser.open(recipe.page)
    yield browser
    assert browser.messages == []


def pick(page, label: str, value: str) -> None:
    """Choose an option of a select."""
    page.run(
        f"""(() => {{
          const select = document.querySelector('select[data-key={json.dumps(label)}]');
          select.value = {json.dumps(value)};
          select.dispatchEvent(new Event('change'));
        }})()"""
    )


def show_only(page, kind: str) -> None:
    page.run(f"document.querySelector('input[name=show][value={kind}]').click()")


def settle(page) -> None:
    """Wait for what the page draws after the list."""
    page.run("new Promise((resolve) => setTimeout(resolve, 20))")


def results_column(page, column: int) -> list[str]:
    return page.run(
        "[...document.querySelectorAll('#results table')[0].tBodies[0].rows]"
        f".map((row) => row.cells[{column}].innerText.trim().split('\\n')[0])"
    )


def test_the_sections_and_the_headline(page):
    assert page.run("[...document.querySelectorAll('h2')].map((one) => one.textContent)") == [
        *("Results", "Cost", "Training", "Quantization errors", "Units", "Utterances"),
    ]
    assert page.run("document.querySelector('h1').textContent") == "a <b>/asr1"
    assert page.run("document.querySelector('.lede strong').textContent") == "second"
    assert page.run("document.querySelectorAll('svg path.line').length") > 0
    propagated = page.run(
        "[...document.querySelectorAll('.heat')[1].tBodies[0].rows[0].cells].map((c) => c.textContent)"
    )
    assert propagated == ["attention", "0", "10", "20"]


def test_a_press_sorts_and_another_turns_it_round(page):
    head = "document.querySelectorAll('#results table')[0].tHead.rows[0].cells[1]"
    assert page.run(f"{head}.getAttribute('aria-sort')") == "none"
    page.run(f"{head}.querySelector('button').click()")
    assert page.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    upwards = [float(text) for text in results_column(page, 1)]
    page.run(f"{head}.querySelector('button').click()")
    assert page.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert [float(text) for text in results_column(page, 1)] == upwards[::-1] != upwards


def test_utterances_are_filtered_by_kind_speaker_text_and_error(page):
    pick(page, "Row", "first")
    assert page.run(CARDS) == ["anna-1", "anna-2", "bert-1", "bert-2", "bert-3"]
    for kind, expected in {
        "wrong": ["anna-1", "anna-2", "bert-1", "bert-3"],
        "S": ["anna-1", "bert-3"],
        "D": ["anna-2"],
        "I": ["bert-1"],
        "right": ["bert-2"],
    }.items():
        show_only(page, kind)
        assert page.run(CARDS) == expected
    show_only(page, "all")
    pick(page, "Speaker", "anna")
    assert page.run(CARDS) == ["anna-1", "anna-2"]
    pick(page, "Speaker", "")
    pick(page, "Error rate", "50")
    assert page.run(CARDS) == []
    pick(page, "Error rate", "25")
    assert page.run(CARDS) == ["anna-1", "anna-2", "bert-1"]  # a third each
    pick(page, "Error rate", "")
    search = "document.querySelector('input[type=search]')"
    page.run(f"{search}.value = 'BAT'; {search}.dispatchEvent(new Event('input'))")
    assert page.run(CARDS) == ["anna-1"]
    page.run(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    settle(page)
    page.run("document.querySelector('[data-key=\"D on \"]').click()")
    assert page.run(CARDS) == ["anna-2"]
    said = page.run("document.querySelector('[role=status]').textContent")
    assert "1 of 5 utterances" in said and "error rate 33.33 %" in said and "on → ∅" in said


def test_rows_are_compared(page):
    pick(page, "Row", "first")
    pick(page, "Beside it", "second")
    show_only(page, "worse")
    assert page.run(CARDS) == ["anna-1", "anna-2", "bert-3"]
    show_only(page, "better")
    assert page.run(CARDS) == []
    show_only(page, "differs")
    assert page.run(CARDS) == ["anna-1", "anna-2", "bert-1", "bert-3"]
    assert page.run("document.querySelectorAll('article .beside').length") == 4


def test_a_view_stands_in_the_address(page, recipe):
    pick(page, "Row", "first")
    show_only(page, "D")
    fragment = page.run("location.hash")
    page.open(recipe.page, fragment)
    assert page.run(CARDS) == ["anna-2"]
    page.open(recipe.page, "#set=nowhere&row=no&show=constructor&order=x&beside=no&speaker=no")
    assert len(page.run(CARDS)) == 5


def test_errors_are_told_by_more_than_colour(page):
    pick(page, "Row", "first")
    columns = (
        "[...document.querySelectorAll('article .column.{kind}')].map((one) => one.textContent)"
    )
    assert page.run(columns.replace("{kind}", "S"))[0] == "[substituted: catbat]S"
    assert page.run(columns.replace("{kind}", "D")) == ["[deleted: on∅]D"]
    assert page.run(columns.replace("{kind}", "I")) == ["[inserted: ∅four]I"]


def test_markup_in_a_transcript_is_text(page, recipe):
    pick(page, "Row", "second")
    shown = page.run("document.querySelector('article[aria-label=bert-3] .alignment').textContent")
    assert shown == recipe.markup
    assert page.run("document.querySelectorAll('main img, main script').length") == 0


def test_audio_plays(page):
    page.run("document.querySelector('.play').click()")
    ready = """new Promise((resolve) => {
      const player = document.querySelector('audio');
      const done = () => resolve([player.duration, player.error?.code ?? null]);
      if (player.readyState >= 1 || player.error) done();
      player.addEventListener('loadedmetadata', done);
      player.addEventListener('error', done);
    })"""
    duration, error = page.run(ready)
    assert error is None and duration == pytest.approx(0.25, abs=0.01)


def test_audio_that_is_gone_is_said(page, recipe):
    path = recipe.folder / "dump" / "the audio" / "anna-2.wav"
    path.rename(path.with_suffix(".away"))
    page.run("document.querySelector('article[aria-label=anna-2] .play').click()")
    wait = """new Promise((resolve) => {
      const look = () => document.querySelector('.missing')
        ? resolve(document.querySelector('.missing').textContent) : setTimeout(look, 20);
      look();
    })"""
    assert page.run(wait) == "no audio at ../dump/the audio/anna-2.wav"
    path.with_suffix(".away").rename(path)
    page.messages.clear()  # Chromium tells of the missing file


def test_all_is_reached_by_keyboard(page):
    focused = "document.activeElement"
    page.press("Tab")
    assert page.run(f"{focused}.textContent") == "Skip to the results"
    page.press("Enter")
    assert page.run(f"{focused}.id") == "main"
    page.press("Tab")
    assert page.run(f"{focused}.closest('th') !== null")
    page.press("Enter")
    assert page.run(f"{focused}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.run("document.querySelector('.drawing').focus()")
    page.press("ArrowRight")
    assert "second" in page.run("document.querySelector('.readout').textContent")
    page.run("document.querySelector('article').focus()")
    page.press("j")
    assert page.run(f"{focused}.getAttribute('aria-label')") == "anna-2"
    page.press("k")
    page.press("p")
    assert page.run(f"{focused}.tagName") == "AUDIO"


def test_a_control_keeps_the_focus_when_it_redraws(page):
    for label, value in (("Row", "first"), ("Beside it", "second"), ("Set", "test")):
        page.run(f"document.querySelector('select[data-key={json.dumps(label)}]').focus()")
        pick(page, label, value)
        assert page.run("document.activeElement.dataset.key") == label
    settle(page)
    for part in ("[data-key='cleo']", "[data-key='S 海 空'], [data-key='D <b> ']"):
        page.run(f"document.querySelector(`.side :is({part})`).focus()")
        page.run("document.activeElement.click()")
        settle(page)
        assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_text_can_be_read(page, recipe, width, scheme):
    page.show(width=width, scheme=scheme)
    page.open(recipe.page)
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run(OVERFLOW) == 0
    names = ("ink", "muted", "accent", "s", "d", "i")
    style = "getComputedStyle(document.documentElement)"
    colours = {
        name: page.run(f"{style}.getPropertyValue('--{name}')").strip()
        for name in (*names, "paper", "panel", "s-tint", "d-tint", "i-tint")
    }
    for name in names:
        grounds = ["paper", f"{name}-tint"] if name in "sdi" else ["paper", "panel"]
        for ground in grounds:
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    is_dark = luminance(colours["paper"]) < 0.1
    assert is_dark == (scheme == "dark")


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_every_control_has_a_name(page):
    unnamed = page.run(
        """[...document.querySelectorAll('button, select, input, audio, [role=img]')]
          .filter((one) => !(one.getAttribute('aria-label') || one.labels?.length
                             || one.textContent.trim())).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    identifiers = page.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(identifiers) == len(set(identifiers))


def test_thousands_of_utterances_are_drawn_as_they_are_scrolled_to(page, recipe, tmp_path):
    number = 5000
    rows = read_rows(recipe.folder)
    data = gather(recipe.folder, rows, expdir=recipe.exp, page=recipe.page, audio=False)
    words = " ".join(f"word{i}" for i in range(20))
    data["utterances"] = {
        "dev": {
            "ids": [f"anna-{i:05}" for i in range(number)],
            "speakers": ["anna"] * number,
            "seconds": [None] * number,
            "audio": [None] * number,
            "references": [[words] * number],
            "rows": {
                "first": {"reference": 0, "outcomes": [["S" + "C" * 19, f"x {words[6:]}"]] * number}
            },
        }
    }
    path = tmp_path / "long.html"
    path.write_text(report_page(data), encoding="utf-8")
    page.open(path)
    first = len(page.run(CARDS))
    assert 0 < first < 200
    page.run("document.querySelector('.more').scrollIntoView()")
    grown = f"""new Promise((resolve) => {{
      const look = () => document.querySelectorAll('article').length > {first}
        ? resolve(true) : setTimeout(look, 20);
      look();
    }})"""
    assert page.run(grown)
    assert "5,000 of 5,000 utterances" in page.run("document.body.textContent")
