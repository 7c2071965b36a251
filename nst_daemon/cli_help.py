"""How `--help` reads: arguments in capital letters, flags without a type, paragraphs without the code's line breaks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command whose help names arguments as this program's documents do: CONTENT, not {content}."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        self.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

    def get_params(self, ctx: Any) -> Any:
        """The arguments and options, as help and messages name them."""
        return _named(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line."""
        return [p.replace("{", "").replace("}", "") for p in super().collect_usage_pieces(ctx)]


class NumberCommand(Command):
    """A command with a number as an argument, which may be negative: -5 is not an option then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        ctx.ignore_unknown_options = any(re.fullmatch(r"-\d+", word) for word in args)
        return super().parse_args(ctx, args)


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _named(super().get_params(ctx))


class Commands(typer.Typer):
    """A group of such commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """The decorator of a command; see `typer.Typer.command`."""
        return super().command(name, **{"cls": Command, **options})


def _named(parameters: Any) -> Any:
    for parameter in parameters:
        if isinstance(parameter, TyperArgument) and parameter.name:
            parameter.metavar = parameter.metavar or parameter.name.upper()
        elif isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    return parameters
