"""Set-up: what is pinned, and that a failed or interrupted installation is never taken for a whole one."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from detection import doctor
from detection.requirements import (
    CORE,
    RequirementError,
    normalise,
    read_constraints,
    read_groups,
    requirement_name,
    select,
)
from firmware.openmv import micropython

ROOT = Path(__file__).resolve().parents[1]
# A python that makes a .venv whose pip writes down what it was asked, and fails when PIP_FAILS is set.
FAKE_PYTHON = r"""#!/bin/bash
case "$*" in
  *version_info*) exit "${TOO_OLD:-0}" ;;
  --version) echo "Python 3.x" ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip --version") exit 0 ;;
  "-m pip install"*) echo "$*" >>pip.log; exit "${PIP_FAILS:-0}" ;;
  "-m detection.requirements"*) echo "numpy" ;;
esac
"""


def direct_requirements() -> list[str]:
    return [line for lines in read_groups().values() for line in lines]


def closure(lines: list[str]) -> set[str]:
    """Names of everything that these requirements bring along here, as far as it is installed."""
    seen: set[str] = set()
    queue = [Requirement(line) for line in lines]
    while queue:
        requirement = queue.pop()
        name = normalise(requirement.name)
        try:
            further = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for line in further:
            child = Requirement(line)
            wanted = [{"extra": extra} for extra in ("", *requirement.extras)]
            if normalise(child.name) not in seen and (
                child.marker is None or any(child.marker.evaluate(environment) for environment in wanted)
            ):
                queue.append(child)
    return seen


def test_every_requirement_is_pinned() -> None:
    pins = read_constraints()
    assert {requirement_name(line) for line in direct_requirements()} <= pins.keys()


def test_everything_that_comes_along_is_pinned() -> None:
    pins = read_constraints()
    assert closure(direct_requirements()) - pins.keys() == set()


def test_installed_versions_are_the_pinned_ones() -> None:
    """What the tests run with is what a newcomer gets."""
    differing = {
        name: (installed, pin)
        for name, pin in read_constraints().items()
        if (installed := doctor.installed_version(name)) is not None and pin not in (installed, installed.split("+")[0])
    }
    assert differing == {}


def test_tensorflow_stays_optional() -> None:
    groups = read_groups()
    assert groups["tf"] == ("tensorflow",)
    assert "EXTRAS:-train export dev" in (ROOT / "setup.sh").read_text(encoding="utf-8")
    assert not any("tensorflow" in line for name, lines in groups.items() if name != "tf" for line in lines)


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "--index-url there", "numpy @ file:there", "numpy==2 --pre"])
def test_constraint_must_be_a_plain_pin(tmp_path: Path, line: str) -> None:
    (tmp_path / "constraints.txt").write_text(f"# head\nrich==15.0.0\n{line}\n", encoding="utf-8")
    with pytest.raises(RequirementError, match=r"constraints.txt:3: .* is not name==version"):
        read_constraints(tmp_path)


def test_unknown_extra_names_the_known_ones() -> None:
    with pytest.raises(RequirementError, match="no extra 'trian'; there are: core, train, export, dev, tf"):
        select(read_groups(), [CORE, "trian"])


# ---- setup.sh, in a copy, with a python that only pretends ----


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE_PYTHON, encoding="utf-8")
    fake.chmod(0o755)
    return tmp_path


def set_up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("EXTRAS", "TORCH_INDEX_URL")}
    settings = {"PYTHON": "./fake-python", "SYSTEM_PACKAGES": "0", **environment}
    return subprocess.run(
        ["./setup.sh"], cwd=folder, env={**inherited, **settings}, capture_output=True, text=True, check=False
    )


def pip_calls(folder: Path) -> int:
    log = folder / "pip.log"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def test_second_setup_does_nothing(copy: Path) -> None:
    assert set_up(copy).returncode == 0
    second = set_up(copy)
    assert (second.returncode, second.stdout, pip_calls(copy)) == (0, "", 1)


def test_a_changed_pin_or_extra_installs_again(copy: Path) -> None:
    set_up(copy)
    with (copy / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("another==1\n")
    set_up(copy)
    assert pip_calls(copy) == 2
    set_up(copy, EXTRAS="train,export,dev,tf")
    assert pip_calls(copy) == 3


def test_a_failing_pip_fails_and_is_repaired_by_the_next_run(copy: Path) -> None:
    failed = set_up(copy, PIP_FAILS="1")
    assert failed.returncode == 1
    assert "error: pip could not install the packages" in failed.stderr
    assert set_up(copy, PIP_FAILS="1").returncode == 1
    assert set_up(copy).returncode == 0
    assert set_up(copy).stdout == ""


def test_a_failed_update_takes_the_old_stamp_away(copy: Path) -> None:
    set_up(copy)
    (copy / "constraints.txt").write_text("changed==1\n", encoding="utf-8")
    assert set_up(copy, PIP_FAILS="1").returncode == 1
    shutil.copy(ROOT / "constraints.txt", copy / "constraints.txt")
    set_up(copy)
    assert pip_calls(copy) == 3


def test_too_old_a_python_is_named_before_anything_is_made(copy: Path) -> None:
    old = set_up(copy, TOO_OLD="1")
    assert old.returncode == 1
    assert "Tessera needs Python 3.11 or newer" in old.stderr and "PYTHON=" in old.stderr
    assert not (copy / ".venv").exists()


def test_the_cpu_index_reaches_pip(copy: Path) -> None:
    set_up(copy, TORCH_INDEX_URL="some-index")
    assert "--extra-index-url some-index" in (copy / "pip.log").read_text(encoding="utf-8")


@pytest.fixture
def bare_path(copy: Path) -> Path:
    """A PATH with what every system has, and no compiler, emulator or apt-get."""
    tools = copy / "bin"
    tools.mkdir()
    for name in ("bash", "env", "cat", "cksum", "dirname", "rm", "mv", "mkdir", "cp", "id"):
        (tools / name).symlink_to(shutil.which(name) or name)
    return tools


def add_program(folder: Path, name: str, script: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


MISSING = "gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
MISSING_DEV = "clang libclang-rt-dev clang-tidy cppcheck"


def test_missing_tools_are_one_line_and_no_failure(copy: Path, bare_path: Path) -> None:
    done = set_up(copy, PATH=str(bare_path), PYTHON=str(copy / "fake-python"))
    assert done.returncode == 0
    for packages in (MISSING, MISSING_DEV):
        assert [packages in line for line in done.stdout.splitlines()].count(True) == 1
    lean = set_up(copy, PATH=str(bare_path), PYTHON=str(copy / "fake-python"), EXTRAS="train export")
    assert MISSING in lean.stdout and MISSING_DEV not in lean.stdout


@pytest.mark.parametrize(("status", "told"), [("0", "apt-get install"), ("100", "apt-get failed; going on without")])
def test_root_installs_what_is_missing(copy: Path, bare_path: Path, status: str, told: str) -> None:
    add_program(bare_path, "id", "echo 0")
    add_program(bare_path, "apt-get", f'echo "$*" >>apt.log; [ "$1" = update ] || exit {status}')
    done = set_up(copy, PATH=str(bare_path), PYTHON=str(copy / "fake-python"), SYSTEM_PACKAGES="1")
    assert done.returncode == 0 and told in done.stdout
    # in two calls: a system that has no package of the second kind must not lose the first
    update, install, update_again, install_dev = (copy / "apt.log").read_text(encoding="utf-8").splitlines()
    assert update.startswith("update") and install == f"install -y -qq --no-install-recommends {MISSING}"
    assert update_again == update and install_dev == f"install -y -qq --no-install-recommends {MISSING_DEV}"


def test_without_root_the_command_is_told(copy: Path, bare_path: Path) -> None:
    add_program(bare_path, "id", "echo 1000")
    add_program(bare_path, "sudo", "exit 1")
    add_program(bare_path, "apt-get", "touch apt.log")
    done = set_up(copy, PATH=str(bare_path), PYTHON=str(copy / "fake-python"), SYSTEM_PACKAGES="1")
    assert done.returncode == 0 and not (copy / "apt.log").exists()
    assert f"sudo apt-get install --no-install-recommends {MISSING}" in done.stdout


# ---- Makefile and doctor ----


def test_make_help_is_the_default_and_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert f"make {target} " in listed


def test_doctor_knows_micropythons_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Named and found, named and wrong, of a version that cameras do not take, not there at all."""
    monkeypatch.setenv("MICROPYTHON", str(tmp_path))
    found = doctor.check_micropython()
    assert f"MICROPYTHON={tmp_path} is no source tree" in found.problem and not found.required
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "dynruntime.h").touch()
    (tmp_path / "py" / "persistentcode.h").write_text("#define MPY_VERSION (7)\n#define MPY_SUB_VERSION (0)\n")
    found = doctor.check_micropython()
    assert found.state == str(tmp_path) and "makes native modules of version 7.0" in found.problem
    assert "1.23 to 1.27" in found.way_out
    monkeypatch.delenv("MICROPYTHON")
    monkeypatch.setattr(micropython, "TREE", tmp_path / "none")
    found = doctor.check_micropython()
    assert found.state == "missing" and found.way_out == "firmware/openmv/get_micropython.sh"


