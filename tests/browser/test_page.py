"""What a person sees and does on the page."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import credentials
import portraits
from bonaface.calibration import OperatingPoint
from bonaface.verdict import (
    Bands,
    FaceVerdict,
    Stability,
    judge_score,
    judge_whole,
    with_stability,
)
from served import encoded


def two_faces() -> bytes:
    """A bright one and a dark one: the tiny detector calls bright faces fake."""
    photo = portraits.group([(60, 60, 300), (480, 60, 300)], 420, 840).astype(float)
    photo[:, :420] = 165 + 0.35 * photo[:, :420]
    photo[:, 420:] = 0.4 * photo[:, 420:]
    return encoded(photo.astype(np.uint8), quality=95)


def drop(page: Any, name: str, data: bytes) -> None:
    """As if a file were dragged onto the page."""
    page.evaluate(
        """([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], name));
            const init = { dataTransfer: given, bubbles: true, cancelable: true };
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", init));
        }""",
        [name, base64.b64encode(data).decode()],
    )


def words(page: Any) -> list[str]:
    return [one.text_content().split()[-1] for one in page.query_selector_all(".box")]


def slide(page: Any, value: float) -> None:
    page.locator("#prevalence").fill(str(value))


def test_two_faces_get_two_boxes_and_verdicts(page: Any) -> None:
    drop(page, "group.jpg", two_faces())
    page.wait_for_selector("#box-2")
    assert sorted(words(page)) == ["Fake", "Real"]
    assert len(page.query_selector_all("article.card")) == 2
    assert page.inner_text("#result-title") == "Looks fake"
    assert "2 faces: 1 fake, 1 real." in page.inner_text("#result")
    image, boxes = page.query_selector(".frame img").bounding_box(), []
    for box in page.query_selector_all(".box"):
        found = box.bounding_box()
        boxes.append((found["x"] - image["x"]) / image["width"])
        assert 0 <= boxes[-1] < 1
        assert found["height"] > 20
    assert abs(boxes[0] - boxes[1]) > 0.3  # one in each half
    assert page.locator("#past li").count() == 1


def test_a_text_file_is_told_so(page: Any) -> None:
    drop(page, "note.txt", b"hello")
    page.wait_for_selector("#messages .note")
    said = page.inner_text("#messages")
    assert "note.txt: this is no picture that can be read (not an image)" in said
    assert "JPEG" in said
    assert not page.is_visible("#result")
    page.click("text=Dismiss")
    assert page.inner_text("#messages") == ""


def test_the_slider_changes_a_verdict(page: Any) -> None:
    drop(page, "group.jpg", two_faces())
    page.wait_for_selector("#box-2")
    before = page.locator(".posterior").all_inner_texts()
    slide(page, -4.6)
    assert page.inner_text("#prevalence-says") == "1 in 100"
    assert sorted(words(page)) == ["Real", "Unsure"]
    assert page.inner_text("#result-title") == "Unsure"
    assert page.locator(".posterior").all_inner_texts() != before
    slide(page, 4.6)
    assert sorted(words(page)) == ["Fake", "Unsure"]
    slide(page, 0)
    assert sorted(words(page)) == ["Fake", "Real"]
    assert page.locator(".posterior").all_inner_texts() == before


def test_content_credentials_have_a_box_of_their_own(page: Any) -> None:
    for name, data, said in (
        ("signed.jpg", credentials.signed(two_faces()), "Signed, and unchanged since"),
        ("changed.jpg", credentials.tampered(credentials.signed(two_faces())), "They do not hold"),
        ("plain.jpg", two_faces(), "None in this file"),
    ):
        drop(page, name, data)
        page.wait_for_selector(f".credentials >> text={said}")
        assert page.inner_text("#result-title") == "Looks fake"
        box = page.inner_text(".credentials")
        assert "no part of the verdict" in box
        assert ("Test Signer" in box) == (name != "plain.jpg")
        assert ("Do not rely on what they say" in box) == (name == "changed.jpg")
    assert "says nothing" in page.inner_text(".credentials")


def test_the_keyboard_is_enough(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "group.jpg"
    path.write_bytes(two_faces())

    def go(to: str) -> None:
        for _ in range(40):
            if page.evaluate("document.activeElement.id") == to:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{to} is not reached")

    # On a busy machine the key may come before the browser gives its file chooser to the test, so
    # that is asked for well before.
    page.on("filechooser", lambda _: None)
    go("pick")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(path))
    page.wait_for_selector("#box-2")
    assert page.evaluate("document.activeElement.id") == "result-title"  # read out, then go on
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "heat"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className").startswith("box")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id").startswith("part-")
    go("json-summary")
    page.keyboard.press("Enter")
    assert page.is_visible("#json-text")
    go("past-0")
    page.locator("#prevalence").focus()
    for _ in range(46):
        page.keyboard.press("ArrowLeft")
    assert sorted(words(page)) == ["Real", "Unsure"]
    assert page.get_attribute("#prevalence", "aria-valuetext") == "1 in 100 is fake"
    assert page.is_visible("#json-text")  # still open


def test_where_the_network_looked_is_drawn_when_asked_for(page: Any) -> None:
    drop(page, "group.jpg", two_faces())
    page.wait_for_selector("#box-2")
    assert page.locator(".map").count() == 0
    toggle = page.locator("#heat")
    assert toggle.get_attribute("aria-pressed") == "false"
    toggle.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".map >> nth=1")
    assert toggle.get_attribute("aria-pressed") == "true"
    assert "where the network looked, not what was forged" in page.inner_text("#heat-says")
    face, heat = (page.locator(name).first.bounding_box() for name in (".box", ".map"))
    assert heat["x"] < face["x"] + face["width"] / 2 < heat["x"] + heat["width"]
    assert heat["width"] == pytest.approx(heat["height"], rel=0.05)
    inked = "(one) => Math.max(...one.getContext('2d').getImageData(0, 0, 16, 16).data)"
    assert page.locator(".map").first.evaluate(inked) > 100
    assert "most for" in page.locator(".map").first.get_attribute("aria-label")
    page.click("#json-summary")
    verdict = json.loads(page.inner_text("#json-text"))
    assert [found["number"] for found in verdict["explanation"]["maps"]] == [1, 2]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    toggle.click()
    assert page.locator(".map").count() == 0
    toggle.click()
    assert page.locator(".map").count() == 2
    assert [url for url in asked if "/v1/" in url] == []  # not asked for again
    page.locator(".box").first.click()  # the map lies under nothing that could be clicked
    assert page.evaluate("document.activeElement.id").startswith("part-")


def test_stability_history_and_json(page: Any) -> None:
    page.check("#stability")
    drop(page, "one.jpg", two_faces())
    page.wait_for_selector("#box-2")
    assert page.locator(".range").count() == 2
    assert "Re-saved, shrunk or sent on:" in page.inner_text("#said")
    drop(page, "two.png", encoded(portraits.portrait(), "PNG"))
    page.wait_for_selector("#past-1")
    assert page.locator(".box").count() == 1
    page.click("#past-1")
    assert page.locator(".box").count() == 2
    page.click("#json-summary")
    verdict = json.loads(page.inner_text("#json-text"))
    assert (verdict["path"], len(verdict["faces"])) == ("one.jpg", 2)
    page.click("#forget")
    assert not page.is_visible("#result")
    assert not page.is_visible("#history")


def test_no_face_can_be_judged_as_a_whole(page: Any) -> None:
    drop(page, "flat.png", encoded(np.full((200, 300, 3), 250, np.uint8), "PNG"))
    page.click("#whole")
    page.wait_for_selector("article.card")
    assert page.inner_text("#result-title") == "Looks fake"
    assert page.locator("#past li").count() == 1


def test_a_clip_shows_its_people_over_time(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, (320, 320))
    for _ in range(6):
        writer.write(cv2.cvtColor(portraits.scaled(0.625), cv2.COLOR_RGB2BGR))
    writer.release()
    drop(page, "clip.mp4", path.read_bytes())
    page.wait_for_selector("svg.line")
    assert "Person 1" in page.inner_text("#said")


def test_the_camera_takes_a_picture(page: Any) -> None:
    page.click("#camera")
    page.wait_for_selector("#camera-dialog[open]")
    while not page.evaluate("document.getElementById('live').videoWidth"):
        page.wait_for_timeout(50)
    page.click("#shoot")
    page.wait_for_selector("#past-0")
    assert "camera.png" in page.inner_text("#result")


def test_a_key_is_asked_for(browser: Any, urls: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(urls["keyed"])
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-wrong:not(:empty)")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#figures:not(:empty)")
    drop(page, "group.jpg", two_faces())
    page.wait_for_selector("#box-2")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_violation(page: Any, scheme: Any, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.check("#stability")
    drop(page, "group.jpg", two_faces())
    page.wait_for_selector("#box-2")
    drop(page, "note.txt", b"hello")
    page.wait_for_selector("#messages .note")
    page.click("#json-summary")
    page.click("#heat")
    page.wait_for_selector(".map")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)


def test_the_page_loads_nothing_from_elsewhere(browser: Any, urls: dict[str, str]) -> None:
    page = browser.new_page()
    asked: list[str] = []
    size = 0
    page.on("request", lambda request: asked.append(request.url))
    page.goto(urls["open"])
    page.wait_for_selector("#figures:not(:empty)")
    for url in asked:
        assert url.startswith(urls["open"]), url
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        size += len(page.request.get(urls["open"] + path).body())
    assert size < 150_000
    page.close()


def test_its_rules_are_those_of_the_product(page: Any) -> None:
    """`judgePart` and `judgeWhole` of the page against `verdict`, on thresholds and scores."""
    rng = random.Random(0)
    edges = [0.0, 1e-9, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]
    cases, expected = [], []
    for _ in range(400):
        real, fake = sorted([rng.choice(edges), rng.random()])
        fake = 1.5 if rng.random() < 0.1 else fake
        prevalence = rng.choice([0.5, 0.01, 0.99, rng.uniform(0.001, 0.999)])
        doubt = "no better than chance" if rng.random() < 0.1 else None
        points = [OperatingPoint("p", at, "", 0.0, 0.0, 1, 1) for at in (fake, real)]
        bands = Bands.at(prevalence, fake, real)
        parts, faces = [], []
        for number in range(rng.randrange(1, 4)):
            score = rng.choice([*edges, fake if fake <= 1 else 1.0, real, rng.random()])
            delivered = {"a": rng.choice([score, rng.random()]), "b": score}
            stability = Stability.of(score, delivered, bands) if rng.random() < 0.5 else None
            judged = judge_score(score, bands, (points[0], points[1]), doubt)
            judged = with_stability(judged, stability)
            faces.append(
                FaceVerdict(number, judged.answer, "", score, judged.posterior, None, (), None,
                            stability)
            )  # fmt: skip
            scores = {"stability": {"scores": delivered} if stability else None}
            parts.append({"score": score, "reason": "", **scores})
        model = {"fake_above": {"threshold": fake}, "real_below": {"threshold": real}}
        cases.append([parts, prevalence, model | {"doubt": doubt}])
        answers = [[face.answer, face.posterior] for face in faces]
        expected.append([answers, judge_whole(faces, "face").answer])
    found = page.evaluate(
        """(cases) => cases.map(([parts, prevalence, model]) => {
            const bands = bandsAt(prevalence, model);
            const judged = parts.map((part) => judgePart(part, bands, model));
            const chance = (at) => moved(parts[at].score, prevalence);
            return [judged.map((one, at) => [one.answer, chance(at)]), judgeWhole(judged)];
        })""",
        cases,
    )
    assert json.loads(json.dumps(found)) == expected
