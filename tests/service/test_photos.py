"""Pictures in, verdicts out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

import credentials
import portraits
from bonaface.faces import Face, open_finder
from served import encoded, photo

Start = Callable[..., TestClient]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/verdict.schema.json").read_text())


def test_a_photo_is_answered_by_the_published_schema(client: Start) -> None:
    answer = client(finder=open_finder()).post("/v1/detect", files={"file": ("a.jpg", photo())})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    jsonschema.validate(answer.json(), SCHEMA)
    (verdict,) = answer.json()
    assert verdict["path"] == "a.jpg"
    assert portraits.overlap(verdict["faces"][0]["box"], portraits.BOX) > 0.6


def test_files_are_answered_in_their_order(client: Start) -> None:
    files = [
        ("file", (f"{at}.png", encoded(np.full((40 + at, 40, 3), 36 * at, np.uint8), "PNG")))
        for at in range(8)
    ]
    found = client().post("/v1/detect?faces=none", files=files).json()
    assert [one["path"] for one in found] == [f"{at}.png" for at in range(8)]
    assert [one["height"] for one in found] == [40 + at for at in range(8)]
    scores = [one["score"] for one in found]
    assert scores == sorted(scores)
    assert scores[0] < 0.3 < 0.6 < scores[-1]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", None])
def test_raw_bytes_are_a_picture(client: Start, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    (verdict,) = client().post("/v1/detect", content=photo(), headers=headers).json()
    assert (verdict["kind"], verdict["path"]) == ("photo", "upload")


def test_options_reach_the_detector(client: Start) -> None:
    one = client()
    address = "/v1/detect?stability=true&prevalence=0.01&faces=none"
    (verdict,) = one.post(address, content=photo()).json()
    assert verdict["bands"]["prevalence"] == 0.01
    assert verdict["faces"][0]["box"] is None
    assert set(verdict["faces"][0]["stability"]["scores"]) > {"JPEG 70", "messenger"}
    (verdict,) = one.post("/v1/detect", content=photo()).json()
    assert verdict["faces"][0]["stability"] is None
    assert verdict["bands"]["prevalence"] == 0.5


class TwoFaces:
    """A small face at the left and a large one at the right."""

    name = "two faces"

    def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
        right = Face((200.0, 40.0, 300.0, 140.0), (), 0.9)
        return (right, Face((20.0, 60.0, 100.0, 140.0), (), 0.9), Face((0, 0, 9.0, 9.0), (), 0.9))


def half_bright() -> np.ndarray:
    """The tiny detector calls bright faces fake: what is bright in the large face speaks for it."""
    pixels = np.full((240, 320, 3), 60, np.uint8)
    pixels[:, 250:] = 250
    return pixels


def test_where_it_looked_is_answered_where_asked_for(client: Start) -> None:
    one = client(finder=TwoFaces())
    picture = encoded(half_bright(), "PNG")
    (plain,) = one.post("/v1/detect", content=picture).json()
    assert plain["explanation"] is None
    (verdict,) = one.post("/v1/detect?explanation=true", content=picture).json()
    jsonschema.validate([verdict], SCHEMA)
    looked = verdict.pop("explanation")
    assert {**plain, "explanation": None} == {**verdict, "explanation": None}
    assert looked["meaning"] == "A heat map shows where the network looked, not what was forged."
    assert [found["number"] for found in looked["maps"]] == [1, 2]  # the third is too small
    large, small = looked["maps"]
    left, top, right, bottom = large["square"]
    assert (right - left, bottom - top) == (130, 130)  # margin 1.3
    assert left <= 200 < 300 <= right
    values = np.array(large["values"])
    assert values.shape == (16, 16)
    assert values[:, 12:].mean() > 0 > values[:, :4].mean()
    assert np.abs(small["values"]).max() < 1e-6  # nothing differs there


def test_the_cost_of_looking_is_bounded(client: Start) -> None:
    class Many(TwoFaces):
        def find(self, pixels: np.ndarray) -> tuple[Face, ...]:
            return tuple(Face((at, at, at + 90.0, at + 90.0), (), 0.9) for at in range(9))

    one = client(finder=Many())
    scored: list[int] = []
    batcher = one.app.state.core._batcher  # type: ignore[attr-defined]
    logits = batcher._logits
    batcher._logits = lambda crops: (scored.append(len(crops)), logits(crops))[1]
    (verdict,) = one.post("/v1/detect?explanation=true", content=photo()).json()
    assert (len(verdict["explanation"]["maps"]), verdict["explanation"]["left_out"]) == (4, 5)
    assert sum(scored) == 9 + 4 * 50
    assert max(scored) <= 16
    files = [("file", ("a.jpg", photo()))] * 2
    answer = one.post("/v1/detect?explanation=true", files=files)
    assert answer.status_code == 422
    assert "one picture" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"hello", encoded(np.zeros((99, 99, 3), np.uint8), "PNG")])
def test_what_is_not_judged_has_no_map(client: Start, body: bytes) -> None:
    (verdict,) = (
        client(finder=open_finder()).post("/v1/detect?explanation=true", content=body).json()
    )
    assert (verdict["answer"], verdict["explanation"]) == ("not_applicable", None)


def test_a_whole_picture_is_looked_at_in_its_middle(client: Start) -> None:
    picture = encoded(np.full((100, 160, 3), 90, np.uint8), "PNG")
    address = "/v1/detect?explanation=true&faces=none"
    (verdict,) = client().post(address, content=picture).json()
    assert verdict["explanation"]["maps"][0]["square"] == [30, 0, 130, 100]


def test_what_cannot_be_read_is_said_and_spoils_nothing(client: Start) -> None:
    files = [("f", ("note.txt", b"hello")), ("f", ("a.jpg", photo()[:999])), ("f", ("b", photo()))]
    answer = client().post("/v1/detect", files=files)
    assert answer.status_code == 200
    assert [one["kind"] for one in answer.json()] == [None, None, "photo"]
    assert [one["reason"] for one in answer.json()[:2]] == ["not an image", "truncated"]


def test_too_many_pixels_are_refused_before_they_are_decoded(client: Start) -> None:
    bomb = encoded(np.zeros((2000, 2000, 3), np.uint8), "PNG")
    (verdict,) = client(max_pixels=1_000_000).post("/v1/detect", content=bomb).json()
    assert verdict["answer"] == "not_applicable"
    assert verdict["reason"].startswith("more than 1 megapixels")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("prevalence=2", "prevalence"),
        ("prevalence=nan", "prevalence"),
        ("faces=some", "faces"),
        ("stability=perhaps", "stability"),
        ("explain=1", "explain"),
        ("explanation=perhaps", "explanation"),
    ],
)
def test_a_wrong_option_is_a_problem(client: Start, query: str, named: str) -> None:
    answer = client().post(f"/v1/detect?{query}", content=photo())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_nothing_is_kept_unless_asked_for(client: Start, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    one = client(keep=folder)
    assert one.get("/v1/model").json()["keeps_uploads"] is True
    one.post("/v1/detect", files={"file": ("../../evil.jpg", photo())})
    kept = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert [path.suffix for path in kept] == [".jpg", ".json"]
    assert kept[0].read_bytes() == photo()
    assert json.loads(kept[1].read_text())["path"] == "evil.jpg"
    assert client().get("/v1/model").json()["keeps_uploads"] is False


def test_a_clip_is_sent_elsewhere(client: Start) -> None:
    clip = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(100)
    answer = client().post("/v1/detect", content=clip)
    assert answer.status_code == 415
    assert "/v1/detect/video" in answer.json()["detail"]


def test_content_credentials_stand_beside_the_verdict(client: Start) -> None:
    plain = credentials.picture()
    files = [
        ("file", (name, data))
        for name, data in (
            ("plain.jpg", plain),
            ("signed.jpg", credentials.signed(plain)),
            ("changed.jpg", credentials.tampered(credentials.signed(plain))),
        )
    ]
    answer = client().post("/v1/detect?faces=none", files=files)
    jsonschema.validate(answer.json(), SCHEMA)
    states = [one["provenance"]["state"] for one in answer.json()]
    assert states == ["absent", "valid", "invalid"]
    assert len({(one["answer"], one["score"]) for one in answer.json()}) == 1
