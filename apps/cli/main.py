"""The command `inr`: picks the verb, turns errors into one line and an exit code.

Nothing heavy is imported here, and each verb is imported only when it is called.

Exit codes: 0 done; 1 some inputs failed; 2 wrong usage; 3 input cannot be read; 4 target not
reached; 5 output cannot be written; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from inr.errors import InrError, UsageError

VERBS = {
    "fit": "fit a field to each input and store it as an .inr file",
    "decode": "render an .inr file at any size",
    "info": "show what an .inr file holds",
    "verify": "check that .inr files are intact",
    "fields": "list the fields, or one field's hyperparameters",
    "demo": "the whole road on a photograph, with a page of pictures",
    "completion": "print a script that completes `inr` in a shell",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return _dispatch([a for a in arguments if a != "--debug"])
    except InrError as error:
        if debug:
            raise
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; the interpreter must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        if debug:
            raise
        _say("out of memory: try a smaller input or a smaller field")
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        return _version(as_json="--json" in rest)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean `inr {near[0]}`?" if near else "see `inr --help`"
        raise UsageError(f"there is no command {verb!r}: {hint}")
    module = importlib.import_module(f"apps.cli.{verb}")
    return int(module.run(rest))


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


def _say(message: str) -> None:
    """One line on stderr, without control characters that a file's name may carry."""
    line = " ".join(message.split())
    clean = "".join(c if c.isprintable() else "?" for c in line)
    print(f"inr: {clean}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
