"""Peers come and go by `dex-local peers` while the exchange runs, and nobody else notices.

Alice trades all the while over one connection, and follows the events.
"""

import asyncio
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from deploy import nodes
from deploy.keys import KeyConflict, Keyring, new_seed, public_key, write_private
from dex_runtime import connection
from dex_runtime.connection import ConnectionOptions, Credentials
from dex_runtime.messaging import NoReply, NoResponder, Requester
from tests.integration.programs import PATIENCE_S, eventually
from tests.integration.test_local import free_runs
from tests.nats_nodes import Nodes
from tests.security.attacker import Attacker, attacking, seed_of
from tests.security.command_line import Said, said
from tests.security.scene import submit

MARKET = "BTC-USD"

REFUSED = "Authorization Violation"


class Local:
    """The exchange that a directory holds, by `dex-local`."""

    def __init__(self, directory: Path, *, node_count: int) -> None:
        """Start nothing yet."""
        self.directory = directory
        self._client_port, self._cluster_port = free_runs(2, length=node_count)
        self.ports = range(self._client_port, self._client_port + node_count)

    async def run(self, *words: str) -> Said:
        """Run a command to its end."""
        return await said("dex-local", *words, "--dir", str(self.directory))

    async def does(self, *words: str) -> str:
        """Run a command that must succeed, and give what it says."""
        answer = await self.run(*words)
        assert answer.code == 0, answer.stderr
        return answer.stdout

    async def up(self) -> None:
        """Start it."""
        ports = ("--port", str(self._client_port), "--cluster-port", str(self._cluster_port))
        options = ("--nodes", str(len(self.ports)), "--servers", "1", "--market", MARKET)
        await self.does("up", *ports, *options)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(f"nats://{nodes.HOST}:{port}" for port in self.ports)

    @property
    def keys(self) -> Path:
        """Where its keys are."""
        return self.directory / "keys"

    def key_of(self, peer: str) -> Path:
        """Where a peer's key is."""
        return self.keys / "peers" / f"{peer}.nk"

    def remembered(self) -> dict[str, bytes]:
        """Give all that is remembered of keys, by file."""
        files = [*self.keys.rglob("*"), *self.directory.glob("nodes/accounts.conf")]
        return {str(file): file.read_bytes() for file in files if file.is_file()}


@asynccontextmanager
async def local(directory: Path, *, node_count: int) -> AsyncIterator[Local]:
    """Run an exchange for as long as the block lasts."""
    made = Local(directory, node_count=node_count)
    try:
        await made.up()
        yield made
    finally:
        await made.run("down")


class Alice:
    """Trades one order after the other, and notes all that goes wrong."""

    def __init__(self) -> None:
        """Use `trading`."""
        self.disconnections = 0
        self.answered: list[str] = []
        self.unanswered: list[str] = []
        self.sequences: list[int] = []
        self.is_done = False

    async def trade(self, requester: Requester) -> None:
        """Send one order after the other, each until somebody serves."""
        while not self.is_done:
            order = submit(len(self.answered) + len(self.unanswered) + 1)
            try:
                answer = await requester.request(
                    f"dex.orders.{MARKET}.alice", msgspec.json.encode(order), timeout_s=5
                )
            except NoResponder:
                # While a node reads its accounts it may not know for a moment who serves: nothing
                # happened, and any peer sends it again.
                continue
            except NoReply as error:
                self.unanswered.append(f"{order['order_id']}: {error}")
                continue
            receipt = msgspec.json.decode(answer)
            self.answered.append(f"{receipt['order_id']} {receipt['status']}")
            await asyncio.sleep(0.001)

    async def trades_on(self, count: int) -> None:
        """Wait for so many more answers."""
        enough = len(self.answered) + count

        async def look() -> bool | None:
            return True if len(self.answered) >= enough else None

        await eventually(look, what=f"{enough} answers to alice, found {self.unanswered}")


