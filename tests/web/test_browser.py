"""The page in a real browser, Chromium; without one, these tests are skipped."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.test_uploads import write_bomb
from tests.web.tiny_models import write_image

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install it")
pytest.importorskip("gradio", reason="needs Gradio: pip install -e '.[web]'")

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 30


@dataclass
class Server:
    """A running ``tools/web.py``."""

    url: str
    log: Path

    def runs(self) -> int:
        """How often a model has run."""
        return len(re.findall(r" ran on ", self.log.read_text()))

    def status(self, path: str, method: str = "GET") -> int:
        """The status of a request for a path."""
        try:
            request = urllib.request.Request(f"{self.url}{path}", method=method)
            return urllib.request.urlopen(request, timeout=SECONDS).status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def server(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "tools/web.py", "--port", str(port)]
    for name in ("panoptic", "denoising"):
        command += ["--model", str(runs / name)]
    command += ["--max-megabytes", "1", "--max-megapixels", "0.01"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(log.parent)}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + SECONDS
        while "the page is at" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(SECONDS)
    assert not list(log.parent.glob("ddep-web-*")), "uploads were left behind"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("needs a browser (Debian, Ubuntu: apt install chromium)")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, server: Server) -> Iterator:
    """A visitor of their own, who has opened the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(SECONDS * 1000)
    requests: list[str] = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(server.url)
    opened.wait_for_selector("#upload input[type=file]", state="attached")
    yield opened
    context.close()
    hosts = {urllib.parse.urlsplit(url).netloc for url in requests} - {""}
    assert hosts == {urllib.parse.urlsplit(server.url).netloc}


def send(page, path: Path) -> None:
    page.set_input_files("#upload input[type=file]", str(path))


def picture(page) -> bytes:
    """The picture on the page."""
    source = page.get_attribute("#picture img", "src")
    return page.request.get(source).body()


def wait_for_another_picture(page, before: bytes) -> bytes:
    deadline = time.monotonic() + SECONDS
    while (now := picture(page)) == before:
        assert time.monotonic() < deadline, "the picture has not changed"
        page.wait_for_timeout(50)
    return now


def message(page) -> str:
    return page.inner_text("#message").strip()


def test_upload_legend_slider_click_and_download(page, server: Server, tmp_path: Path) -> None:
    send(page, write_image(tmp_path / "photograph.png"))
    page.wait_for_selector("#picture img")
    assert re.fullmatch(r"photograph\.png, 60x40: [1-9]\d* segments?", message(page))
    ran = server.runs()

    boxes = page.locator("#legend label")
    names = [text.split(",")[0].split(" ×")[0] for text in boxes.all_inner_texts()]
    assert names and set(names) <= {
        *("disc", "square", "triangle", "star", "sky", "water", "grass", "stones")
    }
    first = picture(page)
    boxes.first.click()
    without = wait_for_another_picture(page, first)
    boxes.first.click()
    assert wait_for_another_picture(page, without) == first

    width, height = Image.open(tmp_path / "photograph.png").size
    box = page.locator("#picture img").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.02)
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector("#scores")
    page.wait_for_selector("#attention img")
    assert re.search(r"% of the image, score 0\.\d\d; scores of query \d", message(page))
    selected = wait_for_another_picture(page, first)

    page.fill("#mask-threshold input[type=number]", "1")
    page.press("#mask-threshold input[type=number]", "Tab")
    wait_for_another_picture(page, selected)
    assert message(page) == "photograph.png, 60x40: 0 segments"
    assert boxes.count() == 0
    page.fill("#mask-threshold input[type=number]", "0.05")
    page.press("#mask-threshold input[type=number]", "Tab")
    page.wait_for_function("document.querySelectorAll('#legend label').length > 0")
    page.get_by_role("radio", name="instances").click()
    page.wait_for_selector("#min-score")
    assert server.runs() == ran, "a setting ran the model again"

    page.click("#save")
    page.wait_for_selector("#files a[download]")
    links = page.locator("#files a[download]")
    with page.expect_download() as download:
        links.last.click()
    assert download.value.suggested_filename == "photograph_semantic.png"
    assert Image.open(download.value.path()).size == (60, 40)


