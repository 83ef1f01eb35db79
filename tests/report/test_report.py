"""A report shows what a run folder has, says what it lacks, and lets no text of it be more than text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.errors import UserError
from sdpo.report.document import report_page
from sdpo.report.groups import grouped
from sdpo.report.record import run_record
from sdpo.report.report import run_report
from tests.report.folders import attempt_of, config_of, credit_of, evaluation_of, step_of, write_folder
from tests.report.html import Page
from tests.report.runs import HOSTILE, hostile_run, write_run

ATTACKS = (
    *HOSTILE,
    "</pre></article></main></body></html><script>1</script>",
    "</title></style><style>*{display:none}</style>",
    "<!-- --!> ]]> <![CDATA[ <?php <!doctype html>",
    "&lt;script&gt; &#60; &amp;",
)


def page_of(*folders: Path) -> Page:
    text = report_page(grouped([run_record(folder) for folder in folders]))
    text.encode()  # no lone surrogate is left
    return Page(text)


def full_run(folder: Path, algorithm: str = "sdpo", seed: int = 0, *, success: float = 0.6) -> Path:
    return write_folder(
        folder,
        config=config_of(algorithm, seed, env={"name": "code"}, model={"name": "tiny"}),
        steps=[step_of(step, success, entropy=1.0, **{"memory/learner_gib": 2.5}) for step in (1, 2, 3)],
        evaluations=[evaluation_of(0, 0.2, lift=0.1), evaluation_of(3, success, lift=0.05)],
        alarms=[{"step": 2, "guard": "length", "sentence": "Responses should keep their length; they have doubled."}],
        attempts=[attempt_of("right", reward=1.0), attempt_of("wrong", feedback="It is not so.")],
        credit=[credit_of(["a", "bc"], [0.1, None]), credit_of(["taught", " it"], [2.0, -1.0], task="code/two")],
    )


def test_seeds_are_one_group_beside_the_other_algorithm(tmp_path: Path) -> None:
    page = page_of(
        full_run(tmp_path / "sdpo-s0", success=0.6),
        full_run(tmp_path / "sdpo-s1", seed=1, success=0.8),
        full_run(tmp_path / "g", "grpo"),
    )
    assert "SDPO (2 seeds)" in page.text
    assert "+50.0 ± 10.0 %" in page.text, "change of 0.4 and of 0.6"
    assert "20.0 ± 5.0 %" in page.text, "a lone run has the error over tasks that it recorded"
    for axis in ("generations", "tokens", "time"):
        assert f"Held-out success, over {axis}" in page.text
        assert f"Success while training, over {axis}" in page.text
    assert "algorithm.name" in page.text


def test_everything_that_a_run_recorded_is_shown(tmp_path: Path) -> None:
    page = page_of(full_run(tmp_path / "run"))
    for expected in (
        "+10.0 % → +5.0 %",  # teacher lift
        "90.0 % → 90.0 %",  # pass@k
        "Responses should keep their length; they have doubled.",
        "It is not so.",
        "Most credited",
        "taught",
        "1.50 nats a token",
        "learner_gib",
        "2.5",
        "generation: 1 s, 50.0%",
        "no checkpoint",
    ):
        assert expected in page.text, expected


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    """One style sheet, known to the policy by its hash; the rest of its elements and attributes are checked by ``Page``."""
    text = report_page(grouped([run_record(full_run(tmp_path / "run"))]))
    policy = next(given for tag, given in Page(text).elements if given.get("http-equiv") == "Content-Security-Policy")["content"]
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"
    assert "@import" not in style
    assert "url(" not in style
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_is_text_wherever_it_stands(tmp_path: Path, attack: str) -> None:
    name = re.sub(r"[/\x00]", "_", attack)[:60].encode("utf-8", "replace").decode()
    run = write_folder(
        tmp_path / name,
        config={"algorithm": {"name": attack.encode("utf-8", "replace").decode()}, "env": {"name": "e"}},
        steps=[step_of(1, **{f"memory/{attack}": 1.0})],
        evaluations=[evaluation_of(0, 0.1)],
        alarms=[{"step": 1, "guard": attack, "sentence": attack}],
        attempts=[attempt_of(attack, reward=1.0, task=attack), attempt_of(attack, feedback=attack, task=attack)],
        credit=[credit_of([attack, attack], [3.0, None], task=attack)],
    )
    page = page_of(run, full_run(tmp_path / "other"))
    assert not {"script", "img", "iframe", "a", "link"} & {tag for tag, _ in page.elements}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", page.text)


def test_a_run_that_attacks_its_readers_is_shown_and_a_megabyte_line_is_cut(tmp_path: Path) -> None:
    page = page_of(hostile_run(tmp_path / "run"))
    assert "<img src=x onerror=" in page.text
    assert len(page.text) < 200_000


def test_what_the_trainer_writes_is_what_the_report_reads(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", num_steps=4))
    assert "What is missing" not in page.text
    assert "Most credited" in page.text


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("metrics.jsonl", "metrics.jsonl is cut off in the middle of a line"),
        ("evaluations.jsonl", "evaluations.jsonl is cut off in the middle of a line"),
        ("alarms.jsonl", "alarms.jsonl is cut off in the middle of a line"),
        ("rollouts/step_000001.jsonl", "step_000001.jsonl is cut off in the middle of a line"),
        ("credit/step_000001.jsonl.gz", "step_000001.jsonl.gz is cut off in the middle of a line"),
    ],
)
def test_a_file_that_was_cut_off_is_shown_as_far_as_it_goes(tmp_path: Path, broken: str, said: str) -> None:
    run = full_run(tmp_path / "run")
    whole = (run / broken).read_bytes()
    (run / broken).write_bytes(whole[:-9])
    assert said in page_of(run).text


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.yaml", "config.yaml cannot be read"),
        ("evaluations.jsonl", "no evaluation"),
        ("rollouts/step_000001.jsonl", "no rollouts, so no attempts to show"),
        ("credit/step_000001.jsonl.gz", "no checkpoint"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, gone: str, said: str) -> None:
    run = full_run(tmp_path / "run")
    (run / gone).unlink()
    assert said in page_of(run).text


def test_lines_that_are_no_records_are_counted(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9\n[1]\n"x"\n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    assert "5 lines of metrics.jsonl cannot be read" in page_of(run).text


def test_steps_that_are_lost_are_counted_and_those_twice_there_count_once(tmp_path: Path) -> None:
    run = write_folder(tmp_path / "run", steps=[step_of(2, 0.1), step_of(4, 0.2), step_of(4, 0.9)])
    assert [row["success"] for row in run_record(run).steps] == [0.1, 0.9]
    assert "metrics.jsonl has 2 of 4 steps" in page_of(run).text


def test_a_run_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    page = page_of(write_folder(tmp_path / "run", config=config_of("sdpo")))
    for said in (
        "no finished step",
        "No run recorded the times of its steps.",
        "No alarm was raised.",
        "No run recorded attempts.",
    ):
        assert said in page.text


def test_odd_numbers_spoil_no_picture(tmp_path: Path) -> None:
    run = write_folder(tmp_path / "run", config=config_of("sdpo"))
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "success": NaN, "attempts": 1e999, "loss": -1e308, "time/step_s": -5}\n'
        '{"step": 2, "success": 0.5, "attempts": 8, "loss": 1e308, "entropy": true, "time/generate_s": 1e-320}\n'
        '{"step": 3, "attempts": 8, "reward": null, "loss": "low", "grad_norm": 1e299}\n'
    )
    assert "nan" not in page_of(run).text.lower()


def test_two_runs_of_one_seed_are_no_spread_over_seeds(tmp_path: Path) -> None:
    page = page_of(full_run(tmp_path / "one"), full_run(tmp_path / "two"))
    assert "it has the seed of two, so their difference is no spread over seeds" in page.text


def test_the_command_writes_the_file_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.html"
    run = full_run(tmp_path / "run")
    assert main(["report", str(run), str(run), f"to={target}"]) == 0
    assert "1 run" in Page(target.read_text()).text, "a run that is named twice is one"
    said = capsys.readouterr().out
    assert "run: no checkpoint." in said
    assert f"Wrote {target}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "run"]


@pytest.mark.parametrize(
    "words", [[], ["to=x.html"], ["RUN", "to=a", "to=b"], ["RUN", "to="], ["RUN", "to=missing/x.html"], ["RUN", "to=."]]
)
def test_words_that_make_no_sense_are_refused(tmp_path: Path, words: list[str]) -> None:
    run = str(full_run(tmp_path / "run"))
    with pytest.raises(UserError):
        run_report([run if word == "RUN" else word for word in words])


def test_what_is_no_run_folder_is_refused_and_leaves_the_old_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.html"
    target.write_text("the old one")
    for path in (tmp_path / "nowhere", tmp_path, target):
        assert main(["report", str(full_run(tmp_path / f"run-{path.name}")), str(path), f"to={target}"]) == 2
    assert "a run folder holds" in capsys.readouterr().err
    assert target.read_text() == "the old one"


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.html"
    target.write_text("the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdpo.run.files.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        run_report([str(full_run(tmp_path / "run")), f"to={target}"])
    assert target.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "run"]


def test_a_link_that_leads_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run")
    secret = tmp_path / "secret.gz"
    with gzip.open(secret, "wt") as file:
        file.write('{"step": 1}\n')
    (run / "credit" / "step_000001.jsonl.gz").unlink()
    (run / "credit" / "step_000001.jsonl.gz").symlink_to(secret)
    assert "Most credited" not in page_of(run).text
