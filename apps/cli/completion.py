"""`inr completion bash|zsh|tcsh`: a script for the shell, made from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse


def run(argv: Sequence[str]) -> int:
    """Print the script; returns the exit code."""
    import shtab

    args = parse(parser(), argv)
    from apps.cli.main import VERBS

    whole = argparse.ArgumentParser(prog="inr")
    whole.add_argument("--version", action="store_true", help="show the version")
    verbs = whole.add_subparsers(dest="verb")
    for verb, summary in VERBS.items():
        made: argparse.ArgumentParser = importlib.import_module(f"apps.cli.{verb}").parser()
        inner = verbs.add_parser(verb, help=summary)
        for action in made._actions:  # argparse has no public way to copy options
            if "--help" not in action.option_strings:
                _copy(inner, verb, action)
    print(shtab.complete(whole, args.shell))
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("completion", "Print a completion script, to be sourced by the shell.")
    p.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    return p


def _copy(inner: argparse.ArgumentParser, verb: str, action: argparse.Action) -> None:
    """Add to `inner` what a shell needs to know of an action."""
    import shtab

    from fields import registry
    from inr import presets

    names = {"field.name": registry.names, "config": presets.names, "name": registry.names}
    choices = names[action.dest]() if action.dest in names else action.choices
    if action.option_strings:
        flag = action.nargs == 0 or action.dest == "print_config"
        form: dict[str, Any] = {"action": "store_true"} if flag else {"choices": choices}
        copy = inner.add_argument(
            *("--field" if f == "--field.name" else f for f in action.option_strings),
            dest=action.dest.replace(".", "_"),
            help=" ".join((action.help or "").replace("%", "%%").split()),
            **form,
        )
    else:
        copy = inner.add_argument(action.dest, nargs="*", choices=choices)
    if action.dest == "out_dir":
        copy.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif action.dest in ("inputs", "input", "image", "output", "original"):
        copy.complete = shtab.FILE  # type: ignore[attr-defined]
