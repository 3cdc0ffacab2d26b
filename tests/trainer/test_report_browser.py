"""Report and index in a real browser: on a desk, on a phone, in the dark, on paper, by keyboard, from a file and from a link."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, expect

from browser import (
    BROKEN_PICTURES,
    DESKTOP,
    FAINT_TEXTS,
    FOCUSABLE,
    OPENED,
    OVERFLOW,
    PHONE,
    SLOW,
    SMALL_TARGETS,
    UNLABELLED,
    Visit,
    address_of,
    asked_from_outside,
    chromium,
    keyboard_walk,
    pasted,
    visit,
)
from charalora_trainer.stages.index_sources import write_index
from charalora_trainer.storage import open_store
from charalora_trainer.storage.local import LocalStore
from outputs import BEST, PROMPTS, STEPS, finished_output
from services import S3

WORD = "surtr_arknights"
REPORT, INDEX = f"{WORD}/report.html", "index.html"

expect.set_options(timeout=SLOW)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished trainings, one that has just begun, a damaged one, and the index above them."""
    root = tmp_path_factory.mktemp("loras")
    finished_output(root / WORD, WORD)
    begun = finished_output(root / "角色 #1", "amiya_" + "w" * 57)
    for name in ("manifest.json", "report.html", "report.json"):
        (begun / name).unlink()
    finished_output(root / "skadi", "skadi_arknights")
    (root / "damaged").mkdir()
    (root / "damaged" / "cfg.yaml").write_text("kind: [")
    write_index(LocalStore(root))
    return root


@pytest.fixture
def opened(browser: Browser, site: Path) -> Iterator[Visit]:
    """The report, opened from the disk."""
    with visit(browser, address_of(site / REPORT)) as found:
        yield found


@pytest.mark.parametrize("name", [REPORT, INDEX])
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_a_page_is_whole_legible_and_alone_on_every_screen(
    browser: Browser, site: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    """No complaint or request, nothing beyond the right edge, every picture there; every text has WCAG's contrast, every control a name."""
    with visit(browser, address_of(site / name), size, color_scheme=scheme) as found:
        found.ask(OPENED)

        assert [] == found.complaints
        assert [address_of(site / name)] == asked_from_outside(found)
        assert 0 == found.ask(OVERFLOW)
        assert [] == found.ask(BROKEN_PICTURES)
        assert [] == found.ask(FAINT_TEXTS)
        assert [] == found.ask(UNLABELLED)
        assert [] == found.ask(SMALL_TARGETS)


def test_the_checks_of_these_tests_find_what_they_look_for(opened: Visit) -> None:
    """A faint text, a picture that is none, a field without a name, a thing too wide, a target too small: each is found."""
    opened.ask("""() => document.querySelector('main').insertAdjacentHTML('beforeend',
        '<p><font color="#aaaaaa">faint</font></p><img src="data:image/png;base64,AAAA" alt="broken"><input type="text">')""")
    opened.ask("""() => {
        const [wide, button] = [document.createElement('div'), document.createElement('button')];
        wide.style.cssText = 'width: 5000px; height: 1px';
        button.style.cssText = 'height: 9px; padding: 0';
        document.body.append(wide, button);
    }""")

    assert ["faint"] == [text.split()[0] for text in opened.ask(FAINT_TEXTS)]
    assert ["broken"] == opened.ask(BROKEN_PICTURES)
    assert {"<input", "<button"} == {element.split()[0].rstrip(">") for element in opened.ask(UNLABELLED)}
    assert opened.ask(OVERFLOW) > 3000
    assert opened.ask(SMALL_TARGETS)


@pytest.mark.parametrize("name", [REPORT, INDEX])
def test_a_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, site: Path, name: str) -> None:
    """As many stops as there are things to use, each with a visible frame."""
    with visit(browser, address_of(site / name), reduced_motion="reduce") as found:
        reachable = found.ask(FOCUSABLE)
        met = keyboard_walk(found.page)

    assert reachable == len(met)
    assert [] == [element for element, seen in met if not seen]


def test_the_policy_of_a_page_forbids_requests_and_foreign_scripts(opened: Visit) -> None:
    """Even a script in the page that asks for something gets nothing, and one that is put in does not run."""
    opened.ask("""() => {
        window.forbidden = [];
        addEventListener('securitypolicyviolation', (event) => forbidden.push(event.effectiveDirective));
    }""")
    opened.ask("() => fetch('http://127.0.0.1:9/').catch(() => null)")
    opened.ask(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1'; document.body.append(script); }"
    )
    opened.page.wait_for_function("() => window.forbidden.length >= 2")

    assert ["connect-src", "script-src-elem"] == sorted(opened.ask("() => window.forbidden"))
    assert opened.ask("() => window.ran === undefined")


def test_any_two_steps_are_compared_with_arrow_keys(opened: Visit) -> None:
    """It begins with the first and the best; a slider and its arrow keys change the step, the list the prompt, of both sides."""

    def shown() -> list[str]:
        return [opened.page.locator(f".pair img[data-side={side}]").get_attribute("alt") or "" for side in ("left", "right")]

    def expected(row: int, left: int, right: int) -> list[str]:
        return [f"Step {step}, seed 7: {PROMPTS[row]}" for step in (left, right)]

    assert expected(0, STEPS[0], BEST) == shown()

    opened.page.locator("#compare-right").press("ArrowLeft")
    opened.page.locator("#compare-left").press("End")

    assert expected(0, 400, 200) == shown()
    assert "step 400" == opened.page.locator("#compare-left").get_attribute("aria-valuetext")

    opened.page.locator("#compare-row").select_option("2")

    assert expected(2, 400, 200) == shown()
    pixels = "(side) => document.querySelector(`.pair img[data-side=${side}]`).src"
    strip = opened.ask("() => [...document.querySelectorAll('.strip')[2].querySelectorAll('img')].map((image) => image.src)")
    assert [strip[3], strip[1]] == [opened.page.evaluate(pixels, side) for side in ("left", "right")]