@asynccontextmanager
async def trading(where: Local) -> AsyncIterator[Alice]:
    """Have alice trade for as long as the block lasts."""
    alice = Alice()

    def disconnected() -> None:
        alice.disconnections += not alice.is_done

    options = ConnectionOptions(
        servers=where.urls,
        name="alice",
        credentials=Credentials(nkey=str(where.key_of("alice"))),
    )
    client = await connection.connect(options, on_disconnected=disconnected)
    subscription = await client.subscribe(f"dex.events.{MARKET}")
    requester = await Requester.start(client)
    task = asyncio.create_task(alice.trade(requester))
    try:
        await alice.trades_on(10)
        yield alice
        await alice.trades_on(10)
        alice.is_done = True
        await task
        async with asyncio.timeout(PATIENCE_S):
            newest = await requester.request(
                f"dex.query.{MARKET}.status.alice", b"", timeout_s=PATIENCE_S
            )
            sequence = msgspec.json.decode(newest)["sequence"]
            while not alice.sequences or alice.sequences[-1] < sequence:
                message = await subscription.next_msg(timeout=PATIENCE_S)
                alice.sequences.append(msgspec.json.decode(message.data)["sequence"])
    finally:
        alice.is_done = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close(client)


@asynccontextmanager
async def at(where: Local, port: int, key: Path) -> AsyncIterator[Attacker]:
    """Be at a node with a key for as long as the block lasts."""
    assert port in where.ports
    seed = seed_of(Credentials(nkey=str(key)))
    async with attacking(Nodes([]), port=port, seed=seed) as somebody:
        yield somebody


async def trades_everywhere(where: Local, peer: str, key: Path, first: int) -> None:
    """Make sure that a peer can trade at once, on every node."""
    for number, port in enumerate(where.ports, start=first):
        async with at(where, port, key) as somebody:
            await somebody.answers_come()
            receipt = await somebody.ask(f"dex.orders.{MARKET}.{peer}", submit(number, peer))
            assert (port, receipt["status"]) == (port, "new")


async def is_refused_everywhere(where: Local, key: Path) -> None:
    """Make sure that a key opens no node."""
    for port in where.ports:
        async with at(where, port, key) as somebody:
            assert (port, await somebody.cut()) == (port, REFUSED)


def copy_of(key: Path, directory: Path) -> Path:
    """Keep a key that will be changed or removed."""
    kept = directory / f"{key.stem}-{key.read_bytes()[:12].decode()}.nk"
    write_private(kept, key.read_bytes())
    return kept


@pytest.mark.parametrize("node_count", [1, 3])
async def test_peers_come_and_go_without_a_disconnection_or_a_lost_answer_of_alices(
    node_count: int, tmp_path: Path
) -> None:
    async with local(tmp_path / "data", node_count=node_count) as where:
        assert await where.does("peers", "add", "alice") == (
            f"alice is let in, its key is {where.key_of('alice')}.\n"
        )
        async with trading(where) as alice:
            await where.does("peers", "add", "bob")
            bob = where.key_of("bob")
            await trades_everywhere(where, "bob", bob, 1)

            carol = tmp_path / "carol.nk"
            write_private(carol, new_seed())
            added = await where.does(
                "peers", "add", "carol", "--public-key", public_key(carol.read_bytes())
            )
            assert added == "carol is let in, with a key of its own.\n"
            assert not where.key_of("carol").exists()
            await trades_everywhere(where, "carol", carol, 1)

            listed = await where.does("peers", "list")
            rows = [line.split(maxsplit=1) for line in listed.splitlines()]
            assert rows[0] == ["PEER", "PRIVATE KEY"]
            assert rows[-3:] == [
                ["alice", str(where.key_of("alice"))],
                ["bob", str(bob)],
                ["carol", "not here"],
            ]

            old = copy_of(bob, tmp_path)
            async with at(where, where.ports[-1], old) as connected:
                assert await connected.settled() == []
                rotated = await where.does("peers", "rotate", "bob")
                assert (
                    rotated == f"bob has another key, its key is {bob}; the old one is refused.\n"
                )
                await connected.cut()
            await is_refused_everywhere(where, old)
            await trades_everywhere(where, "bob", bob, 11)

            new = copy_of(bob, tmp_path)
            async with at(where, where.ports[0], new) as connected:
                assert await connected.settled() == []
                removed = await where.does("peers", "remove", "bob")
                assert removed == "bob is not let in any more.\n"
                await connected.cut()
            await is_refused_everywhere(where, old)
            await is_refused_everywhere(where, new)
            assert not bob.exists()
            assert "bob" not in await where.does("peers", "list")
            await trades_everywhere(where, "carol", carol, 11)

        assert alice.disconnections == 0
        assert alice.unanswered == []
        assert {answer.split()[1] for answer in alice.answered} == {"new"}
        first = alice.sequences[0]
        assert alice.sequences == list(range(first, first + len(alice.sequences)))

        _check_files(where)


