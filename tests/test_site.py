"""The site builds without a warning and without a network, and no link in it leads nowhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

import keras_adjoint as ka
from keras_adjoint_cli.app import app

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "guides").glob("*.py"))
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src"}

pytestmark = pytest.mark.only_on("jax")  # `make docs` runs on JAX


class Page(HTMLParser):
    """What a page is made of: (tag, link) pairs, and the anchors that links may lead to."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors, self.images_without_words = [], {"", "top"}, []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.anchors.add(known.get("id") or "")
        if known.get(LINKS.get(tag)):
            self.links.append((tag, known[LINKS[tag]]))
        if tag == "img" and not known.get("alt"):
            self.images_without_words.append(known.get("src"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the site, built from a copy of the sources, the guides not run."""
    folder = tmp_path_factory.mktemp("site")
    for name, made in (("docs", ("build", "guides")), ("guides", ("__pycache__",))):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*made))
    for name in ("CHANGELOG.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    options = ["-W", "-n", "-q", "-D", "nb_execution_mode=off", str(folder / "docs"), str(folder / "html")]
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", *options],
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def test_every_document_is_a_page(site, pages):
    documents = [file.relative_to(ROOT / "docs") for file in (ROOT / "docs").glob("**/*.md")]
    wanted = {str(file.with_suffix(".html")) for file in documents if file.parts[0] not in ("build", "guides", "speed")}
    wanted |= {f"guides/{guide.stem}.html" for guide in GUIDES}
    assert wanted <= {file.relative_to(site).as_posix() for file in pages}


def test_links_inside_the_site_lead_to_files_and_anchors(site, pages):
    lost = []
    for file, page in pages.items():
        for _, link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            fragment = unquote(parts.fragment)
            if not target.exists() or (target in pages and fragment not in pages[target].anchors):
                lost.append(f"{file.relative_to(site)}: {link}")
    assert not lost


def test_pages_load_nothing_from_elsewhere(pages):
    loaded = {link for page in pages.values() for tag, link in page.links if tag != "a"}
    assert loaded and not [link for link in loaded if urlsplit(link).netloc]


def test_pictures_have_words(pages):
    assert not [source for page in pages.values() for source in page.images_without_words]


def test_the_reference_has_a_place_for_every_public_name(site, pages):
    assert {f"keras_adjoint.{name}" for name in ka.__all__} <= pages[site / "reference.html"].anchors


def test_the_page_of_the_command_line_has_every_subcommand(site, pages):
    page, commands = site / "command_line.html", get_command(app).commands
    assert {f"keras-adjoint-{name}" for name in commands} <= pages[page].anchors
    options = {
        option for command in commands.values() for one in command.params for option in one.opts if option[:2] == "--"
    }
    text = re.sub("<[^>]+>", "", page.read_text(encoding="utf-8"))
    assert not [option for option in options if option not in text]


def test_pages_say_the_version_and_link_to_their_sources(site, pages):
    assert f"keras-adjoint {ka.__version__}" in (site / "index.html").read_text(encoding="utf-8")
    begin = "https://github.com/keras-adjoint/keras-adjoint/blob/main/"
    sources = {
        file.relative_to(site).as_posix(): {
            link for _, link in page.links if link.startswith(begin) and "?plain" in link
        }
        for file, page in pages.items()
    }
    assert sources["how/ties.html"] == {f"{begin}docs/how/ties.md?plain=true"}
    assert sources["guides/autoencoder.html"] == {f"{begin}guides/autoencoder.py?plain=true"}
    found = {urlsplit(link.removeprefix(begin)).path for links in sources.values() for link in links}
    assert not [name for name in found if not (ROOT / name).exists()]


def test_the_gallery_has_every_picture(site):
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    pictures = [
        *(ROOT / "docs").glob("*.png"),
        *(ROOT / "docs").glob("*.svg"),
        *(ROOT / "docs" / "drawings").glob("*.svg"),
    ]
    assert not [file.name for file in pictures if file.relative_to(ROOT / "docs").as_posix() not in gallery]


def test_code_has_copy_buttons_and_the_citation_its_entry(site):
    assert "copybutton.js" in (site / "index.html").read_text(encoding="utf-8")
    assert f"version = {{{ka.__version__}}}" in (site / "cite.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guides_can_be_downloaded(site, guide):
    found = {file.suffix: file for file in (site / "_downloads").rglob(f"{guide.stem}.*") if file.suffix != ".png"}
    assert found.keys() == {".py", ".ipynb"}
    assert found[".py"].read_text(encoding="utf-8") == guide.read_text(encoding="utf-8")
