"""Which operators a .tflite may hold, as SUPPORTED_OPS.md: `python -m firmware.compiler.supported` writes it anew."""

from pathlib import Path

from firmware.compiler.ops import supported_operators
from firmware.compiler.tflite_operators import READ

PAGE = Path(__file__).resolve().parents[2] / "SUPPORTED_OPS.md"


def supported_page() -> str:
    """The page: operators of .tflite files, then the rules of what they become."""
    return (
        "# Supported operators\n\n"
        "Written by `python -m firmware.compiler.supported`; do not edit. Networks are int8 (input and output may be uint8 or "
        "float32), batch 1, without control flow.\n\n"
        f"A `.tflite` may hold {', '.join(f'`{name}`' for name in READ)}. What it cannot run is refused by name, with the rule "
        "that is broken. Below are the operators that they become.\n\n" + supported_operators()
    )


if __name__ == "__main__":
    PAGE.write_text(supported_page())
