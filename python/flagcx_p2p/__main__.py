"""The tool of the command line: ``python -m flagcx_p2p``, or ``flagcx-p2p`` where the package is installed."""

import sys

from ._native import run_tool


def main() -> int:
    """Runs it with the arguments of this process, and answers its exit status."""
    return run_tool(["flagcx-p2p", *sys.argv[1:]], [sys.executable, "-m", "flagcx_p2p"])


if __name__ == "__main__":
    sys.exit(main())
