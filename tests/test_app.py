"""The page in a browser: `space/app.py` in a process of its own, and headless Chromium."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
from huggingface_hub import RepoCard
from safetensors.torch import load_file, save_file

from modeling_clir.convert import main as convert
from tests.conftest import REPOSITORY
from tests.helpers import run_here


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RESULT = "#results .hit"


@contextmanager
def serve(folder, *options, **environment):
    """Runs the page of a folder on a free port. Gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    command = [sys.executable, str(folder / "app.py"), "--port", str(port), *map(str, options)]
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder.parent, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
        else:
            raise AssertionError(f"no page within 2 minutes: {log.read_text()[-3000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def space(tiny_bert, tmp_path_factory):
    """Builds the folder of a Space with two models."""
    folder = tmp_path_factory.mktemp("space")
    names = ("one", "two")
    for name in names:
        assert convert([str(tiny_bert), str(folder / name)]) == 0
    weights = load_file(folder / "two" / "model.safetensors")
    save_file(
        weights | {"classifier.bias": weights["classifier.bias"] + 7},
        folder / "two" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, "scripts/build_space.py", folder / "built", "--models", *(folder / name for name in names))
    for name in names:
        shutil.rmtree(folder / name)
    return folder / "built"


def test_a_space_is_complete(space):
    assert json.loads((space / "models.json").read_text()) == ["models/one", "models/two"]
    for name in ("app.py", "requirements.txt", "modeling_clir/page.py", "modeling_clir/templates/model_card.md"):
        assert (space / name).is_file()
    assert (space / "sample/de.jsonl").is_file() and (space / "models/one/model.safetensors").is_file()
    assert not list(space.rglob("__pycache__"))
    data = RepoCard.load(space / "README.md", ignore_metadata_errors=False).data
    assert data.sdk == "gradio" and data.app_file == "app.py" and len(data.short_description) <= 60
    assert f"gradio=={data.sdk_version}" in (REPOSITORY / "constraints.txt").read_text()
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    core = re.findall('"(.*)"', re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1])
    assert (space / "requirements.txt").read_text().splitlines() == core


def test_mistakes_of_the_builder(space, tmp_path, mistake):
    models = space / "models"
    command = ("scripts/build_space.py", tmp_path / "o", "--models")
    assert "two of --models have the same name" in mistake(*command, models / "one", models / "one" / ".." / "one")
    assert "has no config.json" in mistake(*command, models)
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def page(space):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    # The package of the folder is used, not the repository's: `app.py` runs from there
    with serve(space) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.outside = []  # requests that leave the machine
        page.on(
            "request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else page.outside.append(r.url)
        )
        page.goto(address)
        page.wait_for_selector("#query textarea")
        yield page
        browser.close()


def answer(page, wait_for: str) -> str:
    """Presses the button and waits for an answer, which must differ from the answer before."""
    shown = "[...document.querySelectorAll('#results :is(.note, .hits, .problem)')].map(x => x.outerHTML).join('')"
    before = page.evaluate(shown)
    page.click("#rank")
    page.wait_for_function(f"before => {shown} != before && document.querySelector('#results {wait_for}')", arg=before)
    return "\n".join(page.locator("#results :is(.note, .hits, .problem)").all_inner_texts())


def test_a_query_is_ranked_against_the_sample_in_each_language(page, tmp_path):
    page.fill("#query textarea", "Was können Besucher im alten Schleusenwärterhaus sehen?")
    first = answer(page, ".hit")
    scores = [float(text) for text in page.locator("#results .score").all_inner_texts()]
    assert len(scores) == 37 and scores == sorted(scores, reverse=True)
    assert "Hollerbeck Lock" in first and page.locator("#results mark").count() > 3
    page.click("#language input")
    page.get_by_role("option", name="Español").click()
    assert "esclusa" in answer(page, ".hit") and page.locator(RESULT).count() == 37
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert not page.outside


def test_pasted_documents_and_texts_that_look_like_code(page):
    page.get_by_label("pasted").check()
    page.fill("#pasted textarea", "The tower was built. It is old.\n\n<img src=x onerror=alert(1)> A harbour.")
    shown = answer(page, ".hit")
    assert page.locator(RESULT).count() == 2 and "<img src=x onerror=alert(1)>" in shown
    assert page.locator("#results img").count() == 0
    page.get_by_label("Highlight").uncheck()
    page.get_by_label("the sample").check()
    answer(page, ".hit")
    assert page.locator("#results mark").count() == 0
    page.get_by_label("Highlight").check()


def test_uploaded_documents(page, tmp_path):
    (tmp_path / "docs.csv").write_text("id,text\n1,The tower.\n2,A harbour.\n3,The sea.\n", encoding="utf-8")
    page.get_by_label("uploaded").check()
    page.set_input_files("#upload input[type=file]", tmp_path / "docs.csv")
    page.wait_for_selector("#upload :text('docs')")
    answer(page, ".hit")
    assert page.locator(RESULT).count() == 3


def test_bad_input_gets_a_message_on_the_page(page, tmp_path):
    page.get_by_label("pasted").check()
    page.fill("#pasted textarea", "")
    assert answer(page, ".problem") == "There are no documents: paste some, upload a file, or choose the sample."
    page.fill("#query textarea", " ")
    assert answer(page, ".problem") == "Type a query first."
    page.fill("#query textarea", "tower")
    page.get_by_label("uploaded").check()
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n', encoding="utf-8")
    page.set_input_files("#upload input[type=file]", tmp_path / "bad.jsonl")
    page.wait_for_selector("#upload :text('bad')")
    assert answer(page, ".problem") == "bad.jsonl:2: the key 'text' is missing"
    assert page.locator("#results .hit").count() == 0
    page.get_by_label("the sample").check()
    answer(page, ".hit")


def test_the_model_is_chosen_and_described(page):
    before = float(page.locator("#results .score").first.inner_text())
    page.click("#about button")
    assert "one is a bertlong-xlr of 0.1M parameters" in page.inner_text("#about")
    page.click("#model input")
    page.get_by_role("option", name=re.compile("two")).click()
    page.wait_for_selector("#about :text('two')")
    answer(page, ".hit")
    assert float(page.locator("#results .score").first.inner_text()) == pytest.approx(before + 7, abs=0.011)


def test_an_example_fills_in_the_query(page):
    page.get_by_text("How does Hollerbeck Lock save water").first.click()
    page.wait_for_function("document.querySelector('#query textarea').value.startsWith('How does Hollerbeck')")


def test_a_phone_needs_no_scrolling_to_the_side(page):
    page.set_viewport_size({"width": 375, "height": 800})
    answer(page, ".hit")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('#results *')].map(x => x.getBoundingClientRect().right))"
    )
    assert widest <= 375


def test_mistakes_of_the_page(mistake):
    assert "nowhere/at/all" in mistake("space/app.py", "--models", "nowhere/at/all")
