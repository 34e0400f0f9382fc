"""How a script ends: 0, or one line on stderr and 1. Never a traceback for what a user can put right.

It stands in this room because everybody who has a script may import it; firmware, which may not, has its own.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit. ValueError and OSError (every room's errors derive from them) become `error: ...`.

    TESSERA_TRACEBACK=1 in the environment shows where an error came from.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 1
    except BrokenPipeError:  # `| head` closed the pipe; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (ValueError, OSError) as error:
        if os.environ.get("TESSERA_TRACEBACK"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return " ".join(str(error).split()) or type(error).__name__


def say(text: str) -> None:
    """A line of progress on stderr, so that stdout stays a report."""
    print(text, file=sys.stderr, flush=True)
