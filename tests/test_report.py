"""The report: what it says about good, strange and broken models, that it is safe, light, and readable in both themes."""

import re
from collections import Counter
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from encoders import chain
from keras import layers
from PIL import Image

import keras_adjoint as ka
from keras_adjoint.models.graph import layers_of, trace
from keras_adjoint.models.policy_names import NAMES
from keras_adjoint.report import inverses, samples
from keras_adjoint.report.facts import facts_about, short
from keras_adjoint.report.page import page_about, source_of
from keras_adjoint.report.policy_words import MEANS
from keras_adjoint.report.samples import InputFormat, input_format_of, samples_for
from keras_adjoint.testing.model import check_layer

pytestmark = pytest.mark.any_backend
EVIL = "<script>alert(1)<|script>&\"'"  # Keras refuses a slash
VOID = {"meta", "link", "img", "br", "input", "hr"}


def page(model, **options):
    examined = [(name, layer, check_layer(name, layer)) for name, layer in layers_of(model)]
    return page_about(facts_about(model, examined, **options))


class Read(HTMLParser):
    """A page as elements, each with its attributes, and as text; fails for elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def good_model():
    return chain(
        layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
        layers.MaxPooling2D(name="pool"),
        layers.SeparableConv2D(6, 2, name="separable"),
        layers.Flatten(name="flat"),
        layers.Dense(5, name="dense"),
        shape=(13, 11, 3),
    )


@pytest.fixture(scope="module")
def good():
    keras.utils.clear_session(free_memory=False)
    return Read(page(good_model(), file="model.keras"))


@pytest.fixture(scope="module")
def evil_text():
    image = keras.Input((8, 8, 3), name=f"{EVIL} image")
    features = layers.Conv2D(4, 3, name=EVIL)(image)
    features = layers.AutoContrast(name=f"{EVIL} contrast")(features)
    model = keras.Model(
        image, layers.Dense(2, name=f"{EVIL} dense")(features), name=f"<img src=x onerror=alert(2)>{EVIL}"
    )
    return page(model, file=f"{EVIL}.keras")


# --- what it says


@pytest.mark.every_backend
def test_it_shows_the_mirror_the_policies_and_the_kernels(good):
    text = good.text
    for words in (
        "of the linear part, tied; activation same, bias own",
        "pooling: spread",
        "3×3×3×4",
        "the default",
        "test of its adjoint passed",
        "residual of the adjoint",
        "test of the adjoint",
        "also where the mirror holds another layer by a policy",
    ):
        assert words in text
    assert "Every value is repeated over the window" in text
    assert "kernel, 3×3×3×4, and its transposes" in text and "depthwise_kernel, 2×2×4×1, and its transposes" in text
    for kind in ("conv_transpose", "conv", "flip", "swap_spatial", "swap_channels"):
        assert f"{kind} :" in text or f"{kind}:" in text.replace(" :", ":")
    assert "model.keras" in text and keras.backend.backend() in text


def test_figures_are_those_of_the_model(good):
    model = good_model()
    whole = ka.autoencoder(model)
    kernels = sum(int(np.prod(weight.shape)) for weight in model.weights if weight.name.endswith("kernel"))
    words = [word.strip() for word in good.words if word.strip()]
    figures = dict(zip(words, words[1:], strict=False))  # what is counted, then the number
    assert figures["parameters shared, not copied"] == str(kernels)
    assert figures["parameters of the mirror's own"] == str(whole.count_params() - model.count_params())
    assert figures["layers whose linear part is mirrored by its exact adjoint"] == "4 of 5"
    assert figures["adjoint tests passed"] == "5 of 5"


@pytest.mark.parametrize(
    "count, words",
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (3741, "3.74 k"),
        (999_999, "1 M"),
        (14_714_688, "14.7 M"),
        (2.5e9, "2.5 G"),
    ],
)
def test_large_counts_keep_three_digits(count, words):
    assert short(count) == words


def test_every_residual_is_there_with_its_tolerance(good):
    report = ka.check_adjoint(good_model().get_layer("conv"))
    assert f"≤ {report.tolerance:.1e}" in good.text


def test_choices_of_the_user_differ_from_defaults():
    text = Read(page(good_model(), policies={"pooling": "switches"})).text
    assert 'pooling="switches" , as you chose' in text and 'bias="own" , the default' in text
    text = Read(page(good_model(), policies={"bias": {"conv": "none", layers.Dense: "repeat"}})).text
    assert 'bias="repeat" , as you chose' in text and 'bias="own" , the default' in text
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        page(good_model(), policies={"pooling": "none"})


@pytest.mark.parametrize("policy, choice", [(policy, choice) for policy in NAMES for choice in NAMES[policy]])
def test_every_choice_of_every_policy_has_words(policy, choice):
    assert choice in MEANS[policy]


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: [layers.Conv1D(4, 5, strides=2), layers.MaxPooling1D()], (32, 2)),
        (lambda: [layers.Conv3D(4, 3, strides=2)], (9, 9, 9, 1)),
        (lambda: [layers.Dense(4)], (20,)),
        (lambda: [layers.DepthwiseConv2D(3), layers.Conv2DTranspose(2, 3, strides=2)], (None, None, 4)),
        (lambda: [layers.Embedding(7, 3), layers.Conv1D(2, 3)], (6,)),
    ],
    ids=["signals", "volumes", "vectors", "any size, four channels", "words"],
)
def test_it_works_for_every_rank(make, shape):
    read = Read(page(chain(*make(), shape=shape)))
    assert "test of its adjoint passed" in read.text
    assert len(read.all("img")) >= 1


def test_a_gap_is_reported_where_it_is_and_the_rest_is_shown():
    text = Read(page(chain(layers.Conv2D(4, 3, name="conv"), layers.AutoContrast(name="contrast")))).text
    assert "The mirror has a gap." in text and "has neither an adjoint nor a policy" in text
    assert "has neither an adjoint nor a policy for contrast" in text
    assert "exact, tied" in text and "kernel, 3×3×3×4, and its transposes" in text


def test_a_model_without_a_graph_still_has_its_layers_shown():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.conv = layers.Conv2D(4, 3, name="conv")

        def call(self, x):
            return self.conv(x)

    model = Own()
    model(np.zeros((1, 9, 9, 3)))
    text = Read(page(model)).text
    assert "This model has no mirror." in text and "its call is its own" in text
    assert "kernel, 3×3×3×4, and its transposes" in text and "test of its adjoint passed" in text


def test_a_failed_adjoint_test_is_reported():
    from test_cli import SwappedAdjointConv, autoencoder

    text = Read(page(autoencoder(SwappedAdjointConv))).text
    assert "test of its adjoint failed" in text and "H and W swapped" in text


def test_the_pseudo_inverse_stands_beside_the_adjoint():
    """A layer of more outputs than inputs lets everything through, and one of fewer does not."""
    model = chain(
        layers.Conv2D(9, 3, padding="same", name="all", bias_initializer="ones", activation="relu"),
        layers.Conv2D(2, 3, strides=2, padding="same", name="some"),
        shape=(12, 12, 3),
    )
    found = facts_about(model, [(name, layer, check_layer(name, layer)) for name, layer in layers_of(model)])
    unadjusted = {}
    for section in found.sections:
        given, adjoint, inverse = section.inverse.panels
        assert (given.title, adjoint.title, inverse.title) == ("what it takes", "adjoint", "pseudo-inverse")
        unadjusted[section.name] = [
            float(re.search(r"unadjusted (\S+) dB", panel.caption)[1].replace("−", "-")) for panel in (adjoint, inverse)
        ]
    assert unadjusted["all"][0] < 20 < 45 < unadjusted["all"][1]
    assert unadjusted["some"][0] < unadjusted["some"][1] < 30  # of all x with this y the smallest is not the right one
    read = Read(page_about(found))
    assert len([image for image in read.all("img") if image["alt"].startswith("The pseudo-inverse of what")]) == 2


def test_why_there_is_no_pseudo_inverse(monkeypatch):
    model = chain(layers.Conv2D(4, 3, name="one"), layers.Conv2D(4, 3, name="two"), shape=(12, 12, 3))

    def notes():
        return [section.inverse.note for section in facts_about(model, [*examined]).sections]

    examined = [(name, layer, check_layer(name, layer)) for name, layer in layers_of(model)]
    monkeypatch.setattr(inverses, "WORK", 1e3)
    assert all("takes long for this layer. `keras_adjoint.pinv(layer)`" in note for note in notes())
    monkeypatch.setattr(inverses, "WORK", 2 * 21 * 10**2 * 3**2 * 3 * 4)
    (section, _) = facts_about(model, [*examined]).sections
    assert section.inverse.panels[2].caption.endswith("dB, not converged after 21 steps")
    monkeypatch.setattr(inverses, "SECONDS", 0.0)
    assert all("the layers above took the time" in note for note in notes())
    monkeypatch.setattr(inverses, "SECONDS", 10.0)
    monkeypatch.setattr(inverses, "lstsq", lambda *given, **options: 1 / 0)
    assert notes() == ["Not computed: division by zero."] * 2
    kernel = np.array(keras.ops.convert_to_numpy(model.get_layer("one").kernel))
    kernel[0, 0, 0, 0] = np.nan
    model.get_layer("one").kernel.assign(kernel)
    assert notes()[0] == "Not computed: the layer has weights that are not finite."
    assert (
        "Not computed: the layer has weights that are not finite."
        in Read(page_about(facts_about(model, examined))).text
    )


# --- safety


def test_nothing_from_the_model_becomes_markup(evil_text):
    read = Read(evil_text)
    assert {tag for tag, _ in read.elements} <= {
        *("html", "head", "meta", "title", "link", "style", "body", "header", "nav", "main", "section", "footer"),
        *(
            "h1",
            "h2",
            "h3",
            "h4",
            "bdi",
            "p",
            "a",
            "ul",
            "li",
            "dl",
            "dt",
            "dd",
            "div",
            "span",
            "strong",
            "code",
            "figure",
            "figcaption",
        ),
        *("img", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
        *("svg", "g", "desc", "polyline", "circle", "rect", "text"),
    }
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/") for image in read.all("img"))
    assert f"<img src=x onerror=alert(2)>{EVIL}" in read.text
    assert EVIL in [attributes.get("aria-label", "").partition(", Conv2D")[0] for _, attributes in read.elements]


def test_the_page_loads_nothing_and_runs_nothing(good, evil_text):
    (policy,) = [meta["content"] for meta in good.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for read in (good, Read(evil_text)):
        for _, attributes in read.elements:
            for name in ("src", "href", "xlink:href", "action"):
                assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    style = source_of("style.css")
    assert "url(" not in style and "@import" not in style


def test_names_do_not_reorder_the_text_around_them():
    """Right-to-left letters in a name could reorder what follows, so each name is isolated."""
    backwards = "\u202esnap\u2067"
    model = chain(layers.Conv2D(4, 3, name=f"{backwards} conv"), layers.MaxPooling2D(name=f"{backwards} pool"))
    text = page(model, file=f"{backwards}.keras")
    for kind in ("conv", "pool"):
        assert text.count(f"<bdi>{backwards} {kind}</bdi>") >= 2  # in the table, and where it is described
    assert f"<bdi>{backwards}.keras</bdi>" in text
    style = source_of("style.css")
    assert re.search(r"\ncode \{[^}]*unicode-bidi: isolate", style)
    assert re.search(r"\.diagram text \{[^}]*unicode-bidi: isolate", style)


# --- structure


def test_links_lead_somewhere_and_names_are_unique(good):
    names = Counter(attributes["id"] for _, attributes in good.elements if "id" in attributes)
    assert set(names.values()) == {1}
    targets = {link["href"][1:] for link in good.all("a")}
    labels = {one for _, a in good.elements for one in a.get("aria-labelledby", "").split()}
    assert targets | labels <= set(names)
    assert {"main", "policies", "reconstructions", "kernels", "layers", "layer-1"} <= targets


def test_pictures_have_words_and_sizes_and_headings_do_not_skip(good):
    for image in good.all("img"):
        assert len(image["alt"]) > 10 and int(image["width"]) > 0 and int(image["height"]) > 0
    for svg in good.all("svg"):
        assert {"aria-label", "aria-labelledby", "aria-hidden"} & svg.keys()
    levels = [int(tag[1]) for tag, _ in good.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert [attributes["lang"] for attributes in good.all("html")] == ["en"]


def test_every_layer_with_kernels_is_a_heading(good):
    read = good.elements
    headings = [read[place + 1][0] for place, (tag, _) in enumerate(read) if tag == "summary"]
    assert headings == ["h3"] * len(good.all("details"))


def test_it_is_light():
    """Five megabytes for sixteen layers, as VGG16 has them, and three photographs."""
    model = chain(
        *(layers.Conv2D(64, 3, strides=1 + (n == 0), padding="same", name=f"conv{n}") for n in range(4)),
        shape=(224, 224, 3),
    )
    kernels, others = Counter(), Counter()
    for image in Read(page(model)).all("img"):
        (kernels if "kernel of" in image["alt"] else others)[image["alt"]] += len(image["src"])
    assert 16 / 4 * kernels.total() + others.total() < 4_000_000


# --- colours


def themes():
    """The variables of the style, as (theme, name: colour)."""
    style = source_of("style.css")
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{([^}]*)\}", style)]
    light, dark, printed = blocks
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **printed}}


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


BACKGROUNDS = {"ink": ("page", "raised", "tied-ground", "policy-ground", "broken-ground")}
BACKGROUNDS |= {"soft": BACKGROUNDS["ink"], "tied": ("page", "raised"), "broken": ("page", "raised")}
LINES = {"edge": ("page", "raised"), "tied": ("page", "tied-ground"), "policy": ("page", "policy-ground")}
LINES |= {"broken": ("page", "broken-ground")}


def test_contrast_is_computed_as_wcag_does():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_and_lines_have_enough_contrast(theme):
    colours = themes()[theme]
    for least, pairs in ((4.5, BACKGROUNDS), (3.0, LINES)):
        for front, backgrounds in pairs.items():
            for background in backgrounds:
                assert contrast(colours[front], colours[background]) >= least, (front, background)


def test_every_colour_of_the_style_is_a_variable_of_every_theme():
    style = source_of("style.css")
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    for theme in themes().values():
        assert used <= theme.keys()
    assert not re.findall(r"#[0-9a-f]{3,8}\b", re.sub(r"--[\w-]+: #\w{6};", "", style))


# --- samples


@pytest.mark.parametrize(
    "shape, data_format",
    [
        ((None, 16, 12, 3), "channels_last"),
        ((None, 16, 12, 1), "channels_last"),
        ((None, 3, 16, 12), "channels_first"),
        ((None, None, None, 3), "channels_last"),
    ],
)
def test_pictures_are_brought_to_the_size_and_range_that_the_model_takes(shape, data_format, tmp_path):
    Image.fromarray(np.full((30, 50, 3), 255, "uint8")).save(tmp_path / "white.png")
    (sample,) = samples_for(InputFormat(shape, (-1.0, 1.0), data_format), [tmp_path / "white.png"])
    assert all(size in (None, found) for size, found in zip(shape[1:], sample.values.shape, strict=True))
    assert sample.name == "white.png"
    np.testing.assert_allclose(sample.values, 1)


def test_the_range_is_that_of_pixels_where_the_model_scales_them_itself():
    assert input_format_of(trace(chain(layers.Rescaling(1 / 255), layers.Conv2D(2, 3)))).limits == (0, 255)
    assert input_format_of(trace(chain(layers.Conv2D(2, 3)))).limits == (0, 1)
    assert input_format_of(trace(chain(layers.Conv2D(2, 3))), (-1, 1)).limits == (-1, 1)


def test_files_that_are_no_pictures_and_models_that_take_none_are_named(tmp_path):
    file = tmp_path / "text.jpg"
    file.write_text("no picture")
    with pytest.raises(ValueError, match="text.jpg cannot be read as a picture"):
        page(good_model(), images=[file])
    with pytest.raises(ValueError, match=r"the model takes an input of shape \(None, 4\)"):
        page(chain(layers.Dense(3), shape=(4,)), images=[file])


def test_without_photographs_something_is_drawn(monkeypatch):
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda name: None)
    (sample,) = samples_for(InputFormat((None, 24, 24, 3), (0.0, 1.0)))
    assert "a drawing" in sample.name and sample.values.std() > 0.1


def test_two_inputs_are_not_shown_a_picture():
    one, two = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([one, two], layers.Add()([layers.Dense(3)(one), layers.Dense(3)(two)]))
    assert "the model has 2 inputs" in Read(page(model)).text


def test_of_a_long_signal_the_middle_is_drawn():
    """All of it would be a block of colour."""
    image = keras.Input((5000, 1))
    model = keras.Model(image, layers.Conv1D(2, 9, strides=4, name="conv")(image))
    (reconstruction,) = facts_about(model, []).reconstructions
    for panel in reconstruction.panels:
        assert panel.caption.endswith("positions 2,300 to 2,700 of 5,000")
        assert all(len(curve.split()) == 400 for curve in panel.curves)