def test_a_click_finds_the_pixel_under_it(page, tmp_path: Path) -> None:
    send(page, write_image(tmp_path / "a.png", (90, 30)))
    page.wait_for_selector("#picture img")
    page.get_by_role("radio", name="semantic").click()
    page.wait_for_selector("#mask-threshold", state="hidden")
    box = page.locator("#picture img").bounding_box()
    page.click("#save")
    page.wait_for_selector("#files a[download]")
    source = page.locator("#files a[download]").last.get_attribute("href")
    (tmp_path / "semantic.png").write_bytes(page.request.get(source).body())
    classes = np.asarray(Image.open(tmp_path / "semantic.png"))
    names = ("disc", "square", "triangle", "star", "sky", "water", "grass", "stones")
    for row, column in ((3, 3), (26, 4), (15, 45), (4, 85), (25, 70)):
        page.mouse.click(
            box["x"] + (column + 0.5) / 90 * box["width"],
            box["y"] + (row + 0.5) / 30 * box["height"],
        )
        expected = names[classes[row, column]]
        page.wait_for_function(
            "text => document.querySelector('#message').innerText.trim().startsWith(text)",
            arg=f"{expected}, ",
        )


def test_examples_models_and_the_triptych(page, server: Server) -> None:
    page.locator("#examples button").first.click()
    page.wait_for_selector("#picture img")
    assert "48x48" in message(page)
    page.click("#model input")
    page.get_by_role("option", name="denoising").click()
    page.wait_for_selector("#denoised img")
    page.wait_for_selector("#picture", state="hidden")
    before = message(page)
    assert re.search(r"PSNR [\d.-]+ dB with the noise, [\d.-]+ dB denoised", before)
    page.fill("#sigma input[type=number]", "1.5")
    page.press("#sigma input[type=number]", "Tab")
    page.wait_for_function(
        "text => !document.querySelector('#message').innerText.includes(text)",
        arg=before.split(" with")[0],
    )
    noisier = float(re.search(r"PSNR ([\d.-]+)", message(page))[1])
    assert noisier < float(re.search(r"PSNR ([\d.-]+)", before)[1])


def test_a_decompression_bomb_is_refused_in_one_line(page, tmp_path: Path) -> None:
    send(page, write_bomb(tmp_path / "bomb.png", 20000, 20000))
    page.wait_for_selector("#message [role=alert]")
    assert re.fullmatch(r"bomb\.png has .* megapixels.*; send a smaller one", message(page))


def test_files_that_are_too_large_are_refused_by_page_and_server(
    page, server: Server, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20
    send(page, tmp_path / "large.png")
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    content = {"name": "a.png", "mimeType": "image/png", "buffer": bytes(2**20 + 1)}
    answer = page.request.post(f"{server.url}/gradio_api/upload", multipart={"files": content})
    assert answer.status == 413


def test_visitors_do_not_see_each_others_images(
    browser, page, server: Server, tmp_path: Path
) -> None:
    send(page, write_image(tmp_path / "mine.png"))
    page.wait_for_selector("#picture img")
    context = browser.new_context()
    other = context.new_page()
    other.goto(server.url)
    other.wait_for_selector("#upload input[type=file]", state="attached")
    assert other.locator("#picture img").count() == 0 and "mine" not in other.content()
    send(other, write_image(tmp_path / "theirs.png", (30, 50)))
    other.wait_for_selector("#picture img")
    mine = picture(page)
    page.locator("#legend label").first.click()
    wait_for_another_picture(page, mine)
    assert message(page).startswith("mine.png") and message(other).startswith("theirs.png")
    context.close()


def test_the_page_fits_a_phone(browser, server: Server, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    phone = context.new_page()
    phone.goto(server.url)
    phone.wait_for_selector("#upload input[type=file]", state="attached")
    send(phone, write_image(tmp_path / "a.png"))
    phone.wait_for_selector("#picture img")
    phone.wait_for_selector("#legend label")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    for element in ("#picture img", "#legend", "#mask-threshold"):
        box = phone.locator(element).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    context.close()


def test_no_file_of_the_server_can_be_read(server: Server, runs: Path) -> None:
    assert server.status("/") == 200
    weights = runs / "panoptic" / "model_final.pth"
    assert weights.is_file()
    for path in ("/etc/passwd", weights, ROOT / "README.md", f"{server.log.parent}/../log.txt"):
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
            assert server.status(f"{prefix}{path}") in (403, 404)


def test_the_server_fetches_nothing_for_visitors(server: Server) -> None:
    for url in ("http://127.0.0.1:1/", "https://example.com/a.png", "//example.com/"):
        for prefix in ("/gradio_api/file=", "/gradio_api/proxy="):
            assert server.status(f"{prefix}{url}") == 403
