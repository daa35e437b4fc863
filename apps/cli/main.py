"""The command `inr`: picks the verb, turns errors into one line and an exit code.

Nothing heavy is imported here, and each verb is imported only when it is called.

Exit codes: 0 done; 1 some inputs failed; 2 wrong usage; 3 input cannot be read; 4 target not
reached; 5 output cannot be written; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from apps.cli.voice import complain, explained
from inr.errors import UsageError

VERBS = {
    "fit": "fit a field to each input and store it as an .inr file",
    "compress": "make an .inr file of a given size or quality",
    "decode": "render an .inr file at any size",
    "view": "write a page that shows what an .inr file holds",
    "info": "show what an .inr file holds",
    "verify": "check that .inr files are intact",
    "fields": "list the fields, or one field's hyperparameters",
    "compare": "rate and distortion of .inr files beside other codecs",
    "bench": "compare fields under one protocol",
    "doctor": "what this machine has, and what computes each field on it",
    "studio": "fit, explore, compare and compress in a browser",
    "demo": "the whole road on a photograph, with a page of pictures",
    "completion": "print a script that completes `inr` in a shell",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        argv: Arguments; None takes those of the process, and its signals and warnings with them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    own_process = argv is None
    if own_process:
        # torch's threads wait for each other by spinning: without a tight bound, two processes on
        # two cores slow each other down tenfold and more; a lone one loses a tenth by it
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
        if not debug and not sys.warnoptions:
            warnings.simplefilter("ignore")  # libraries' advice to programmers
    try:
        code = _dispatch(arguments or ["--help"])
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except Exception as error:
        if isinstance(error, OSError) and own_process:
            _silence_stdout()
        if isinstance(error, BrokenPipeError):  # whoever read our output has gone
            return 1
        if debug:
            raise
        known = explained(error)
        complain(str(known))
        return known.exit_code


def _dispatch(arguments: list[str]) -> int:
    verb, *rest = arguments
    if verb == "--debug" and rest:
        verb, rest = rest[0], [verb, *rest[1:]]
    if verb in ("-h", "--help", "help", "--debug"):
        print(_usage())
        return 0
    if verb == "--version":
        return _version(as_json="--json" in rest)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean `inr {near[0]}`?" if near else "see `inr --help`"
        raise UsageError(f"there is no command {verb!r}: {hint}")
    module = importlib.import_module(f"apps.cli.{verb}")
    try:
        return int(module.run(rest))
    except SystemExit as end:  # --help and --print_config end so
        return end.code if isinstance(end.code, int) else int(bool(end.code))


def _usage() -> str:
    lines = ["usage: inr COMMAND ...", "", "Fit, compress and decode implicit neural fields.", ""]
    lines += [f"  {verb:<12}{summary}" for verb, summary in VERBS.items()]
    lines += [
        "",
        "`inr COMMAND --help` tells more; `--debug` shows tracebacks; `--version [--json]`.",
    ]
    return "\n".join(lines)


def _version(as_json: bool) -> int:
    import inr

    if not as_json:
        print(f"inr {inr.__version__}")
        return 0
    import importlib.metadata
    import json
    import platform

    facts = {"inr": inr.__version__, "python": platform.python_version()}
    for package in ("torch", "lightning", "numpy", "constriction", "tinycudann", "triton"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = ""
    print(json.dumps(facts))
    return 0


def _silence_stdout() -> None:
    """Keep the interpreter from failing once more, at exit, over output that nobody takes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    raise SystemExit(main())
