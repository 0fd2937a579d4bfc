"""Messages between the coordinator and its workers: whole there and back, and nothing else gets in."""

from __future__ import annotations

import json
import random
import socket
import typing
from dataclasses import replace
from typing import Any

import pytest

from headway.core import roll
from headway.core.ledger import BOOKED
from headway.core.watch import At, Patience
from headway.elastic.wire import frames, link, pulse
from headway.elastic.wire import messages as wire

LEDGER = tuple(float(cause) for cause in range(len(BOOKED)))
FROM_WORKER: list[Any] = [
    wire.Hello("w0", "token", 0.5, 12, "10.0.0.1", 4000),
    wire.Beat(3, 1.25, 17, 3, False, 4, 0.5, LEDGER, 77),
    wire.Ready(),
    wire.Arrived(2, -1, 0, True),
    wire.Committed(2, 5, 0.25),
    wire.Lost(2, "broke", ("w1", "w2")),
    wire.Diverged("w1", 7),
    wire.Raised("user", {"kind": "task", "fact": "f", "reason": "r"}),
    wire.Finished(),
    wire.Put(2, "0/1", "AAAA"),
    wire.Want(2, "0/1"),
    wire.Locate(2, ("10.0.0.1",)),
    wire.Keeper("10.0.0.1", 4002),
    wire.Evaluated(40, {"loss": "0.25", "accuracy": "nan"}, True),
]
FROM_LEAD: list[Any] = [
    wire.Welcome(True, (("10.0.0.1", 4002),), 40, "paused"),
    wire.Keepers((("10.0.0.1", 4002), ("10.0.0.2", 4003))),
    wire.Publish(2, ("w0", "w1"), True, (0, 3)),
    wire.Publish(3, ("w5*3",), False, (1,), 2, ((0, 1), (3, 2))),
    wire.Pause(3, False, True),
    wire.Go(2, None, (-1, 0), ((1, 2, 3, 4),), 1.6, (0, 0, 1, 0, 2)),
    wire.Seats(2, ("10.0.0.1",), (("w0", "10.0.0.1", 4000),)),
    wire.Lease(3, 100.5, 0.8),
    wire.Save("why"),
    wire.Until(40),
    wire.Leave("paused"),
    wire.Dismiss(False, "why"),
    wire.Value(2, "0/1", "AAAA"),
]


def test_every_message_is_the_same_on_the_other_side() -> None:
    assert {type(m) for m in FROM_WORKER} == set(typing.get_args(wire.FromWorker))
    assert {type(m) for m in FROM_LEAD} == set(typing.get_args(wire.FromLead))
    for message in FROM_WORKER:
        assert wire.from_worker(wire.encode(message)) == message
    for message in FROM_LEAD:
        assert wire.from_lead(wire.encode(message)) == message


def test_the_other_sides_messages_are_refused() -> None:
    for message in FROM_LEAD:
        with pytest.raises(ValueError, match="not a message"):
            wire.from_worker(wire.encode(message))


@pytest.mark.parametrize(
    "message", [m for m in FROM_WORKER if not isinstance(m, wire.Beat)], ids=lambda m: type(m).__name__
)
def test_fields_are_of_their_type_and_none_is_missing_or_more(message: Any) -> None:
    tree = json.loads(wire.encode(message))
    others: list[Any] = [None, "x", True, 1, 1.5, [], {}, [[1]], {"a": []}, 2**63, 1e300]
    for name in [n for n in tree if n != "kind"]:
        with pytest.raises(ValueError):  # noqa: PT011  any, and no other error
            wire.from_worker(json.dumps({k: v for k, v in tree.items() if k != name}).encode())
        for other in others:
            try:
                found = wire.from_worker(json.dumps({**tree, name: other}).encode())
            except ValueError:
                continue
            value, before = getattr(found, name), getattr(message, name)
            assert type(value) is type(before), f"{name}={other!r}"
    with pytest.raises(ValueError, match="with the fields"):
        wire.from_worker(json.dumps({**tree, "more": 1}).encode())


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\n", b"null", b"[]", b"{}", b"\xff", b"[" * 99999),
        *(b'{"kind":1}', b'{"kind":["beat"]}', b'{"kind":"beat"}', b'{"kind":"nonsense"}'),
        b'{"kind":"committed","generation":1,"step":1,"pause_s":NaN}',
        b'{"kind":"want","generation":1e9,"key":""}',
        b'{"kind":"want","generation":' + b"9" * 5000 + b',"key":""}',
        b'{"kind":"ready"' + b" " * wire.LINE_BYTES + b"}",
    ],
    ids=lambda line: line[:12],
)
def test_what_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        wire.from_worker(line)


def test_what_is_told_to_all_is_encoded_once() -> None:
    line = wire.publish(4, (((0, 1),), ("w0", "w1")), True, 3)
    for lanes in ((), (1,), (0, 2, 5)):
        assert line(lanes) == wire.encode(wire.Publish(4, ("w0", "w1"), True, lanes, 3, ((0, 1),)))
    word = wire.Go(4, 0, (5, 5), ((1, 1, -1, 0),), 1.6, (1, 0, 1, 0, 2))
    assert wire.go(word)(word.spot) == wire.encode(word)


