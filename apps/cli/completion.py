"""`inr completion bash|zsh|tcsh`: a script for the shell, made from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse


def run(argv: Sequence[str]) -> int:
    """Print the script; returns the exit code."""
    import shtab

    args = parse(parser(), argv)
    from apps.cli.main import VERBS

    whole = argparse.ArgumentParser(prog="inr")
    verbs = whole.add_subparsers(dest="verb")
    for verb, summary in VERBS.items():
        made: argparse.ArgumentParser = importlib.import_module(f"apps.cli.{verb}").parser()
        inner = verbs.add_parser(verb, help=summary)
        for action in made._actions:  # argparse has no public way to copy options
            if action.option_strings and "--help" not in action.option_strings:
                inner.add_argument(
                    *action.option_strings,
                    dest=action.dest.replace(".", "_"),
                    help=" ".join((action.help or "").replace("%", "%%").split()),
                    choices=action.choices,
                    nargs=0 if action.nargs == 0 else None,
                )
            elif not action.option_strings:
                shown = inner.add_argument(action.dest, nargs="*")
                shown.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(whole, args.shell))
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("completion", "Print a completion script, to be sourced by the shell.")
    p.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    return p
