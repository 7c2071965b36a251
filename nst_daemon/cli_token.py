"""The commands `nst-daemon token …`: create, list and revoke the tokens of the page and its API."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from nst_daemon import tokens
from nst_daemon.cli_help import Commands
from nst_daemon.cli_options import ConfigOption, JsonOption, configured, show
from nst_daemon.names import printable
from nst_daemon.ops import completion, streams
from nst_daemon.units import when

app = Commands(
    help="Create, list and revoke the tokens of the status page and its API.", no_args_is_help=True
)


@app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="A name for the token, such as phone.")],
    read_only: Annotated[
        bool, typer.Option("--read-only", help="The token can see everything and change nothing.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Create a token and print it. It is shown only now: the daemon stores its hash.

    A running page accepts it at once. As soon as there is a token, the page needs one.
    """
    loaded = configured(config)
    access: tokens.Access = "read" if read_only else "full"
    first = not tokens.path_of(loaded.folders).exists()
    secret = tokens.create(loaded.folders, name, access)
    rights = "see everything and change nothing" if read_only else "do everything"
    if first and not loaded.status_page_token:
        streams.notice("this is the first token: the page needs one from now on", level=6)
    streams.notice(f"{name} can {rights}; the token is not shown again:", level=6)
    print(secret)


@app.command("list")
def token_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the tokens: names, access, creation and last use, but not the tokens themselves."""
    from nst_daemon.ops.layout import Row, table

    loaded = configured(config)
    found = tokens.rows(loaded.folders, loaded.status_page_token)
    if not found and not as_json:
        streams.notice("there are no tokens; create one with `nst-daemon token create`", level=6)
        return
    rows = [
        Row(
            (
                row.name,
                "read-only" if row.access == "read" else "full",
                when(row.created) if row.created else "configuration",
                when(row.last_use) if row.last_use else "never",
            )
        )
        for row in found
    ]
    headings = ("name", "access", "created", "last use")
    show(partial(table, headings, rows), [asdict(row) for row in found], as_json)


@app.command("revoke")
def token_revoke(
    name: Annotated[
        str,
        typer.Argument(help="Name of a token.", autocompletion=completion.tokens),
    ],
    config: ConfigOption = None,
) -> None:
    """Revoke a token. A running page ends its logins and open connections within seconds."""
    loaded = configured(config)
    left = tokens.revoke(loaded.folders, name)
    streams.notice(f"{name} is revoked", level=6)
    if not left and not loaded.status_page_token:
        streams.notice(
            "no token is left, so the page refuses everybody; create a token, or remove "
            f"{printable(str(tokens.path_of(loaded.folders)))} for a page of this machine that needs none",
            level=4,
        )
