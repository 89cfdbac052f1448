"""The options of every program that connects to NATS as somebody: names, variables, and help.

The variables are those of the `nats` command line tool. Knows nothing of what a program does.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import click

from dex_runtime.connection import Credentials

_TEXTS: Final = {
    "nkey": ("NATS_NKEY", "File with the seed of an nkey."),
    "creds": ("NATS_CREDS", "File with a user JWT and its seed, instead of an nkey."),
    "tls_ca": ("NATS_CA", "File with the certificates to trust; NATS must speak TLS then."),
    "tls_cert": ("NATS_CERT", "File with a certificate of one's own, where NATS wants one."),
    "tls_key": ("NATS_KEY", "File with that certificate's private key."),
}

VARIABLES: Final = tuple(variable for variable, _ in _TEXTS.values())
"""What else tells a program who it is; an empty value tells nothing."""


def credential_options() -> list[click.Parameter]:
    """Make the options; `credentials` takes their values."""
    return [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            type=click.Path(exists=True, dir_okay=False, readable=True),
            envvar=variable,
            metavar="FILE",
            show_envvar=True,
            help=text,
        )
        for name, (variable, text) in _TEXTS.items()
    ]


def credentials(
    values: MutableMapping[str, Any], otherwise: Mapping[str, Any] | None = None
) -> Credentials:
    """Take the values of these options out of a command's; what was not given is None.

    Args:
        values: Of the command; these options' are removed.
        otherwise: Of the group that the command is in, for what the command was not given.

    Raises:
        UsageError: two that exclude each other, or one that needs another.
    """
    beside = otherwise or {}
    named = {name: values.pop(name) or beside.get(name) for name in _TEXTS}
    for one, other in (("nkey", "creds"), ("creds", "nkey")):
        # A variable of the surroundings is for who names nothing.
        if named[other] is not None and named[one] == os.environ.get(_TEXTS[one][0]):
            named[one] = None
    given = Credentials(**named)
    if given.nkey is not None and given.creds is not None:
        raise click.UsageError("expected --nkey or --creds, found both")
    if (given.tls_cert is None) != (given.tls_key is None):
        raise click.UsageError("expected --tls-cert and --tls-key together, found one of them")
    return given