def test_a_generation_of_ten_thousand_costs_each_worker_little() -> None:
    """2: scale. Everything together was 58 kB for each of 4,000, 232 MB in all."""
    members = [f"w{i}" for i in range(10_000)]
    assert len(wire.publish(1, ((), roll.written(members)), True, 0)((0, 1))) < 200
    lost = random.Random(0).sample(members, 100)
    after = [m for m in members if m not in set(lost)] + [f"w{10_000 + i}" for i in range(100)]
    change = roll.change(members, after)
    assert change is not None
    assert len(wire.publish(2, change, True, 1)((0, 1))) < 1500


def test_a_secret_is_not_shown() -> None:
    assert "token" not in repr(wire.Hello("w0", "very-secret", 0.0, 1, "", 0)).replace("token=", "")
    assert "very-secret" not in repr(wire.Hello("w0", "very-secret", 0.0, 1, "", 0))


BEAT: Any = FROM_WORKER[1]


@pytest.mark.parametrize("number", range(400))
def test_bad_input_a_beat_is_whole_and_says_what_can_be_or_is_none(number: int) -> None:
    draw, frame = random.Random(number), wire.encode(BEAT)
    at = draw.randrange(1, len(frame))
    bad = draw.choice([frame[:at], frame + b"x", frame[:at] + draw.randbytes(draw.randint(1, 16)) + frame[at:]])
    with pytest.raises(ValueError, match="no beat"):
        wire.from_worker(bad)
    changed = frame[:at] + draw.randbytes(1) + frame[at + 1 :]
    try:
        found: Any = wire.from_worker(changed)
    except ValueError:
        return
    assert 0 <= found.at < len(At)
    assert found.number >= 0
    assert all(0.0 <= seconds < 2.0**36 for seconds in (found.heard, found.lane_s, *found.ledger))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 1e15, 1e300])
@pytest.mark.parametrize("name", ["heard", "lane_s", "ledger"])
def test_bad_input_a_beat_of_what_is_no_time_is_refused(name: str, bad: float) -> None:
    for place in range(len(BOOKED)) if name == "ledger" else [0]:
        value: Any = (*LEDGER[:place], bad, *LEDGER[place + 1 :]) if name == "ledger" else bad
        with pytest.raises(ValueError, match="what there is not"):
            wire.from_worker(wire.encode(replace(BEAT, **{name: value})))


def test_bad_input_a_lease_that_cannot_be_is_refused() -> None:
    for lease in (wire.Lease(1, float("nan")), wire.Lease(1, -1.0), wire.Lease(1, 1.0, 0.0), wire.Lease(1, 1.0, 1e9)):
        with pytest.raises(ValueError, match="what there is not"):
            wire.from_lead(wire.encode(lease))
    secret = pulse.key("token", "w0")
    for period_s in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(ValueError, match="between pulses"):
            pulse.opened_answer(pulse.answer(pulse.Answer(1, 1.0, period_s), secret), secret)


def test_no_frame_begins_as_a_line_does_and_each_is_small() -> None:
    assert not {ord("{"), ord("\n")} & set(frames.SIZES)
    assert all(len(wire.encode(m)) == frames.SIZES[wire.encode(m)[0]] for m in (BEAT, wire.Lease(1, 2.0)))
    assert max(frames.SIZES.values()) < 200


SAID = pulse.Pulse("w0", 5, 2.5, 7, -1, 3, True, False, 1200)


def test_a_pulse_is_the_same_on_the_other_side() -> None:
    secret = pulse.key("token", "w0")
    assert pulse.opened(pulse.pulse(SAID, secret), secret) == SAID
    assert pulse.opened_answer(pulse.answer(pulse.Answer(5, 1.5), secret), secret) == pulse.Answer(5, 1.5)


def test_pulses_of_strangers_are_refused() -> None:
    secret, other = pulse.key("token", "w0"), pulse.key("token", "w1")
    assert secret != pulse.key("another", "w0")
    datagram = pulse.pulse(SAID, secret)
    bad = [b"", b"x", datagram[:-1], datagram + b"x", datagram[20:], pulse.answer(pulse.Answer(5, 1.5), secret)]
    bad += [datagram[:i] + bytes([datagram[i] ^ 1]) + datagram[i + 1 :] for i in range(len(datagram))]
    for each in [*bad, pulse.pulse(SAID, other)]:
        with pytest.raises(ValueError):  # noqa: PT011
            pulse.opened(each, secret)
    with pytest.raises(ValueError):  # noqa: PT011  one's own pulse, sent back
        pulse.opened_answer(datagram, secret)


def test_lost_packets_are_sent_again_each_second_where_the_kernel_can() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as made:
        link.make_quick(made)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        try:
            longest = made.getsockopt(socket.IPPROTO_TCP, link.RTO_MAX_MS)
        except OSError:
            pytest.skip("this kernel does not know TCP_RTO_MAX_MS")
        assert longest == link.LONGEST_RETRY_MS


def test_2_4_a_connection_outlasts_the_silence_that_may_be_the_leads_own() -> None:
    """With pauses of a second a kernel gives up after 15 s, and the end of a connection is taken for a death."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as made:
        link.make_quick(made)
        lasts_ms = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert lasts_ms > 1000 * Patience.of(silence_s=60.0).lost_s
