"""Raw bytes on everything that reads bytes, guided by coverage (atheris, and so libFuzzer).

    uv run --group fuzz python -m tests.fuzz.codec_fuzz -atheris_runs=100000 -seed=1 FOLDER

`just fuzz` runs it after the structured requests. What fails is printed, and its bytes in base64.
"""

import sys

import atheris

with atheris.instrument_imports(include=["dex_protocol", "dex_engine"]):
    from tests.fuzz.readers import read


def main() -> None:
    """Fuzz until it is told to end."""
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
