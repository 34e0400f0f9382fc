"""How the room's own commands end: exit code 0, or 1 and one line on stderr."""

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main`; what a user can cause (ValueError, OSError, Ctrl-C) becomes one line, never a traceback."""
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(_fail(str(error).splitlines()[0] if str(error) else type(error).__name__))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted"))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