def test_doctor_tells_the_way_out_and_decides_by_core_pieces() -> None:
    fine = doctor.Finding("numpy", "2.4.6")
    optional = doctor.Finding("emulator", "missing", "no predictor `emulator`", "install it")
    core = doctor.Finding("rich", "missing", "needed for everything", "make setup", required=True)
    assert doctor.format_report([fine]).endswith("all 1 pieces are in place")
    report = doctor.format_report([fine, optional])
    assert "install it   # emulator" in report and report.endswith("usable; 1 of 2 pieces need attention: emulator")
    assert doctor.format_report([optional, core]).endswith("core pieces are missing: rich")


def test_doctor_sees_missing_wrong_and_unimportable_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_package("no-such-package", CORE, "1").required
    assert doctor.check_package("packaging", "dev", "0.1").problem == "constraints.txt has 0.1"
    monkeypatch.setitem(doctor.MODULES, "packaging", "no_such_module")
    assert "No module named 'no_such_module'" in doctor.check_package("packaging", "dev", None).problem


def test_doctor_without_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    *findings, tree = doctor.check_tools()
    assert tree.problem.startswith("no OpenMV package") and not tree.required
    assert [finding.state for finding in findings] == ["missing"] * 5
    assert all("apt-get install" in finding.way_out and not finding.required for finding in findings)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_doctor_runs_a_program_on_the_host(tmp_path: Path) -> None:
    assert doctor.check_host_compiler(str(tmp_path)).problem == ""


@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None, reason="no cross tools"
)
def test_doctor_runs_a_program_on_the_emulated_board(tmp_path: Path) -> None:
    assert doctor.check_cross_compiler(str(tmp_path)).problem == ""
    assert "ran on mps2-an500" in doctor.check_emulator(str(tmp_path)).state
