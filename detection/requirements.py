"""What pyproject.toml asks for and what constraints.txt pins; standard library only, so that it runs before set-up.

`python -m detection.requirements core train` prints the requirement lines of these groups, one a line, for pip.
"""

from __future__ import annotations  # the doctor imports this on Pythons that are too old, to say so

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = "core"


class RequirementError(ValueError):
    """A group that pyproject.toml does not have, or a constraint that is no `name==version`."""


def read_groups(root: Path = ROOT) -> dict[str, tuple[str, ...]]:
    """Requirement lines by group: `core` (always needed), then the extras of pyproject.toml in their order."""
    import tomllib  # new in 3.11

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {CORE: tuple(project["dependencies"])}
    groups.update({name: tuple(lines) for name, lines in project["optional-dependencies"].items()})
    return groups


def read_constraints(root: Path = ROOT) -> dict[str, str]:
    """Pinned version by normalised name; raises RequirementError where a line is anything but `name==version`."""
    pins: dict[str, str] = {}
    for number, line in enumerate((root / "constraints.txt").read_text(encoding="utf-8").splitlines(), start=1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+]+)", text)
        if match is None:
            raise RequirementError(f"constraints.txt:{number}: {text!r} is not name==version")
        pins[normalise(match[1])] = match[2]
    return pins


def normalise(name: str) -> str:
    """The one spelling of a package's name: `Foo_bar.baz` -> `foo-bar-baz` (PyPA's name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(line: str) -> str:
    """`tflite-micro; sys_platform == 'linux'` -> `tflite-micro`."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    if match is None:
        raise RequirementError(f"pyproject.toml: {line!r} does not start with a package's name")
    return normalise(match[0])


def select(groups: dict[str, tuple[str, ...]], names: list[str]) -> list[str]:
    """Requirement lines of the named groups, in the order asked for."""
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise RequirementError(f"pyproject.toml has no extra {unknown[0]!r}; there are: {', '.join(groups)}")
    return [line for name in names for line in groups[name]]


def main() -> int:
    try:
        print("\n".join(select(read_groups(), sys.argv[1:] or [CORE])))
    except RequirementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
