"""How a script ends."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from datasets import cli


def ends_with(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    return ended.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_the_result_is_the_exit_code(returned: int | None, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(lambda: returned) == code and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a.yaml: wrong\n  in two lines"), "a.yaml: wrong in two lines"),
        (ValueError(), "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "x.pt"), "x.pt: No such file or directory"),
        (OSError("disk full"), "disk full"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(raising(error)) == 1
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_fault_of_ours_stays_a_traceback() -> None:
    with pytest.raises(TypeError):
        cli.run(raising(TypeError("bug")))


def test_the_environment_brings_the_traceback_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="where from"):
        cli.run(raising(ValueError("where from")))


def test_a_reader_that_went_away_is_no_error_message() -> None:
    code = "from datasets import cli\ncli.run(lambda: [print(i) for i in range(100000)] and 0)"
    done = subprocess.run(f'{sys.executable} -c "{code}" | head -1', shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
