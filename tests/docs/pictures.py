"""Pictures of the terminal: what the tool prints, as `docs/terminal-*.svg`.

    ./x pictures            builds the tool, and renews all pictures
    pictures.py TOOL [NAME ...]

Each command runs on a terminal of its own, so its colours and its width are those that a user sees. rich, a library for
terminals, draws the characters; the SVG names fonts of the system instead of loading one. What names the machine is replaced:
its host name, and addresses, by those of RFC 5737 and RFC 3849.
"""

import contextlib
import fcntl
import io
import ipaddress
import os
import pathlib
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from typing import Callable, Dict, Iterator, List, NamedTuple

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
#: Most bytes of a picture.
LIMIT = 30_000
#: Seconds that a command may take.
DEADLINE = 60
#: What runs on every machine.
SOFTWARE = {"FLAGCX_P2P_FABRIC": "software"}
#: Files of the demo, and bytes of each.
FILES, FILE_SIZE = 4, 48 << 20


class Shown(NamedTuple):
    """A command as a reader would type it, and what it printed."""

    command: str
    columns: int
    text: str


def main(tool: str, names: List[str]) -> None:
    """Writes the pictures with these names, or all."""
    unknown = set(names) - set(PICTURES)
    if unknown:
        sys.exit(f"pictures.py: {', '.join(sorted(unknown))}: no such picture; there are {', '.join(PICTURES)}")
    for name in names or PICTURES:
        shown = PICTURES[name](str(pathlib.Path(tool).resolve()))
        picture = svg(shown, name).encode()
        file = DOCS / f"terminal-{name}.svg"
        file.write_bytes(picture)
        print(f"{file.name}: {len(picture)} bytes, `{shown.command}`")
        if len(picture) > LIMIT:
            sys.exit(f"pictures.py: {file.name} has more than {LIMIT} bytes: show less")


# --- what is shown -------------------------------------------------------------------------------------------------


def demo(tool: str) -> Shown:
    with tempfile.TemporaryDirectory() as temp:
        files = pathlib.Path(temp) / "files"
        files.mkdir()
        for number in range(FILES):
            (files / f"{number}.bin").write_bytes(os.urandom(FILE_SIZE))
        return run(tool, "demo --size 256M --from files", 84, folder=temp)


def bench(tool: str) -> Shown:
    return run(tool, "bench --path shared,cross-memory --cases 1x4K,64x64K,1x1M --seconds 0.1", 100)


def doctor(tool: str) -> Shown:
    return run(tool, "doctor", 116, variables={})


def stat(tool: str) -> Shown:
    """While two clients write to a server."""
    port, metrics = free_port(), f"127.0.0.1:{free_port()}"
    with started(tool, ["bench", "serve", "--port", str(port)], {}):
        wait_for(port)
        load = "--path tcp -s 64K -l 16 -t 4 -D 30 --repeats 1 --pool 64M --op write --clients 2 --no-limits".split()
        with started(tool, ["bench", "run", f"127.0.0.1:{port}", *load], {"FLAGCX_P2P_METRICS": metrics}):
            wait_for(int(metrics.split(":")[1]))
            time.sleep(1)
            return run(tool, f"stat {metrics} --count 2", 118)


PICTURES: Dict[str, Callable[[str], Shown]] = {"demo": demo, "bench": bench, "doctor": doctor, "stat": stat}


# --- running ----------------------------------------------------------------------------------------------------------


def run(tool: str, arguments: str, columns: int, variables: Dict[str, str] = SOFTWARE, folder: str = "/") -> Shown:
    """Runs the tool with standard output on a terminal; progress and logs are left out."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    command = [tool, *shlex.split(arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=inner, stderr=subprocess.DEVNULL, env=environment(variables), cwd=folder
    )
    os.close(inner)
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.alarm(DEADLINE)
    printed = b""
    # At its end, Linux reports an error.
    with contextlib.suppress(OSError):
        while part := os.read(outer, 65536):
            printed += part
    signal.alarm(0)
    os.close(outer)
    if process.wait() != 0:
        sys.exit(f"pictures.py: {command} ended with {process.returncode}:\n{printed.decode()}")
    text = last_frame(printed.decode().replace("\r\n", "\n"))
    return Shown(f"flagcx-p2p {arguments}", columns, without_the_machine(text))


@contextlib.contextmanager
def started(tool: str, arguments: List[str], variables: Dict[str, str]) -> Iterator[None]:
    """Runs the tool until the end of the block."""
    process = subprocess.Popen(
        [tool, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment({**SOFTWARE, **variables})
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def environment(variables: Dict[str, str]) -> Dict[str, str]:
    """These variables alone decide what the tool does, whatever the shell has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGCX", "RUST_", "NO_COLOR"))}
    return {**kept, "TERM": "xterm-256color", **variables}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Returns when something listens."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                sys.exit(f"pictures.py: nothing listens at port {port}")
            time.sleep(0.02)


def last_frame(text: str) -> str:
    """Of tables that are renewed in place, the last one."""
    return re.split(r"\x1b\[(?:\d+A\r\x1b\[)?J", text)[-1]


def without_the_machine(text: str) -> str:
    """Host name and addresses replaced."""
    text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "node7", text)
    text = re.sub(r"(?<![\w.:])[0-9a-f]{0,4}:[0-9a-f]{0,4}:[0-9a-f.:]*[0-9a-f](?![\w.])", replaced, text)
    return re.sub(r"(?<![\w.])\d+\.\d+\.\d+\.\d+(?![\w.])", replaced, text)


def replaced(found: "re.Match[str]") -> str:
    """An address of a document in place of one of a machine; what is no address stays."""
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    if address.is_loopback or address.is_unspecified:
        return found[0]
    if isinstance(address, ipaddress.IPv6Address):
        return "::ffff:192.0.2.7" if address.ipv4_mapped else "2001:db8::7"
    return "192.0.2.7"


# --- drawing ----------------------------------------------------------------------------------------------------------

#: What rich fills in. No fonts from the network; spaces at the begin of a text are kept by every program that draws it.
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>TITLE</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def svg(shown: Shown, name: str) -> str:
    """The picture: the command after a prompt, then what it printed, cut into lines as a terminal does."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, width=shown.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    prompt = Text.assemble(("$ ", "green"), (shown.command, "bold"))
    for line in [prompt, *Text.from_ansi(shown.text.rstrip("\n")).split("\n", allow_blank=True)]:
        cuts = range(shown.columns, len(line), shown.columns)
        for part in line.divide(cuts):
            console.print(part, no_wrap=True, overflow="ignore", crop=False)
    code = FORMAT.replace("TITLE", shown.command.replace("{", "{{").replace("}", "}}"))
    picture = console.export_svg(title="", code_format=code, unique_id=name)
    return re.sub(r"[ \t]*\n\s*", "\n", picture)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