def test_a_picture_opens_large_and_the_arrow_keys_go_on_from_it(opened: Visit) -> None:
    """Enter opens it, arrows go to its neighbours and round, Escape returns to where one was."""
    first = opened.page.locator(".strip img").first
    large = opened.page.locator("dialog img")
    first.press("Enter")

    expect(large).to_have_attribute("alt", f"Step 100, seed 7: {PROMPTS[0]}")
    opened.page.keyboard.press("ArrowRight")
    expect(large).to_have_attribute("alt", f"Step 200, seed 7: {PROMPTS[0]}")
    opened.page.keyboard.press("ArrowLeft")
    opened.page.keyboard.press("ArrowLeft")
    expect(large).to_have_attribute("alt", f"Step 400, seed 7: {PROMPTS[0]}")
    opened.page.keyboard.press("Escape")
    expect(opened.page.locator("dialog")).to_be_hidden()
    expect(first).to_be_focused()


@pytest.mark.parametrize(("name", "word"), [(REPORT, WORD), (INDEX, "skadi_arknights")])
def test_the_trigger_word_is_copied_from_a_page_on_the_disk(browser: Browser, site: Path, name: str, word: str) -> None:
    """It is in the clipboard, and the button says so."""
    with visit(browser, address_of(site / name)) as found:
        button = found.page.get_by_role("button", name=f"Copy: Trigger word{'' if name == REPORT else ' ' + word}", exact=True)
        button.click()
        expect(button).to_have_text("Copied")

        assert word == pasted(found.page)


def test_without_scripts_every_picture_is_there_and_no_dead_button(browser: Browser, site: Path) -> None:
    """What needs a script is not shown."""
    with visit(browser, address_of(site / REPORT), java_script_enabled=False) as found:
        assert len(STEPS) * len(PROMPTS) == found.page.locator(".strip img").count()
        assert [] == [button for button in found.page.locator("button").all() if button.is_visible()]
        expect(found.page.locator("#compare")).to_be_hidden()


def test_a_page_prints_on_white_with_everything_open(browser: Browser, site: Path) -> None:
    """From a dark screen too: no controls, no cut table, the folded parts unfolded."""
    with visit(browser, address_of(site / REPORT), (718, 1000), color_scheme="dark") as found:
        sheets = len(re.findall(rb"/Type\s*/Page\b", found.page.pdf(format="A4", print_background=True)))
        found.page.emulate_media(media="print", color_scheme="dark")

        assert 4 <= sheets <= 20
        assert "rgb(255, 255, 255)" == found.ask("() => getComputedStyle(document.body).backgroundColor")
        assert [] == found.ask(FAINT_TEXTS)
        assert 0 == found.ask(OVERFLOW)
        assert found.page.locator("#resource").is_visible()
        assert not [part for part in ("nav", "#compare", "button", "summary") for one in found.page.locator(part).all() if one.is_visible()]


def test_who_wants_no_motion_gets_none(browser: Browser, site: Path) -> None:
    """Jumps are jumps then, and glide otherwise."""
    for wish, behaviour in (("reduce", "auto"), ("no-preference", "smooth")):
        with visit(browser, address_of(site / REPORT), reduced_motion=wish) as found:
            assert behaviour == found.ask("() => getComputedStyle(document.documentElement).scrollBehavior")


@pytest.mark.parametrize("name", [REPORT, INDEX])
def test_a_page_opens_from_a_presigned_link(browser: Browser, site: Path, s3: S3, name: str) -> None:
    """A private object of a real S3 service: the browser shows it as a page, and asks for nothing else."""
    open_store(s3.uri(), s3.storage).upload(site / name, name)
    link = s3.client.generate_presigned_url("get_object", Params={"Bucket": s3.bucket, "Key": name}, ExpiresIn=600)

    with visit(browser, link) as found:
        assert "text/html; charset=utf-8" == found.answers[link]
        assert [link] == asked_from_outside(found)
        assert [] == found.complaints + found.ask(BROKEN_PICTURES)
        button = found.page.get_by_role("button", name="Copy: Trigger word").first
        button.click()
        expect(button).to_have_text("Copied")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder as a website."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@pytest.mark.parametrize("place", ["disk", "website"])
def test_a_card_of_the_index_leads_to_its_report(browser: Browser, site: Path, place: str) -> None:
    """From a synced folder and from a bucket that is served as a website; a training under way has no link yet."""
    with served(site) as address, visit(browser, address_of(site / INDEX) if place == "disk" else f"{address}/{INDEX}") as found:
        assert {"skadi_arknights", WORD} == {link.inner_text() for link in found.page.locator(".character a").all()}
        assert "cfg.yaml is no valid YAML" in found.page.locator(".warnings").inner_text()

        found.page.get_by_role("link", name=WORD).click()

        expect(found.page.locator("h1")).to_have_text(WORD)
        assert [] == found.complaints + found.ask(BROKEN_PICTURES)
