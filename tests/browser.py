"""A real browser for tests: Debian's Chromium, driven by playwright. A page in it notes everything that it complains about and asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from packages import need

DESKTOP, PHONE = (1100, 900), (360, 740)
SLOW = 120_000  # milliseconds, for a machine that is busy


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. While it runs, this thread has playwright's event loop, so it must end before tests that start another one."""
    need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--no-proxy-server"], timeout=SLOW)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Visit:
    """A page that was opened.

    Attributes:
        page: As playwright drives it.
        complaints: What stood on its console, and errors of its scripts.
        requests: Every address that was asked for, that of the page included.
        answers: The content type that each answer had, where there was one.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)

    def ask(self, javascript: str) -> Any:
        """What an expression or function gives in the page."""
        return self.page.evaluate(javascript)


@contextmanager
def visit(browser: Browser, address: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[Visit]:
    """Open a page of its own, with playwright's options of a context: `color_scheme`, `java_script_enabled` and so on."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    context.set_default_timeout(SLOW)
    page = context.new_page()
    found = Visit(page)
    page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("response", lambda answer: found.answers.update({answer.url: answer.headers.get("content-type", "")}))
    page.goto(address)
    yield found
    context.close()


def asked_from_outside(found: Visit) -> list[str]:
    """The requests that are no pictures inside the page."""
    return [address for address in found.requests if not address.startswith("data:")]


OPENED = "() => { for (const part of document.querySelectorAll('details')) part.open = true; }"

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

BROKEN_PICTURES = """() => [...document.images].filter((image) => image.src && image.getClientRects().length)
  .filter((image) => !(image.complete && image.naturalWidth)).map((image) => image.alt)"""

UNLABELLED = """() => [...document.querySelectorAll('a, button, input, select, summary, dialog, section section, nav, [tabindex], [role]')]
  .filter((element) => !['aria-label', 'alt', 'title'].some((name) => element.getAttribute(name)?.trim()))
  .filter((element) => !document.getElementById(element.getAttribute('aria-labelledby'))?.textContent.trim())
  .filter((element) => !(element.labels && [...element.labels].some((label) => label.textContent.trim())))
  .filter((element) => !(['A', 'BUTTON', 'SUMMARY', 'SECTION'].includes(element.tagName) && element.textContent.trim()))
  .map((element) => element.outerHTML.slice(0, 120))"""

# The formulas are those of WCAG 2.2, relative luminance and contrast ratio; large text needs 3, other text 4.5.
FAINT_TEXTS = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, element = text.parentElement, style = getComputedStyle(element);
    if (!text.data.trim() || !element.getClientRects().length || ['SCRIPT', 'TITLE'].includes(element.nodeName.toUpperCase())) continue;
    const under = behind(element), colour = over(parse(element.closest('svg') ? style.fill : style.color), under);
    const [a, b] = [light(colour), light(under)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${text.data.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return faint;
}"""

SMALL_TARGETS = """() => [...document.querySelectorAll('button, input, select, summary, nav a')]
  .filter((element) => element.getClientRects().length)
  .filter((element) => element.getBoundingClientRect().height < 24).map((element) => element.outerHTML.slice(0, 120))"""

FOCUSABLE = """() => [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex]')]
  .filter((element) => element.checkVisibility() && element.tabIndex >= 0).length"""

# Marks what was met, so that no element counts twice.
FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body || element.dataset.met) return null;
  element.dataset.met = 'yes';
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && box.bottom > 0 && box.top < innerHeight;
  return [element.outerHTML.slice(0, 120), seen];
}"""


def keyboard_walk(page: Page, longest: int = 500) -> list[tuple[str, bool]]:
    """What the Tab key reaches, in order, and whether one sees where one is."""
    met: list[tuple[str, bool]] = []
    for _ in range(longest):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:
            return met
        met.append((focused[0], focused[1]))
    raise AssertionError(f"the Tab key found no end in {longest} presses")


def pasted(page: Page) -> str:
    """What the clipboard holds: a person would see it so, in any page and from any address."""
    page.evaluate("() => { const field = document.createElement('textarea'); document.body.append(field); field.focus(); }")
    page.keyboard.press("Control+V")
    text: str = page.evaluate("() => { const field = document.activeElement; const text = field.value; field.remove(); return text; }")
    return text


def address_of(path: Path) -> str:
    """A file's address."""
    return path.resolve().as_uri()
