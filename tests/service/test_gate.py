"""Who may come in, and what every answer carries."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bonaface.errors import ConfigError
from bonaface.service.gate import Rates
from bonaface.service.keys import VARIABLE, hash_of, name_of, new_key, read_keys
from bonaface.service.problems import Problem
from bonaface.service.run import Serving, check, is_loopback
from bonaface.service.settings import Settings
from served import photo

Start = Callable[..., TestClient]
KEY = new_key()
KEYED = {"keys": {hash_of(KEY): "desk"}, "hosts": None}
EVERY = ("/", "/page.js", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json", "/nope")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("given", [bearer("wrong"), bearer(""), {"authorization": f"Basic {KEY}"}])
def test_with_a_wrong_key_there_is_nothing_but_401(client: Start, given: dict[str, str]) -> None:
    one = client(**KEYED)
    for path in EVERY:
        assert one.get(path, headers=given).status_code == 401, path
    for path in ("/v1/detect", "/v1/detect/video"):
        answer = one.post(path, headers=given, content=photo())
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text
    assert one.delete("/v1/jobs/1", headers=given).status_code == 401


def test_without_a_key_only_the_page_and_the_health_are_there(client: Start) -> None:
    one = client(**KEYED)
    found = {path: one.get(path).status_code for path in EVERY}
    opened = {"/", "/page.js", "/healthz", "/readyz"}
    assert found == {path: 200 if path in opened else 401 for path in EVERY}


def test_with_the_key_all_is_there_under_any_name(client: Start) -> None:
    one = client(**KEYED)
    one.base_url = "http://detector.example"
    assert one.get("/v1/model", headers=bearer(KEY)).status_code == 200
    assert one.post("/v1/detect", headers=bearer(KEY), content=photo()).status_code == 200


def test_jobs_belong_to_a_key(client: Start) -> None:
    other = new_key()
    one = client(keys={hash_of(KEY): "desk", hash_of(other): "lab"}, hosts=None)
    job = one.app.state.clips.jobs.new("desk")  # type: ignore[attr-defined]
    assert one.get(f"/v1/jobs/{job.id}", headers=bearer(KEY)).status_code == 200
    assert one.get(f"/v1/jobs/{job.id}", headers=bearer(other)).status_code == 404
    assert one.delete(f"/v1/jobs/{job.id}", headers=bearer(other)).status_code == 404


def test_without_keys_no_foreign_name_is_answered(client: Start) -> None:
    one = client()
    for host in ("evil.example", "localhost.evil.example", ""):
        assert one.get("/v1/model", headers={"host": host}).status_code == 403
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert one.get("/v1/model", headers={"host": host}).status_code == 200


def test_another_page_is_let_in_only_by_name(client: Start) -> None:
    evil, desk = {"origin": "https://evil.example"}, {"origin": "https://desk.example"}
    closed = client()
    answer = closed.post("/v1/detect", content=photo(), headers=evil)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert closed.get("/healthz", headers={"origin": "http://localhost"}).status_code == 200
    named = client(origins=("https://desk.example",))
    answer = named.post("/v1/detect", content=photo(), headers=desk)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://desk.example"
    assert named.post("/v1/detect", content=photo(), headers=evil).status_code == 403
    asked = {"access-control-request-method": "POST"}
    assert named.options("/v1/detect", headers=desk | asked).status_code == 200
    assert named.options("/v1/detect", headers=evil | asked).status_code == 400


def test_every_answer_is_guarded_and_named(client: Start) -> None:
    one = client()
    for answer in (one.get("/"), one.get("/nope"), one.post("/v1/detect", content=b"")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert answer.headers["x-request-id"]
    for given, taken in (("mine-1", True), ('a"b c', False), ("x" * 65, False)):
        named = one.get("/healthz", headers={"x-request-id": given}).headers["x-request-id"]
        assert (named == given) is taken


def test_the_log_names_no_file_and_no_key(client: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bonaface.service")
    files = {"file": ("secret-name.jpg", photo())}
    client(**KEYED).post("/v1/detect", files=files, headers=bearer(KEY))
    (record,) = [one for one in caplog.records if one.getMessage() == "request"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["route"], fields["status"], fields["files"]) == ("/v1/detect", 200, 1)
    assert fields["client"] == "desk"
    assert fields["bytes"] > len(photo())
    assert "secret-name" not in json.dumps(fields)
    assert KEY not in caplog.text


def test_an_error_of_our_own_is_a_problem_too(client: Start) -> None:
    class Broken:
        name = "broken"

        def find(self, pixels: object) -> tuple[()]:
            if pixels.shape[0] == 64:  # type: ignore[attr-defined]  # the start
                return ()
            raise RuntimeError("a secret path")

    one = client(Broken())
    answer = one.post("/v1/detect", content=photo())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert one.app.state.core.places.taken == 0  # type: ignore[attr-defined]


def test_a_client_that_asks_too_often_is_told_to_wait(client: Start) -> None:
    one = client(rate=0.001, burst=3)
    found = [one.get("/v1/model") for _ in range(4)]
    assert [answer.status_code for answer in found] == [200, 200, 200, 429]
    assert int(found[-1].headers["retry-after"]) >= 1
    assert one.get("/healthz").status_code == 200


def test_rates_refill_and_are_counted_for_each_client() -> None:
    now = [0.0]
    rates = Rates(2.0, 3, lambda: now[0])

    def taken(client: str, times: int) -> int:
        done = 0
        for _ in range(times):
            with contextlib.suppress(Problem):
                rates.take(client)
                done += 1
        return done

    assert taken("a", 10) == 3
    assert taken("b", 1) == 1
    now[0] = 1.0
    assert taken("a", 10) == 2
    now[0] = 100.0
    assert taken("a", 10) == 3


# -- keys and the start --


def test_keys_are_read_from_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (hash_of(name) for name in "abc")
    path = tmp_path / "keys"
    path.write_text(f"# of the desk\n{first} desk\n\n{second}  # no name\n")
    monkeypatch.setenv(VARIABLE, f"{third} lab")
    keys = read_keys(path)
    assert keys == {first: "desk", second: f"key-{second[:8]}", third: "lab"}
    assert [name_of(key, keys) for key in ("a", "c", "d", "")] == ["desk", "lab", None, None]


@pytest.mark.parametrize(
    "line",
    [KEY, "0" * 63, f"{'0' * 64} a b", f"{'0' * 64} na/me"],
    ids=["a key", "short", "two names", "no name"],  # a key is another in every process
)
def test_a_line_that_is_no_hash_is_refused_without_being_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(line)
    with pytest.raises(ConfigError, match="line 1 of") as error:
        read_keys(path)
    assert line not in str(error.value)


def test_keys_are_long_and_new() -> None:
    assert len({new_key() for _ in range(10)}) == 10
    assert len(new_key()) > 40


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_others_may_not_reach_a_service_without_keys(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--new-key"):
        check(Serving(Path("b"), host, 0, 1, Settings()))
    checked = check(Serving(Path("b"), host, 0, 1, Settings(keys={"0": "a"})))
    assert checked.settings.hosts is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_this_machine_may(host: str) -> None:
    assert check(Serving(Path("b"), host, 0, 1, Settings())).settings.hosts


def test_a_folder_to_keep_in_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--keep"):
        check(Serving(Path("b"), "::1", 0, 1, Settings(keep=tmp_path / "none")))
