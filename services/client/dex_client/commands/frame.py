"""What the commands share: options, who asks where, and what becomes of what can go wrong.

Exit codes: 0; 1 when the answer was no, or is not known; 2 when nothing could be asked. Data goes
to stdout, everything else to stderr.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, Protocol

import click
from click.core import ParameterSource
from msgspec import Struct

from dex_client.administration import OPERATOR
from dex_client.client import Exchange, connect
from dex_client.commands.options import (
    CannotRun,
    above_0,
    market_name,
    nats_servers,
    peer_name,
)
from dex_client.commands.output import Output, refusal_text
from dex_client.errors import (
    WHERE_KEYS_ARE,
    ExchangeError,
    LogTrimmed,
    NotConfirmed,
    NotPermitted,
    OutcomeUnknown,
    Unavailable,
    UnknownMarket,
    Unreachable,
    unreachable_hint,
)
from dex_protocol.commands import Command
from dex_protocol.reasons import Reason
from dex_protocol.receipts import Receipt, refused
from dex_runtime import keys
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.options import credential_options, credentials

PROGRAM: Final = "dex-client"

PEER: Final = "default"
MARKET: Final = "BTC-USD"

DEADLINE_S: Final = 10.0
"""How long a command tries: an election in NATS takes 4 to 9 s, a server's restart 2 to 3 s, and
somebody waits at a terminal."""

CONNECTION_TIMEOUT_S: Final = 2.0
"""How long it tries to reach a NATS server, of that: one that runs answers in milliseconds, a
distant one well within a second."""


class Caller(Struct):
    """Who asks where, and how the answer is to be printed."""

    servers: tuple[str, ...]
    servers_were_named: bool
    """On the command line: then a command to be repeated must name them too."""
    peer: str
    market: str
    deadline_s: float
    output: Output
    credentials: Credentials
    """As far as they were named."""
    under_way: Command | None = None
    """What was sent and has no outcome yet; it has an id."""

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[Exchange]:
        """Be connected for as long as the block lasts.

        Raises:
            Unreachable: no NATS server lets us in.
        """
        async with connect(
            self.servers,
            peer=self.peer,
            deadline_s=self.deadline_s,
            first_connection_timeout_s=min(CONNECTION_TIMEOUT_S, self.deadline_s),
            credentials=self.credentials,
        ) as exchange:
            yield exchange

    @property
    def as_operator(self) -> ConnectionOptions:
        """How to connect as an operator."""
        return ConnectionOptions(
            servers=self.servers,
            name=f"{PROGRAM} {OPERATOR}",
            credentials=keys.of_role("operator", self.credentials),
            first_connection_timeout_s=min(CONNECTION_TIMEOUT_S, self.deadline_s),
        )

    def refuse(self, receipt: Receipt, hint: str = "") -> NoReturn:
        """Say why something was refused, in a line with a hint, and end with exit code 1."""
        if self.output.as_json:
            self.output.show(receipt, ())
        raise self.refusal(receipt, hint)

    def refusal(self, receipt: Receipt, hint: str = "") -> click.ClickException:
        """Say it without a word on stdout."""
        return click.ClickException(refusal_text(receipt) + (hint or self._hint(receipt)))

    def _hint(self, receipt: Receipt) -> str:
        # What the exchange cannot know: that another market, or another peer, was meant.
        if receipt.reason == Reason.unknown_market.name:
            return f" (`{PROGRAM} markets list` lists them)"
        if receipt.reason == Reason.unknown_order.name:
            return f" (asked as {self.peer}, in {self.market})"
        return ""

    @property
    def where(self) -> list[str]:
        """The options that name this peer and this market once more."""
        options = ["--market", self.market, "--peer", self.peer]
        return [*options, "--nats", ",".join(self.servers)] if self.servers_were_named else options


def say(text: str) -> None:
    """Tell the user something that is not data."""
    click.echo(text, err=True)


def shell_text(words: Sequence[str]) -> str:
    """Write a command as it is typed."""
    return shlex.join([PROGRAM, *words])


# --- Commands -----------------------------------------------------------------------------------


class Resend(Protocol):
    """Gives the words of the command that sends a command once more, with its own id."""

    def __call__(self, caller: Caller, command: Command) -> list[str]:
        """Give the words after the program's name."""
        ...


