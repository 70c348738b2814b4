"""The report in a browser: it logs nothing, shows every picture, fits a phone, prints whole, and needs no mouse."""

import shutil

import keras
import pytest
from keras import layers
from test_report import EVIL, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.any_backend,
]

OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
WIDTHS = {"phone": 360, "tablet": 700, "desktop": 1280}


def model():
    """Branches, a residual sum, kernels of every family, long names and names that are markup."""
    image = keras.Input((24, 20, 3), name="image")
    stem = layers.Conv2D(6, 3, strides=2, activation="relu", padding="same", name=EVIL)(image)
    one = layers.Conv2D(6, 3, padding="same", name="a_layer_whose_name_is_longer_than_any_box_that_it_has_to_fit_in")(
        stem
    )
    two = layers.SeparableConv2D(6, 3, padding="same")(layers.BatchNormalization()(stem))
    joined = layers.Add()([layers.Concatenate()([one, two]), layers.Conv2D(12, 1)(stem)])
    pooled = layers.MaxPooling2D()(layers.DepthwiseConv2D(3, padding="same")(joined))
    return keras.Model(
        image, layers.Dense(5)(layers.Flatten()(pooled)), name="a_model_with_" + "quite_" * 12 + "a_name"
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.clear_session(free_memory=False)
    written = tmp_path_factory.mktemp("report") / "report.html"
    written.write_text(page(model(), file="model.keras"), encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"], scope="module")
def scheme(request):
    return request.param


@pytest.fixture(params=WIDTHS, scope="module")
def tab(request, browser, file, scheme):
    """The page, and everything that it logged or requested."""
    context = browser.new_context(viewport={"width": WIDTHS[request.param], "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.heard = []
    tab.on("console", lambda message: tab.heard.append(message.text))
    tab.on("pageerror", lambda error: tab.heard.append(str(error)))
    tab.on("dialog", lambda dialog: tab.heard.append(dialog.message))
    tab.on("request", lambda request: tab.heard.append(request.url) if not ours(request.url, file) else None)
    tab.goto(file.as_uri())
    yield tab
    context.close()


@pytest.fixture
def opened(tab):
    yield tab
    tab.emulate_media(media="screen")


def ours(url, file):
    return url.startswith("data:") or url.partition("#")[0] == file.as_uri()


def test_it_logs_nothing_and_shows_every_picture(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    broken = "[...document.images].filter(image => !image.complete || image.naturalWidth === 0).map(image => image.alt)"
    assert opened.evaluate(broken) == []
    assert opened.locator("img").count() > 10
    assert opened.heard == []


def test_nothing_is_wider_than_the_page(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= opened.viewport_size["width"]
    outside = """() => [...document.querySelectorAll('body *')].filter(each => {
        const box = each.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1) && !each.closest('thead');
    }).map(each => each.outerHTML.slice(0, 200))"""
    assert opened.evaluate(outside) == []


def test_letters_are_large_enough_to_read(opened):
    """Those of the diagram, too, have nine pixels or more on a phone."""
    smallest = """() => Math.min(...[...document.querySelectorAll('.diagram text')]
        .filter(each => each.getBoundingClientRect().width)
        .map(each => parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a))"""
    assert opened.evaluate(smallest) >= 9


def test_every_text_in_the_diagram_lies_in_its_box(opened):
    """As the browser sets it, which knows how wide its letters are."""
    outside = """() => [...document.querySelectorAll('.diagram .name, .diagram .detail, .diagram .size')]
        .filter(text => text.getBoundingClientRect().width)
        .filter(text => {
            const all = [...text.parentNode.querySelectorAll('.box')].map(box => box.getBBox()), own = text.getBBox();
            return !all.some(box => own.x >= box.x && own.x + own.width <= box.x + box.width
                && own.y >= box.y - 1 && own.y + own.height <= box.y + box.height + 1);
        }).map(text => text.textContent)"""
    assert opened.evaluate(outside) == []


def test_reconstructions_stand_beside_their_originals(opened):
    tops = """() => [...document.querySelectorAll('.trio')].map(
        trio => new Set([...trio.children].map(figure => figure.getBoundingClientRect().top)).size)"""
    assert set(opened.evaluate(tops)) == {1}


CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const contrast = (one, other) => {
        const [dim, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (bright + 0.05) / (dim + 0.05);
    };
    const background = element => {
        for (; element; element = element.parentElement) {
            const colour = rgba(getComputedStyle(element).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const behind = text => {  // the box that a text of the diagram is written on, if it is on one
        const own = text.getBBox(), x = own.x + own.width / 2, y = own.y + own.height / 2;
        const box = [...text.parentNode.querySelectorAll('.box')].map(box => [box, box.getBBox()]).find(
            ([, {x: left, y: top, width, height}]) => left < x && x < left + width && top < y && y < top + height);
        return box ? rgba(getComputedStyle(box[0]).fill) : background(text.ownerSVGElement);
    };
    const measured = [];
    for (const element of document.querySelectorAll('body *')) {
        const words = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!words || !element.getBoundingClientRect().width || ['title', 'desc'].includes(element.tagName)) continue;
        const style = getComputedStyle(element), drawn = element.tagName === 'text';
        const pair = drawn ? [rgba(style.fill), behind(element)] : [rgba(style.color), background(element)];
        const what = `${element.tagName}.${element.getAttribute('class')}: ${element.textContent.slice(0, 40)}`;
        measured.push([contrast(...pair), what]);
    }
    return measured;
}"""


@pytest.mark.parametrize("media", ["screen", "print"])
def test_every_word_has_the_contrast_that_wcag_asks_for(opened, media):
    """4.5:1, computed from the colours that the browser shows, for each element that has words of its own."""
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    opened.emulate_media(media=media)
    measured = opened.evaluate(CONTRASTS)
    assert len(measured) > 100 and any(what.startswith("text.name") for _, what in measured)
    assert [(ratio, what) for ratio, what in measured if ratio < 4.5] == []


def test_one_version_of_the_diagram_is_shown(opened):
    shown = [drawing for drawing in opened.locator("svg.diagram").all() if drawing.is_visible()]
    assert len(shown) == 1
    assert shown[0].locator("text", has_text=EVIL[:8]).first.is_visible()


def test_the_theme_follows_the_system(opened, scheme):
    background = opened.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 22, 28)"}[scheme]


# --- without a mouse


@pytest.fixture
def desktop(browser, file):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.goto(file.as_uri())
    yield tab
    context.close()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(desktop):
    wanted = desktop.evaluate(
        "[...document.querySelectorAll('a[href], summary')].filter(each => each.checkVisibility()).map(each => "
        "(each.id = each.id || 'tried-' + Math.random(), each.id))"
    )
    reached = []
    for _ in wanted:
        desktop.keyboard.press("Tab")
        reached.append(desktop.evaluate("document.activeElement.id"))
        visible = """() => {
            const style = getComputedStyle(document.activeElement), box = document.activeElement.querySelector('.box');
            return style.outlineStyle !== 'none' || (box && getComputedStyle(box).strokeWidth === '3px');
        }"""
        assert desktop.evaluate(visible), reached[-1]
    assert reached == wanted


def test_the_first_key_offers_to_skip_to_the_content(desktop):
    desktop.keyboard.press("Tab")
    assert desktop.evaluate("document.activeElement.textContent") == "Skip to the diagram"
    assert desktop.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    desktop.keyboard.press("Enter")
    assert desktop.evaluate("document.activeElement.id") == "main"


def test_a_link_in_the_diagram_opens_its_section(desktop):
    desktop.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    link = desktop.locator("svg.diagram.wide a").last
    name = link.get_attribute("href")[1:]
    link.focus()
    desktop.keyboard.press("Enter")
    desktop.wait_for_function(f"document.getElementById('{name}').closest('details').open")
    assert desktop.locator(f"#{name}").is_visible()


def test_landmarks_and_sections_have_names(desktop):
    tree = desktop.locator("body").aria_snapshot()
    for words in ("banner", "navigation", "main", "contentinfo", "region"):
        assert words in tree


# --- on paper


def test_all_of_it_is_printed(desktop):
    desktop.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    desktop.emulate_media(media="print", color_scheme="dark")
    assert desktop.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    hidden = "[...document.images].filter(image => !image.checkVisibility({contentVisibilityAuto: true})).length"
    assert desktop.evaluate(hidden) == 0
    assert not desktop.locator("nav").is_visible()
    assert desktop.pdf(format="A4").startswith(b"%PDF")


def test_paper_has_margins_and_headings_stay_with_what_they_head(desktop):
    desktop.emulate_media(media="print")
    apart = """() => [...document.querySelectorAll('h2, h3, h4, summary')]
        .filter(each => getComputedStyle(each).breakAfter !== 'avoid').map(each => each.textContent)"""
    assert desktop.evaluate(apart) == []
    margins = """() => [...document.styleSheets[0].cssRules].filter(rule => rule instanceof CSSPageRule)
        .map(rule => rule.style.marginLeft)"""
    assert desktop.evaluate(margins) == ["12mm"]
