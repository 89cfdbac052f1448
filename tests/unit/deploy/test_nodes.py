"""What a node is told, and which ports it is given."""

import socket
from pathlib import Path

from deploy import nodes


def test_single_node_listens_on_loopback_alone_and_syncs_always(tmp_path: Path) -> None:
    """NATS' own default would be to sync every two minutes (G2)."""
    text = nodes.config_text(nodes.alone(tmp_path, port=4222))

    assert text == (
        'server_name: "nats-1"\n'
        'listen: "127.0.0.1:4222"\n'
        "\n"
        "# A stopped peer that holds its connection open is left after 3 s, not after 6 minutes:\n"
        "# until then it swallows its share of a queue group's requests.\n"
        'ping_interval: "1s"\n'
        "ping_max: 2\n"
        'write_deadline: "2s"\n'
        "\n"
        "# Each refusal is a line, and somebody refused may ask a million times a second.\n"
        f'log_file: "{tmp_path}/nats.log"\n'
        "logfile_size_limit: 67108864\n"
        "logfile_max_num: 4\n"
        "\n"
        "jetstream {\n"
        f'  store_dir: "{tmp_path}/store"\n'
        '  sync_interval: "always"\n'
        "}\n"
    )


def test_cluster_node_has_routes_to_all_others_and_not_to_itself(tmp_path: Path) -> None:
    settings = nodes.cluster(
        tmp_path, client_ports=[4222, 4223, 4224], cluster_ports=[6222, 6223, 6224]
    )

    assert [node.name for node in settings] == ["nats-1", "nats-2", "nats-3"]
    assert settings[1].routes == ("127.0.0.1:6222", "127.0.0.1:6224")
    assert nodes.config_text(settings[1]).endswith(
        "cluster {\n"
        '  name: "dex"\n'
        '  listen: "127.0.0.1:6223"\n'
        "  routes: [\n"
        '    "nats-route://127.0.0.1:6222"\n'
        '    "nats-route://127.0.0.1:6224"\n'
        "  ]\n"
        "}\n"
    )


def test_locked_cluster_includes_the_accounts_and_knows_its_own_nodes_by_a_password(
    tmp_path: Path,
) -> None:
    access = nodes.Access(
        accounts_file=tmp_path / "accounts.conf",
        operator_key=tmp_path / "operator.nk",
        routes_password="s3cret",
    )
    first, _ = nodes.cluster(
        tmp_path, client_ports=[4222, 4223], cluster_ports=[6222, 6223], access=access
    )
    text = nodes.config_text(first)

    assert 'include "../accounts.conf"\n' in text
    assert '  authorization { user: "node", password: "s3cret" }\n' in text
    assert '    "nats-route://node:s3cret@127.0.0.1:6223"\n' in text
    assert "tls" not in text
    assert nodes.write_config(first).stat().st_mode & 0o077 == 0


def test_nodes_with_certificates_ask_each_other_for_theirs_and_clients_for_none(
    tmp_path: Path,
) -> None:
    access = nodes.Access(
        accounts_file=tmp_path / "accounts.conf",
        operator_key=tmp_path / "operator.nk",
        routes_password="s3cret",
        certificates=nodes.Certificates(
            authority=Path("ca.pem"), certificate=Path("node.pem"), key=Path("node.key")
        ),
    )
    first, _ = nodes.cluster(
        tmp_path, client_ports=[4222, 4223], cluster_ports=[6222, 6223], access=access
    )
    clients, routes = nodes.config_text(first).split("cluster {")

    for part in (clients, routes):
        assert 'cert_file: "node.pem"' in part
        assert 'key_file: "node.key"' in part
        assert 'ca_file: "ca.pem"' in part
    assert "verify: true" in routes
    assert "verify" not in clients


def test_what_is_asked_for_beyond_the_usual_is_in_the_configuration(tmp_path: Path) -> None:
    settings = nodes.NodeSettings(
        name="n",
        client_port=4222,
        directory=tmp_path,
        cluster_port=6222,
        is_advertised=False,
        monitoring_port=8222,
        extra="max_connections: 7",
    )

    text = nodes.config_text(settings)

    assert 'http: "127.0.0.1:8222"\n' in text
    assert "no_advertise: true\n" in text
    assert 'advertise: "127.0.0.1:1"\n' in text
    assert text.endswith("max_connections: 7\n")


def test_configuration_is_written_with_quotes_and_letters_of_any_kind(tmp_path: Path) -> None:
    settings = nodes.alone(tmp_path / 'a "quoted" ünit', port=4222)

    text = nodes.write_config(settings).read_text(encoding="utf-8")

    assert 'a \\"quoted\\" ünit/store"' in text


def test_free_ports_are_different_and_below_those_of_outgoing_connections() -> None:
    ports = nodes.free_ports(50)

    assert len(set(ports)) == 50
    assert all(20_000 <= port < 30_000 for port in ports)


def test_port_is_free_until_somebody_listens() -> None:
    (port,) = nodes.free_ports(1)
    assert nodes.is_free(port)

    with socket.create_server((nodes.HOST, port)):
        assert not nodes.is_free(port)

    assert nodes.is_free(port)


def test_port_that_somebody_has_on_all_addresses_is_taken() -> None:
    (port,) = nodes.free_ports(1)

    with socket.create_server(("0.0.0.0", port)):
        assert not nodes.is_free(port)
