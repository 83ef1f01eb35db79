"""The server answers with the runs it was given, under the names of its machine, and with nothing else."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sdpo.cli import main
from sdpo.errors import UserError
from sdpo.report.index import RunIndex
from sdpo.report.reading import Run
from sdpo.report.server import PAGE, application
from sdpo.report.view import bound, view_config


def client(*folders: Path, host: str = "127.0.0.1") -> TestClient:
    return TestClient(application([RunIndex(Run(folder)) for folder in folders], host), base_url="http://127.0.0.1:8770")


def test_the_page_gets_every_attempt(written: Path) -> None:
    asking = client(written)
    news = asking.get("/changes", params={"run": 0, "since": 0}).json()
    assert [len(step["attempts"]) for step in news["changed"]] == [24, 25, 24]
    assert asking.get("/changes", params={"run": 0, "since": news["revision"]}).json()["changed"] == []
    attempt = asking.get("/attempt", params={"run": 0, "step": 1, "row": 0}).json()
    assert attempt["completion"] == Run(written).attempts(1)[0].completion
    assert len(attempt["credit"]["tokens"]) == len(attempt["credit"]["student_top"])


def test_a_link_to_an_attempt_is_answered_before_anything_was_listed(written: Path) -> None:
    assert client(written).get("/attempt", params={"run": 0, "step": 2, "row": 24}).status_code == 200


def test_a_page_of_an_earlier_server_gets_everything_anew(written: Path) -> None:
    assert len(client(written).get("/changes", params={"run": 0, "since": 10**6}).json()["changed"]) == 3


@pytest.mark.parametrize("path", ["/", *(f"/page/{file.name}" for file in sorted(PAGE.iterdir()))])
def test_every_answer_forbids_scripts_but_the_pages_own(written: Path, path: str) -> None:
    answer = client(written).get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_holds_no_script_or_style_of_its_own_and_no_address_elsewhere() -> None:
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file
        assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")), file
    page = (PAGE / "index.html").read_text()
    assert "<script>" not in page
    assert " style=" not in page
    assert not re.search(r"\son\w+=", page)


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e%2fserver.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd",
        "/page/.", "/page/", "/rollouts/step_000001.jsonl", "/page/index.html%00.js", "/..%5cserver.py",
    ],
)  # fmt: skip
def test_no_path_reaches_the_file_system(written: Path, path: str) -> None:
    assert client(written).get(path).status_code == 404


@pytest.mark.parametrize(
    "words",
    [
        {}, {"run": "0"}, {"run": "1", "step": "1", "row": "0"}, {"run": "-1", "step": "1", "row": "0"},
        {"run": "0", "step": "../1", "row": "0"}, {"run": "0", "step": "9" * 5000, "row": "0"},
        {"run": "0", "step": "1", "row": "٣"},
    ],
)  # fmt: skip
def test_what_is_no_number_in_range_is_refused(written: Path, words: dict[str, str]) -> None:
    assert client(written).get("/attempt", params=words).status_code == 400


def test_an_attempt_that_is_not_there_is_not_found(written: Path) -> None:
    assert client(written).get("/attempt", params={"run": 0, "step": 1, "row": 999}).status_code == 404


@pytest.mark.parametrize("words", ["", "x" * 1001])
def test_a_search_has_bounds(written: Path, words: str) -> None:
    assert client(written).get("/search", params={"run": 0, "words": words}).status_code == 400


def test_nothing_can_be_changed_through_the_server(written: Path) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client(written).request(method, "/changes").status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8770", "127.0.0.1.evil.example", "localhost.evil.example", "", "a@127.0.0.1"]
)
def test_a_foreign_name_that_resolves_to_this_machine_is_refused(written: Path, host: str) -> None:
    for path in ("/", "/runs", "/changes?run=0&since=0", "/page/main.js", "/nothing"):
        assert client(written).get(path, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8770", "localhost:9999", "LOCALHOST", "[::1]:8770", "10.1.2.3:8770"])
def test_names_and_addresses_of_this_machine_are_answered(written: Path, host: str) -> None:
    assert client(written).get("/runs", headers={"host": host}).json() == ["run"]


def test_a_name_that_the_user_gave_is_answered(written: Path) -> None:
    assert client(written, host="box.example").get("/runs", headers={"host": "box.example:80"}).status_code == 200


def test_hostile_completions_come_as_json_that_no_browser_takes_for_a_page(hostile: Path) -> None:
    for row in range(5):
        answer = client(hostile).get("/attempt", params={"run": 0, "step": 1, "row": row})
        assert answer.headers["content-type"] == "application/json"
        assert answer.content.isascii()


def test_a_port_that_is_taken_gives_the_next_one() -> None:
    with bound("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with bound("127.0.0.1", taken) as second:
            assert taken < second.getsockname()[1] < taken + 20


def test_the_server_listens_at_the_loopback_address_unless_told() -> None:
    assert view_config(["run"]).host == "127.0.0.1"
    with bound("localhost", 0) as listening:
        assert listening.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("host", ["no.such.name.invalid", "192.0.2.1", "a" * 300, "\ud800"])
def test_an_address_of_another_machine_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror("Name or service not known")

    if not host.startswith("192"):
        monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no network in unit tests
    with pytest.raises(UserError, match="this machine"):
        bound(host, 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "one run folder or two"),
        (["a", "b", "c"], "one run folder or two"),
        (["a", "port=x"], "port must be"),
        (["a", "port=65536"], "port must be"),
        (["a", "open=yes"], "open must be"),
        (["a", "host="], "host must be"),
    ],
)
def test_words_out_of_range_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        view_config(words)


def test_the_command_says_what_is_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 2
    assert "a run folder holds" in capsys.readouterr().err
