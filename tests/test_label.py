"""Labelling without a browser: the file of answers, the lists, the numbers, who is served, and what is refused."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Refused

from experiments.labelling import agreement
from experiments.labelling.book import Answer, Book
from experiments.labelling.desk import Desk, Stale
from experiments.labelling.folder import Made
from experiments.labelling.material import comparisons
from experiments.labelling.plan import GAP, showings
from experiments.labelling.server import LabelServer, is_loopback
from experiments.labelling.texts import Texts
from unified_irl.errors import UserError


def answer(showing: str = "0.0", said: str = "left", **changes: Any) -> Answer:
    usual = Answer(
        rater="ada", showing=showing, pair=0, swapped=False, repeat=False, said=said, seconds=1.5,
        at="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return replace(usual, **changes)


# The file of answers.


def test_answers_are_on_disk_when_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line, pushed to disk before `add` returns, and another reader finds it as it was."""
    pushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: pushed.append(os.fstat(descriptor).st_size))
    book, path = Book(tmp_path / "book"), tmp_path / "book"
    given = [answer("0.0"), answer("1.0", "tie", text="é 🙂\n<b>"), answer("2.0", "skip")]
    for number, one in enumerate(given, 1):
        assert book.add(one)
        assert path.read_bytes().count(b"\n") == number
        assert pushed[-1] == path.stat().st_size
    assert Book(path).standing == given


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_line_that_was_cut_off_is_dropped_and_the_rest_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "book"
    book = Book(path)
    book.add(answer("0.0"))
    whole = path.read_bytes()
    book.add(answer("1.0"))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    again = Book(path)
    assert again.was_torn
    assert path.read_bytes() == whole
    assert again.add(answer("1.0", "right"))
    assert [one.said for one in Book(path).standing] == ["left", "right"]


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    """And what a power cut leaves in its place, zeros without an end, does not."""
    path = tmp_path / "book"
    Book(path).add(answer("0.0"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    book = Book(path)
    assert (book.was_torn, len(book.standing), path.read_bytes()) == (False, 1, whole)
    path.write_bytes(whole + bytes(64))
    assert (Book(path).was_torn, path.read_bytes()) == (True, whole)


def test_a_showing_has_one_answer(tmp_path: Path) -> None:
    """The first: whether it is sent again, or stands twice in the file because somebody joined two copies."""
    path = tmp_path / "book"
    book = Book(path)
    assert book.add(answer("0.0", "left"))
    assert not book.add(answer("0.0", "right"))
    assert path.read_bytes().count(b"\n") == 1
    path.write_bytes(path.read_bytes() + path.read_bytes().replace(b"left", b"tie"))
    assert [one.said for one in Book(path).standing] == ["left"]


def test_what_is_taken_back_stays_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "book"
    book = Book(path)
    book.add(answer("0.0"))
    assert book.withdraw(("ada", "0.0"))
    assert not book.withdraw(("ada", "0.0"))
    assert not book.withdraw(("ada", "7.0"))
    assert not book.add(answer("0.0", "right")), "that showing is over; the next one is 0.1"
    assert book.add(answer("0.1", "right"))
    assert [one.said for one in Book(path).standing] == ["right"]
    assert path.read_bytes().count(b"\n") == 3


def test_two_raters_share_a_file(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    book.add(answer("0.0", "left"))
    book.add(answer("0.0", "right", rater="bea"))
    book.withdraw(("ada", "0.0"))
    assert [(one.rater, one.said) for one in Book(tmp_path / "book").standing] == [("bea", "right")]


@pytest.mark.parametrize("line", ["{}", "[1]", "nonsense", '{"answer": {"rater": "ada"}}', '{"answer": 1, "more": 2}'])
def test_a_strange_line_in_the_middle_is_a_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "book"
    Book(path).add(answer())
    path.write_text(f"{path.read_text()}{line}\n{path.read_text()}")
    with pytest.raises(UserError, match=r"book, line 2"):
        Book(path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book, write = Book(tmp_path / "book"), os.write

    def full(descriptor: int, line: bytes) -> int:
        if len(line) > 20:
            return write(descriptor, line[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as within:
        within.setattr(os, "write", lambda descriptor, line: full(descriptor, line[:30]))
        with pytest.raises(UserError, match="No space left on device"):
            book.add(answer())
    assert (tmp_path / "book").read_bytes() == b""
    assert book.add(answer())


@pytest.mark.parametrize(
    ("said", "swapped", "label"),
    [("left", False, 1.0), ("left", True, 0.0), ("right", False, 0.0), ("right", True, 1.0), ("tie", True, 0.5),
     ("skip", False, None)],
)  # fmt: skip
def test_labels_speak_of_the_pair_and_not_of_its_sides(said: str, swapped: bool, label: float | None) -> None:
    assert answer(said=said, swapped=swapped).label == label


def test_a_persons_answers_to_a_pair_are_one_comparison() -> None:
    """Ada says 1 and 0 of pair 0: a tie. Bea says 1 and skips it the second time: 1. Nobody says anything of pair 2."""
    given = [
        answer("0.0", "left"), answer("1.0", "left", swapped=True, repeat=True),
        answer("0.0", "left", rater="bea"), answer("5.0", "skip", rater="bea", repeat=True),
        answer("2.0", "right", pair=1), answer("3.0", "skip", pair=2),
    ]  # fmt: skip
    made = [(one.rater, one.pair, one.label) for one in comparisons(given)]
    assert made == [("ada", 0, 0.5), ("bea", 0, 1.0), ("ada", 1, 0.0)]


# The lists.


@pytest.mark.parametrize("num_pairs", [1, 2, 7, 100])
@pytest.mark.parametrize("repeats", [0.0, 0.1, 1.0])
def test_every_pair_is_shown_and_some_are_shown_again(num_pairs: int, repeats: float) -> None:
    plan = showings(num_pairs, repeats, 3, "ada")
    first, again = ([one for one in plan if one.repeat is repeat] for repeat in (False, True))
    assert sorted(one.pair for one in first) == list(range(num_pairs))
    assert len(again) == len({one.pair for one in again}) == round(repeats * num_pairs)
    place = {(one.pair, one.repeat): k for k, one in enumerate(plan)}
    swapped = {one.pair: one.swapped for one in first}
    for one in again:
        assert one.swapped is not swapped[one.pair]
        distance = place[one.pair, True] - place[one.pair, False]
        assert distance > 0
        if place[one.pair, False] < num_pairs - 2 * GAP:
            assert distance > min(GAP, num_pairs // 2)
    assert plan == showings(num_pairs, repeats, 3, "ada")


def test_sides_are_drawn_and_raters_have_lists_of_their_own() -> None:
    """Of 1,000 fair draws between 440 and 560 are heads but in 1 of 10,000 cases; these are fixed by the seed."""
    plans = [showings(1000, 0.0, seed, rater) for seed, rater in ((0, "ada"), (0, "bea"), (1, "ada"))]
    assert all(440 < sum(one.swapped for one in plan) < 560 for plan in plans)
    orders = [[one.pair for one in plan] for plan in plans]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] != list(range(1000))


def test_prompts_have_no_sides() -> None:
    plan = showings(20, 0.5, 0, "ada", blind=False)
    assert len(plan) == 20
    assert not any(one.swapped or one.repeat for one in plan)


# The numbers.


def test_wilsons_interval_by_hand() -> None:
    """8 of 10 with z = 1.95996: centre (8 + 1.92073)/13.84146 = 0.71674; half 1.95996/13.84146 ·
    √(8·2/10 + 0.96036) = 0.14160 · 1.60011 = 0.22658. All of 5: the lower limit is 5/(5 + z²) = 0.56552."""
    interval = agreement.share(8, 10)
    assert (interval.estimate, interval.num_seeds) == (0.8, 10)
    assert interval.low == pytest.approx(0.71674 - 0.22658, abs=2e-5)
    assert interval.high == pytest.approx(0.71674 + 0.22658, abs=2e-5)
    everything = agreement.share(5, 5)
    assert (everything.low, everything.high) == (pytest.approx(0.56552, abs=1e-5), 1.0)
    assert agreement.share(0, 5).low == 0.0


def test_cohens_kappa_by_hand() -> None:
    """Cohen's own kind of table: both say 1 of 20 pairs, both 0 of 15; 5 times 1 against 0, 10 times 0 against 1.
    p_o = 35/50 = 0.7; p_e = (25·30 + 25·20)/2500 = 0.5; κ = 0.2/0.5 = 0.4."""
    labels = [(1.0, 1.0)] * 20 + [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 10 + [(0.0, 0.0)] * 15
    assert agreement.kappa(labels) == pytest.approx(0.4)
    assert agreement.kappa([(1.0, 0.0), (0.0, 1.0)]) == pytest.approx(-1.0)
    assert math.isnan(agreement.kappa([(1.0, 1.0)] * 3))


def test_agreement_is_about_pairs_that_were_judged_twice() -> None:
    """Ada judges pairs 0, 1 and 2 twice: once alike, once not, once with a skip, which is no judgement. Bea judges
    pairs 0 and 1 once and agrees with Ada's first answer to one of them."""
    given = [
        answer("0.0", "left"), answer("3.0", "right", swapped=True, repeat=True),
        answer("1.0", "right", pair=1), answer("4.0", "right", pair=1, swapped=True, repeat=True),
        answer("2.0", "tie", pair=2), answer("5.0", "skip", pair=2, repeat=True),
        answer("0.0", "left", rater="bea"), answer("1.0", "left", rater="bea", pair=1),
    ]  # fmt: skip
    assert agreement.with_oneself(given, "ada") == [(1.0, 1.0), (0.0, 1.0)]
    assert agreement.with_oneself(given, "bea") == []
    assert agreement.between(given, "ada", "bea") == [(1.0, 1.0), (0.0, 1.0)]
    told = agreement.sentences(given)
    assert told[0].startswith("ada twice on the same pair: the same answer to 1 of 2 (50 %, 95 % interval 9 to 91 %)")
    assert told[-1].startswith("ada and bea: the same answer to 1 of 2")


# The desk.

ROWS = [
    {"prompt": f"question {k} <script>alert(1)</script>", "first": f" good {k}", "second": f" bad {k} & <i>"}
    for k in range(6)
]


def desk_of(folder: Path, rater: str = "ada", repeats: float = 0.5) -> Desk:
    folder.mkdir(exist_ok=True)
    material = Texts(folder, Made(kind="texts", facts={"mode": "compare"}, queries=ROWS))
    plan = showings(len(material), repeats, 0, rater)
    return Desk(Book(folder / "answers.jsonl"), plan, material, rater, "a file", "compare")


def test_a_desk_goes_through_its_list_and_finds_its_place_again(tmp_path: Path) -> None:
    desk, seen = desk_of(tmp_path), []
    while not desk.is_done:
        state = desk.state()
        seen.append(state["prompt"][0]["text"])
        good = "left" if state["left"][0]["text"].startswith("good") else "right"
        desk.answer(state["showing"], good, 0.25)
        desk = desk_of(tmp_path)
    assert len(seen) == 9
    assert desk.state()["answered"] == desk.state()["total"] == 9
    assert desk.agreement()[0].startswith("ada twice on the same pair: the same answer to 3 of 3 (100 %")
    assert all(one.label == 1.0 and one.seconds == 0.25 for one in desk.book.standing)
    desk.export()
    rows = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert sorted(row["chosen"] for row in rows) == [f" good {k}" for k in range(6)]


def test_the_same_answer_twice_is_one_and_another_is_told_so(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    first = desk.state()["showing"]
    after = desk.answer(first, "left", 1.0)
    assert desk.answer(first, "left", 2.0) == after
    assert "first answer stands" in desk.answer(first, "right", 2.0)["notice"]
    assert [one.said for one in desk.book.standing] == ["left"]
    with pytest.raises(Stale):
        desk.answer("8.0", "left", 1.0)
    for nonsense in ("", "x", "-1.0", "²", "99999999999999999999.0"):
        with pytest.raises(Stale):
            desk.answer(nonsense, "left", 1.0)


def test_the_last_answer_can_be_taken_back_and_a_late_one_does_not_return(tmp_path: Path) -> None:
    """Also after a restart; taking the same one back twice takes back one."""
    desk = desk_of(tmp_path)
    first = desk.state()["showing"]
    second = desk.answer(first, "left", 1.0)["showing"]
    desk.answer(second, "tie", 1.0)
    desk = desk_of(tmp_path)
    with pytest.raises(Stale):
        desk.undo(first)
    state = desk.undo(second)
    assert (state["showing"], state["undo"]) == (second.replace(".0", ".1"), first)
    assert desk.undo(second)["showing"] == state["showing"]
    assert desk.answer(second, "tie", 1.0)["showing"] == state["showing"], "a late answer to what was taken back"
    desk.answer(state["showing"], "right", 1.0)
    assert [one.said for one in desk_of(tmp_path).book.standing] == ["left", "right"]


def test_many_threads_answer_once(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    showing = desk.state()["showing"]
    threads = [threading.Thread(target=desk.answer, args=(showing, said, 1.0)) for said in ("left", "right") * 8]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("said", "seconds"), [("written", 1.0), ("LEFT", 1.0), ("left", math.nan), ("left", math.inf)])
def test_what_is_no_answer_is_refused(tmp_path: Path, said: str, seconds: float) -> None:
    desk = desk_of(tmp_path)
    with pytest.raises(UserError):
        desk.answer(desk.state()["showing"], said, seconds)
    assert desk.book.standing == []


def test_a_desk_that_has_stopped_takes_nothing(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.stop()
    with pytest.raises(Stale, match="ending"):
        desk.answer(desk.state()["showing"], "left", 1.0)


# The server.


@contextmanager
def serving(desk: Desk, host: str = "127.0.0.1") -> Iterator[LabelServer]:
    with LabelServer(desk, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def asked(
    server: LabelServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        given.setdefault("Content-Type", "application/json")
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, sent, given)
    reply = connection.getresponse()
    held = reply.read()
    connection.close()
    is_json = reply.getheader("Content-Type") == "application/json"
    return reply.status, dict(reply.getheaders()), json.loads(held) if is_json else held


def test_data_travel_as_json_and_the_page_runs_no_code_of_others(tmp_path: Path) -> None:
    with serving(desk_of(tmp_path)) as server:
        status, headers, page = asked(server, "GET", "/")
        assert (status, b"question 1" in page) == (200, False)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in headers
        _, headers, state = asked(server, "GET", "/state")
        assert headers["Content-Type"] == "application/json"
        assert "<script>" in state["prompt"][0]["text"]
        script = asked(server, "GET", "/page.js")[2].decode()
        assert not any(
            word in script for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write")
        )
        assert asked(server, "GET", "/film/0.0/left.mp4")[0] == 409
        assert asked(server, "GET", "/../server.py")[0] == 404
        assert asked(server, "DELETE", "/state")[0] == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:{}", 200), ("localhost:{}", 200), ("[::1]:{}", 200), ("evil.example:{}", 403), ("127.0.0.1", 403),
     ("127.0.0.1:1", 403), ("127.0.0.1.evil.example:{}", 403), ("", 403), ("evil@127.0.0.1:{}", 403)],
)  # fmt: skip
def test_a_foreign_name_is_not_served(tmp_path: Path, host: str, status: int) -> None:
    """A name that somebody bound to this address reads nothing and writes nothing."""
    with serving(desk_of(tmp_path)) as server:
        given = host.format(server.server_port)
        assert asked(server, "GET", "/state", Host=given)[0] == status
        said = {"showing": server.desk.state()["showing"], "said": "left", "seconds": 1}
        assert asked(server, "POST", "/answer", said, Host=given)[0] == status


def test_other_sites_cannot_answer(tmp_path: Path) -> None:
    with serving(desk_of(tmp_path)) as server:
        said = {"showing": server.desk.state()["showing"], "said": "left", "seconds": 1}
        own = f"http://127.0.0.1:{server.server_port}"
        foreign: Sequence[dict[str, str]] = (
            {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1"},
            {"Sec_Fetch_Site": "cross-site"}, {"Origin": own, "Sec_Fetch_Site": "same-site"},
        )  # fmt: skip
        for headers in foreign:
            assert asked(server, "POST", "/answer", said, **headers)[0] == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert asked(server, "POST", "/answer", said, Content_Type=kind)[0] == 415
        assert server.desk.book.standing == []
        assert asked(server, "POST", "/answer", said, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
        assert len(server.desk.book.standing) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b"[" * 50_000, 400), (b"x" * 300_000, 413), ({"said": "left"}, 400),
     ({"showing": 1, "said": "left", "seconds": 1}, 400), ({"showing": "0.0", "said": "left", "seconds": "1"}, 400),
     ({"showing": "0.0", "said": "left", "seconds": True}, 400),
     ({"showing": "5.0", "said": "tie", "seconds": 1}, 409)],
)  # fmt: skip
def test_strange_bodies_are_refused(tmp_path: Path, body: Any, status: int) -> None:
    with serving(desk_of(tmp_path)) as server:
        assert asked(server, "POST", "/answer", body)[0] == status
        assert server.desk.book.standing == []


def test_elsewhere_a_token_is_asked_for(tmp_path: Path) -> None:
    with serving(desk_of(tmp_path), "0.0.0.0") as server:
        assert server.address.endswith(f"/?token={server.token}")
        assert len(server.token) >= 32
        for path in ("/", "/state", "/page.js", "/?token=", f"/?token={server.token}x", "/state?token=é"):
            status, _, said = asked(server, "GET", path.replace("é", "%C3%A9"))
            assert (status, "token" in said["error"]) == (403, True)
        said = {"showing": server.desk.state()["showing"], "said": "left", "seconds": 1}
        assert asked(server, "POST", "/answer", said)[0] == 403
        _, headers, _ = asked(server, "GET", f"/?token={server.token}")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite" in cookie
        held = cookie.split(";")[0]
        assert asked(server, "GET", "/state", Cookie=held)[0] == 200
        assert asked(server, "GET", "/state", Cookie=held, Host=f"evil.example:{server.server_port}")[0] == 403
        assert asked(server, "GET", "/state", Cookie=held, Host=f"192.0.2.7:{server.server_port}")[0] == 200
        assert asked(server, "POST", "/answer", said, Cookie=held, Origin="http://evil.example")[0] == 403
        assert asked(server, "POST", "/answer", said, Cookie=held)[0] == 200


def test_only_this_machine_itself_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.168.0.3", "localhost.evil.example", "example.com")))


# The command.


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"q{k}", "chosen": f" a{k}", "rejected": " b"}) + "\n" for k in range(9))
    )
    return path


def test_mistakes_are_sentences(refused: Refused, rows: Path) -> None:
    for words, why in (
        (("walk",), "There is no task called 'walk'. Did you mean walks"),
        (
            ("walks", "--out", "x"),
            "There is nothing to see or to read in walks; expected a task of robots or of language.",
        ),
        ((rows, "--repeats", "2"), "repeats is 2.0; expected a share from 0 to 1."),
        ((rows, "--rater", "a/b"), "rater is 'a/b'; expected a name"),
        ((rows, "--port", "70000"), "port is 70000; expected 0 to 65535."),
        ((rows, "--out", "."), "is there already and holds no labelling; choose another place with --out."),
    ):
        assert why in refused("label", *words)


def test_a_file_without_pairs_is_a_sentence(command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "alone"}\n')
    said = command("label", "texts.jsonl")
    assert said.code == 2
    assert "holds no row that could be shown: its first row has the columns text; expected prompt, chosen" in said.err
    assert [one.name for one in (tmp_path / "labels").iterdir()] == []


def test_a_port_in_use_is_a_sentence(command: Command, rows: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = command("label", rows, "--port", port)
    assert said.code == 2
    assert said.err.startswith(f"error: Port {port} of 127.0.0.1 is in use by another program; choose another")


def test_export_writes_what_was_answered(command: Command, rows: Path) -> None:
    """Nothing at first; then three answers of two raters, one of them a tie, which rows cannot hold."""
    said = command("label", rows, "--export")
    assert said.out == "Nothing is answered yet; the queries are in labels/rows.\n"
    place = Path("labels/rows")
    held = [json.loads(line) for line in (place / "queries.jsonl").read_text().splitlines()]
    book = Book(place / "answers.jsonl")
    for one in (answer("0.0"), answer("1.0", "tie", pair=1), answer("0.0", "left", rater="bea", swapped=True)):
        book.add(one)
    said = command("label", rows, "--export")
    assert "2 preferences in labels/rows/preferences.jsonl (1 ties left out" in said.out
    assert "ada and bea: the same answer to 0 of 1" in said.out
    made = [json.loads(line) for line in (place / "preferences.jsonl").read_text().splitlines()]
    assert [(row["chosen"], row["rater"]) for row in made] == [(held[0]["first"], "ada"), (held[0]["second"], "bea")]
    for one in (("ada", "0.0"), ("ada", "1.0"), ("bea", "0.0")):
        book.withdraw(one)
    command("label", rows, "--export")
    assert not (place / "preferences.jsonl").exists()


def test_other_settings_are_other_queries(command: Command, rows: Path) -> None:
    assert command("label", rows, "--export").code == 0
    assert command("label", rows, "--export", "--rater", "bea", "--port", "0").code == 0
    said = command("label", rows, "--export", "--seed", "1", "--count", "3")
    assert said.code == 2
    assert "labels/rows holds other queries: count (then 50, now 3), seed (then 0, now 1)." in said.err