class AskingCommand(click.Command):
    """A command whose callback is a coroutine function that takes a `Caller`, and its own options.

    The shared options stand after its own.
    """

    has_peer = False
    has_market = False
    ends_by_interrupt = False

    def __init__(self, *arguments: Any, resend: Resend | None = None, **attributes: Any) -> None:
        """Add the shared options; `resend` for what can be left without an outcome."""
        super().__init__(*arguments, **attributes)
        self._resend = resend
        self.params += _shared_options(peer=self.has_peer, market=self.has_market)

    def invoke(self, context: click.Context) -> None:
        """Run it to its end, and turn what goes wrong into a sentence and an exit code."""
        values = dict(context.params)
        caller = _caller(context, values)
        # By way of the context, which adds the usage to a complaint about options.
        context.invoke(self._answer, caller, values)

    def _answer(self, caller: Caller, values: dict[str, Any]) -> None:
        assert self.callback is not None, "a command has a callback"
        try:
            self._run(caller, self.callback(caller, **values))
        except KeyboardInterrupt:
            if self.ends_by_interrupt:
                return
            if caller.under_way is None or self._resend is None:
                raise
            text = _unknown_text("Interrupted", self._resend(caller, caller.under_way))
            raise click.ClickException(text) from None

    def _run(self, caller: Caller, main: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run(main)
        except Unreachable as error:
            raise CannotRun(f"{error}{unreachable_hint(is_refusal=error.is_refusal)}") from error
        except NotPermitted as error:
            raise CannotRun(f"{error}{WHERE_KEYS_ARE}") from error
        except Unavailable as error:
            raise CannotRun(
                f"{error}, and nothing was done; see that a server runs, "
                f"and with `{PROGRAM} markets list` that there is such a market"
            ) from error
        except UnknownMarket as error:
            refusal = refused(Reason.unknown_market, f"there is no market {error.market!r}")
            raise caller.refusal(refusal) from error
        except OutcomeUnknown as error:
            text = str(error)
            if not error.is_forgotten and self._resend is not None:
                text = _unknown_text(text, self._resend(caller, error.commands[0]))
            raise click.ClickException(text) from error
        except LogTrimmed as error:
            raise click.ClickException(
                f"{error}; begin there: --from {error.first_sequence}"
            ) from error
        except NotConfirmed as error:
            raise click.ClickException(f"{error}; do it again, which is harmless") from error
        except (ExchangeError, OverflowError) as error:
            text = str(error)
            if caller.under_way is not None and self._resend is not None:
                # An answer that cannot be read says nothing about what was asked.
                text = _unknown_text(text, self._resend(caller, caller.under_way))
            raise click.ClickException(text) from error


class PeerCommand(AskingCommand):
    """A command that a peer gives to a market."""

    has_peer = True
    has_market = True


class OperatorCommand(AskingCommand):
    """A command about markets, which names them itself."""


def _unknown_text(what: str, words: Sequence[str]) -> str:
    return (
        f"{what}: it may or may not have been executed. Find out by sending it again, "
        f"with the same id, which never executes it twice:\n  {shell_text(words)}"
    )


def _caller(context: click.Context, values: dict[str, Any]) -> Caller:
    # Takes the shared values out of the command's own.
    root = context.find_root()
    sources = [(context, "nats"), (root, "servers")]
    return Caller(
        servers=values.pop("nats") or root.params["servers"],
        servers_were_named=any(
            where.get_parameter_source(name) is ParameterSource.COMMANDLINE
            for where, name in sources
        ),
        peer=values.pop("peer", PEER),
        market=values.pop("market_name", MARKET),
        deadline_s=values.pop("deadline_s"),
        output=Output(as_json=values.pop("as_json")),
        credentials=credentials(values, otherwise=root.params),
    )


def _shared_options(*, peer: bool, market: bool) -> list[click.Parameter]:
    options: list[click.Parameter] = []
    if market:
        options.append(
            click.Option(
                ["--market", "market_name"],
                default=MARKET,
                envvar="DEX_MARKET",
                callback=market_name,
                metavar="NAME",
                show_default=True,
                show_envvar=True,
                help="The market.",
            )
        )
    if peer:
        options.append(
            click.Option(
                ["--peer"],
                default=PEER,
                envvar="DEX_PEER",
                callback=peer_name,
                metavar="NAME",
                show_default=True,
                show_envvar=True,
                help="The name you trade under; one program at a time may use it.",
            )
        )
    options += [
        click.Option(
            ["--nats"],
            multiple=True,
            callback=nats_servers,
            metavar="URL",
            help=f"Address of a NATS server; also before the command, see `{PROGRAM} --help`.",
        ),
        *credential_options(),
        click.Option(
            ["--deadline", "deadline_s"],
            type=float,
            default=DEADLINE_S,
            callback=above_0,
            show_default=True,
            metavar="SECONDS",
            help="How long to try.",
        ),
        click.Option(
            ["--json", "as_json"], is_flag=True, help="Print JSON, an object in each line."
        ),
    ]
    return options