def _check_files(where: Local) -> None:
    files = [each for each in where.keys.rglob("*") if each.is_file()]
    directories = [where.keys, *(each for each in where.keys.rglob("*") if each.is_dir())]
    assert len(files) > 5
    assert {str(each): oct(stat.S_IMODE(each.stat().st_mode)) for each in files} == {
        str(each): "0o600" for each in files
    }
    assert {str(each): oct(stat.S_IMODE(each.stat().st_mode)) for each in directories} == {
        str(each): "0o700" for each in directories
    }
    # What a node reads is nobody else's business, and no more than it needs.
    configurations = sorted(where.directory.glob("nodes/**/*.conf"))
    assert len(configurations) == 1 + len(where.ports)
    for file in configurations:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    seeds = [each.read_text().strip() for each in where.keys.rglob("*.nk")]
    for file in (each for each in where.directory.rglob("*") if each.is_file()):
        if where.keys not in file.parents:
            text = file.read_bytes().decode(errors="replace")
            assert [seed for seed in seeds if seed in text] == [], file
    accounts = (where.directory / "nodes" / "accounts.conf").read_text()
    assert re.search(r"\bS[A-Z][A-Z2-7]{40,}", accounts) is None


async def test_wrong_names_and_keys_get_a_sentence_and_change_nothing(tmp_path: Path) -> None:
    async with local(tmp_path / "data", node_count=1) as where:
        await where.does("peers", "add", "bob")
        before = where.remembered()
        seed = new_seed().decode()
        again = "already; `rotate` gives it another key"
        names = "expected 1 to 32 letters, digits, - and _, found"
        peers = ", ".join(["default", *(f"load-{number}" for number in range(1, 9)), "bob"])
        nobody = f"there is no peer nobody; there are: {peers}"
        for words, sentence in {
            ("add", "bob"): f"there is a peer bob {again}",
            (
                "add",
                "default",
            ): f"there is a peer default {again}",
            ("add", "../bob"): f"{names} '../bob'",
            ("add", "*"): f"{names} '*'",
            ("add", ">"): f"{names} '>'",
            ("add", "a.b"): f"{names} 'a.b'",
            ("add", ""): f"{names} ''",
            ("add", "a b"): f"{names} 'a b'",
            ("add", "é"): f"{names} 'é'",
            ("add", "x" * 33): f"{names} '{'x' * 33}'",
            ("rotate", "nobody"): nobody,
            ("remove", "nobody"): nobody,
            ("remove", "Bob"): nobody.replace("nobody", "Bob"),
            ("add", "eve", "--public-key", "UABC"): (
                "expected a user's public nkey, 56 characters from U on, found 'UA'…"
            ),
            ("rotate", "bob", "--public-key", seed): (
                "expected a user's public nkey, 56 characters from U on, found 'SU'…"
            ),
        }.items():
            answer = await where.run("peers", *words)
            assert answer == Said(1, "", f"Error: {sentence}\n")
            assert where.remembered() == before, words
        # And bob still trades.
        await trades_everywhere(where, "bob", where.key_of("bob"), 1)


@pytest.mark.parametrize("whose", ["another peer's", "the operator's"])
def test_key_that_is_somebodys_already_is_no_peers(whose: str, tmp_path: Path) -> None:
    """A public key is no secret: who asks to be let in with another's would lock out everybody."""
    keyring = Keyring(tmp_path / "keys", first_peers=("default", "load-1"))
    taken = keyring.role("operator") if whose == "the operator's" else keyring.peers()["default"]
    before = keyring.peers()

    with pytest.raises(KeyConflict):
        keyring.add("eve", taken)
    with pytest.raises(KeyConflict):
        keyring.rotate("load-1", taken)

    assert keyring.peers() == before
