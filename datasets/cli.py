"""What every command line here shares: one-line errors instead of tracebacks."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with its result; what a user can mend becomes `error: ...` on stderr and exit code 1.

    Caught are ValueError (all of the project's own errors), OSError and Ctrl-C. TESSERA_TRACEBACK=1 lets them through.
    """
    if os.environ.get("TESSERA_TRACEBACK"):
        sys.exit(main() or 0)
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 1
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        code = 1
    sys.exit(code)


def say(text: str) -> None:
    """A line of progress on stderr, so that stdout stays a report."""
    print(text, file=sys.stderr, flush=True)
