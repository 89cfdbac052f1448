# Every recipe is one call of a typed and tested program; `uv run` makes what it needs.
set positional-arguments

# List the recipes.
default:
    @uv run just --list --unsorted

# Start an exchange on this machine: three NATS nodes, two servers (--servers, --port, --market).
[no-exit-message]
up *arguments:
    @uv run dex-local up "$@"

# End it, and keep its data.
[no-exit-message]
down *arguments:
    @uv run dex-local down "$@"

# End it, and remove its data.
[no-exit-message]
clean *arguments:
    @uv run dex-local clean "$@"

# Show what runs, and how the markets stand.
[no-exit-message]
status *arguments:
    @uv run dex-local status "$@"

# Start one more server, or one that has ended: just add-server [NAME].
[no-exit-message]
add-server *arguments:
    @uv run dex-local add-server "$@"

# End a server by SIGKILL, to see what becomes of its markets: just kill-server NAME.
[no-exit-message]
kill-server *arguments:
    @uv run dex-local kill-server "$@"

# End a server, and forget it: just stop-server NAME.
[no-exit-message]
stop-server *arguments:
    @uv run dex-local stop-server "$@"

# Say who may trade: just peers add|list|rotate|remove [NAME].
[no-exit-message]
peers *arguments:
    @uv run dex-local peers "$@"

# Send 1,000 orders through an exchange made just for that, and verify them (--servers, --json -).
[no-exit-message]
demo *arguments:
    @uv run dex-local demo "$@"

# Run the tests: all of them in two processes, those that are named in one.
[no-exit-message]
test *arguments:
    @uv run pytest {{ if arguments == "" { "--numprocesses 2" } else { "" } }} "$@"

# Write the scenarios' golden texts and the documents' tables anew, for review.
rewrite:
    uv run python -m tests.scenarios.rewrite
    uv run python -m tests.tidy.tables

# Check style and types, and, where that can be asked, for known vulnerabilities.
check:
    uv run ruff check
    uv run ruff format --check
    uv run mypy
    uv run python -m deploy.audit

# Ask about known vulnerabilities of everything that is installed; options go to pip-audit.
[no-exit-message]
audit *arguments:
    @uv run python -m deploy.audit "$@"

# Measure how fast it is, beside what bounds it and what else there is (--only, --rounds, --json).
[no-exit-message]
bench *arguments:
    @uv run --group bench python -m bench.speed "$@"

# The same in two minutes: three rounds of short ones.
[no-exit-message]
bench-quick *arguments:
    @uv run --group bench python -m bench.speed --quick "$@"

# Record a server's memory while a million orders come and go (--orders).
[no-exit-message]
bench-memory *arguments:
    @uv run python -m bench.memory "$@"

# Measure what deaths, stops and joins cost on real clusters under load (--only, --kills, --json).
[no-exit-message]
failover *arguments:
    @uv run python -m bench.failover "$@"

# Attack an exchange as one peer may, and measure what others notice (--only, --seconds, --json).
[no-exit-message]
attack *arguments:
    @uv run python -m bench.attack "$@"

# Show where a leader's time goes, while orders come in (--batches, --seconds, --flame FILE).
[no-exit-message]
profile *arguments:
    @uv run --group bench python -m bench.speed.profile "$@"

# Fuzz a million requests, then raw bytes on all that reads them (--requests, --seconds, --seed).
[no-exit-message]
fuzz *arguments:
    @uv run --group fuzz python -m tests.fuzz "$@"

# Hurt a real cluster under load, and judge all that was seen (--seed, --duration, --picture).
[no-exit-message]
chaos *arguments:
    @uv run --group chaos python -m tests.chaos "$@"

# Simulate the exchange of one seed, and print all that happens in it: just sim SEED.
[no-exit-message]
sim *arguments:
    @uv run python -m tests.simulation one "$@"

# Simulate many on all cores, and sum them up: just sim-many 1000 (--from, --mutant, --json).
[no-exit-message]
sim-many *arguments:
    @uv run python -m tests.simulation many "$@"

# Format the code.
fmt:
    uv run ruff check --fix-only
    uv run ruff format

# Build the real nats command line tool with Go; with arguments, run it against the local nodes.
[no-exit-message]
nats-cli *arguments:
    @uv run python -m deploy.nats_cli "$@"
