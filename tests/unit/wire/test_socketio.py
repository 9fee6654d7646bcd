"""What is read by Socket.IO's revision 5, as its protocol document and its JavaScript parser have it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.clients.packets import receive, refuse

from socketcluster_wire import socketio
from socketcluster_wire.errors import MalformedPacketError, PacketTooLargeError
from socketcluster_wire.socketio import MAX_ACK_ID, MAX_ATTACHMENTS, Decoder, Packet, PacketType

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = PacketType
PLACEHOLDER = '{"_placeholder":true,"num":%d}'


def assert_written_and_read(packet: Packet, text: str, *attachments: bytes) -> None:
    assert socketio.encode(packet) == (text.encode(), list(attachments))
    assert receive(text, *attachments) == packet


# The protocol document's examples of the encoding.


def test_the_types_have_the_numbers_of_the_protocol() -> None:
    assert [(kind.name, int(kind)) for kind in PacketType] == [
        ("CONNECT", 0),
        ("DISCONNECT", 1),
        ("EVENT", 2),
        ("ACK", 3),
        ("CONNECT_ERROR", 4),
    ]
    assert socketio.REVISION == 5


def test_a_client_connects_to_the_main_namespace() -> None:
    assert_written_and_read(Packet(CONNECT, "/"), "0")


def test_a_client_connects_to_the_main_namespace_with_a_payload() -> None:
    assert_written_and_read(Packet(CONNECT, "/", {"token": "123"}), '0{"token":"123"}')


def test_a_client_connects_to_a_custom_namespace() -> None:
    assert_written_and_read(Packet(CONNECT, "/admin"), "0/admin,")


def test_a_client_connects_to_a_custom_namespace_with_a_payload() -> None:
    assert_written_and_read(Packet(CONNECT, "/custom", {"token": "abc"}), '0/custom,{"token":"abc"}')


def test_a_server_responds_with_the_session_id() -> None:
    sid = "wZX3oN0bSVIhsaknAAAI"
    assert_written_and_read(socketio.connect("/", sid), '0{"sid":"wZX3oN0bSVIhsaknAAAI"}')
    assert_written_and_read(socketio.connect("/admin", sid), '0/admin,{"sid":"wZX3oN0bSVIhsaknAAAI"}')


def test_a_server_that_recovers_connections_responds_with_a_private_id_too() -> None:
    assert_written_and_read(socketio.connect("/", "a", "b"), '0{"sid":"a","pid":"b"}')


def test_a_server_refuses_a_connection_with_an_object() -> None:
    assert_written_and_read(socketio.connect_error("/", "Not authorized"), '4{"message":"Not authorized"}')
    assert_written_and_read(
        socketio.connect_error("/random", "Invalid namespace"), '4/random,{"message":"Invalid namespace"}'
    )


def test_a_connect_error_has_the_data_of_the_middleware() -> None:
    packet = socketio.connect_error("/", "no", {"code": 7})
    assert_written_and_read(packet, '4{"message":"no","data":{"code":7}}')


def test_a_connect_error_of_earlier_revisions_is_a_string() -> None:
    assert_written_and_read(Packet(CONNECT_ERROR, "/", "no"), '4"no"')


def test_an_event_to_the_main_namespace() -> None:
    assert_written_and_read(socketio.event("/", ["foo"]), '2["foo"]')


def test_an_event_to_a_custom_namespace() -> None:
    assert_written_and_read(socketio.event("/admin", ["bar"]), '2/admin,["bar"]')


def test_an_event_with_binary_data() -> None:
    packet = socketio.event("/", ["baz", b"\1\2\3\4"])
    assert_written_and_read(packet, '51-["baz",{"_placeholder":true,"num":0}]', b"\1\2\3\4")


def test_an_event_with_several_attachments_to_a_custom_namespace() -> None:
    text = '52-/admin,["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'
    assert_written_and_read(socketio.event("/admin", ["baz", b"\1\2", b"\3\4"]), text, b"\1\2", b"\3\4")


def test_an_event_that_wants_an_acknowledgement() -> None:
    assert_written_and_read(socketio.event("/", ["foo"], 12), '212["foo"]')
    assert_written_and_read(socketio.event("/", ["foo"], 0), '20["foo"]')
    assert_written_and_read(socketio.event("/admin", ["foo"], 13), '2/admin,13["foo"]')


def test_an_acknowledgement_may_be_empty() -> None:
    assert_written_and_read(socketio.ack("/", 12, []), "312[]")


def test_an_acknowledgement_has_the_id_of_its_event() -> None:
    assert_written_and_read(socketio.ack("/admin", 13, ["bar"]), '3/admin,13["bar"]')
    assert_written_and_read(socketio.ack("/", 0, ["bar"]), '30["bar"]')


def test_an_event_with_binary_data_that_wants_an_acknowledgement() -> None:
    packet = socketio.event("/", ["foo", b"\1\2\3\4"], 14)
    assert_written_and_read(packet, '51-14["foo",{"_placeholder":true,"num":0}]', b"\1\2\3\4")


def test_an_acknowledgement_with_binary_data() -> None:
    packet = socketio.ack("/", 15, ["bar", b"\1\2\3\4"])
    assert_written_and_read(packet, '61-15["bar",{"_placeholder":true,"num":0}]', b"\1\2\3\4")
    # The sample session's: nothing but an attachment.
    assert_written_and_read(socketio.ack("/admin", 1, [b"\0"]), '61-/admin,1[{"_placeholder":true,"num":0}]', b"\0")


def test_a_disconnection_from_a_namespace() -> None:
    assert_written_and_read(socketio.disconnect("/"), "1")
    assert_written_and_read(socketio.disconnect("/admin"), "1/admin,")


# What else the reference parser reads.


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0/admin", Packet(CONNECT, "/admin")),  # the document's test suite sends it without the comma
        ("1/admin", Packet(DISCONNECT, "/admin")),
        ("0/", Packet(CONNECT, "/")),
        ("0/,", Packet(CONNECT, "/")),
        ('2/,["a"]', Packet(EVENT, "/", ["a"])),
        ("0/admin?token=1&b=/", Packet(CONNECT, "/admin?token=1&b=/")),  # a query belongs to the name
        ('2/admin?a=b,5["a"]', Packet(EVENT, "/admin?a=b", ["a"], 5)),
        ("0/?a=b,{}", Packet(CONNECT, "/?a=b", {})),
        ("2", Packet(EVENT)),  # nothing is said, to nobody
        ("21", Packet(EVENT, "/", None, 1)),
        ("2/a,", Packet(EVENT, "/a")),
        ("31", Packet(ACK, "/", None, 1)),
        ('50-1["a"]', Packet(EVENT, "/", ["a"], 1)),
        ("0/é\n😀,", Packet(CONNECT, "/é\n😀")),
        ("0/a/b-1[,", Packet(CONNECT, "/a/b-1[")),
        ("0{}", Packet(CONNECT, "/", {})),
        ("2[1]", Packet(EVENT, "/", [1])),  # an event's name may be a number
        ("2[1.5,null]", Packet(EVENT, "/", [1.5, None])),
        ('2[""]', Packet(EVENT, "/", [""])),
        ('2["Connect"]', Packet(EVENT, "/", ["Connect"])),
        ('2007["a"]', Packet(EVENT, "/", ["a"], 7)),
        ('30["connect"]', Packet(ACK, "/", ["connect"], 0)),  # only events have names
        ('2[ "a" ,\n1 ] ', Packet(EVENT, "/", ["a", 1])),
    ],
)
def test_what_the_reference_reads_is_read(text: str, packet: Packet) -> None:
    assert receive(text) == packet


@pytest.mark.parametrize("text", ["2[1]", "20[1]", "2/a,[1]", "51-[1," + PLACEHOLDER % 0 + "]"])
def test_the_type_of_a_packet_that_was_read_is_one_of_the_enum(text: str) -> None:
    attachments = [b""] if text[0] == "5" else []
    assert receive(text, *attachments).type is PacketType.EVENT


def test_a_decoder_reads_one_packet_after_the_other() -> None:
    decoder = Decoder()
    binary = f'52-["a",{PLACEHOLDER % 1},{PLACEHOLDER % 0}]'
    got = [decoder.receive(one) for one in ("0", binary, b"x", b"y", '2["b"]', binary, b"", b"z", '31["c"]')]
    assert got == [
        Packet(CONNECT),
        None,
        None,
        Packet(EVENT, "/", ["a", b"y", b"x"]),
        Packet(EVENT, "/", ["b"]),
        None,
        None,
        Packet(EVENT, "/", ["a", b"z", b""]),
        Packet(ACK, "/", ["c"], 1),
    ]


def test_attachments_are_put_back_wherever_they_were() -> None:
    text = f'53-["a",{{"b":[[{PLACEHOLDER % 1}],1],"c":{PLACEHOLDER % 0}}},{PLACEHOLDER % 2}]'
    packet = Packet(EVENT, "/", ["a", {"b": [[b"1"], 1], "c": b"0"}, b"2"])
    assert receive(text, b"0", b"1", b"2") == packet


# What is refused.


@pytest.mark.parametrize(
    "text", ["", "7", "9x", "-1", " 2", "abc", "\u0662[1]", "\uff12[1]", "\ud800", "\0", "/admin,"]
)
def test_an_unknown_type_is_refused(text: str) -> None:
    assert refuse(text).startswith("unknown packet type ")


@pytest.mark.parametrize("text", ["0[]", '0"a"', "0null", "01", "0/a,true", "0{", "0{}{}", "0{}x", "0 {}", "0admin"])
def test_the_payload_of_a_connect_is_an_object_or_absent(text: str) -> None:
    if text == "01":  # an ack id, of no use here
        assert receive(text) == Packet(CONNECT, "/", None, 1)
        return
    refuse(text)


@pytest.mark.parametrize("text", ["1{}", "1[]", '1"a"', "1/a,null", "1 "])
def test_a_disconnect_has_no_payload(text: str) -> None:
    assert refuse(text) == "not the payload of a packet of type DISCONNECT"


@pytest.mark.parametrize(
    "text",
    ["2{}", '2"a"', "2null", "2[", '2["a"', '2["a"]]', '2["a",]', '2 ["a"]', '2a["a"]'],
)
def test_the_payload_of_an_event_is_a_list(text: str) -> None:
    refuse(text)


@pytest.mark.parametrize("name", ["", "null", "true", "false", "[]", "{}", '["a"]', '{"a":1}', PLACEHOLDER % 0])
@pytest.mark.parametrize("head", ["2", "21", "2/a,"])
def test_the_first_item_of_an_event_is_its_name(head: str, name: str) -> None:
    refuse(f"{head}[{name}]")


def test_the_name_of_an_event_is_no_attachment() -> None:
    assert refuse(f"51-[{PLACEHOLDER % 0}]") == "an event without a name, or of a reserved one"


@pytest.mark.parametrize(
    "name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
@pytest.mark.parametrize("frame", ['2["%s"]', '23["%s",1]', '2/a,["%s"]', f'51-["%s",{PLACEHOLDER % 0}]', r'2["\u%s"]'])
def test_a_reserved_name_is_refused(frame: str, name: str) -> None:
    if "\\u" in frame:
        name = f"{ord(name[0]):04x}{name[1:]}"
    assert refuse(frame % name) == "an event without a name, or of a reserved one"


@pytest.mark.parametrize("text", ["31{}", '31"a"', "3/a,1null", "31[", f"61-1{PLACEHOLDER % 0}"])
def test_the_payload_of_an_acknowledgement_is_a_list(text: str) -> None:
    refuse(text)


@pytest.mark.parametrize(
    "text", ["3[]", "3/a,[]", "3", f"61-[{PLACEHOLDER % 0}]", f"3{MAX_ACK_ID + 1}[]", "3" + "9" * 5000 + "[]"]
)
def test_an_acknowledgement_without_a_usable_id_acknowledges_nothing(text: str) -> None:
    packet = receive(text, *([b""] if text[0] == "6" else []))
    assert (packet.type, packet.ack_id) == (ACK, None)


@pytest.mark.parametrize("text", ["4", "4[]", "4null", "41", "4/a,true", '4"a', "4{"])
def test_the_payload_of_a_connect_error_is_a_string_or_an_object(text: str) -> None:
    refuse(text)


@pytest.mark.parametrize("head", ["2", "2/a,"])
def test_what_an_event_wants_as_ack_id_is_a_safe_integer(head: str) -> None:
    for digits in (str(MAX_ACK_ID + 1), "9" * 16, "9" * 17, "0" * 17, "9" * 5000, "9" * 1_000_000):
        assert refuse(f'{head}{digits}["a"]') == "ack id above 9007199254740991"


@pytest.mark.parametrize("head", ["2", "2/a,", "3", "3/a,"])
def test_an_ack_id_is_decimal(head: str) -> None:
    assert receive(f'{head}{MAX_ACK_ID}["a"]').ack_id == 2**53 - 1
    for other in ("-1", "+1", "1.5", "1e3", "0x1", "1_0", "\u0661"):
        refuse(f'{head}{other}["a"]')


@pytest.mark.parametrize(
    "head",
    [
        "5",
        "5-",
        "5-1-",
        "5+1-",
        "51",
        "51.0-",
        "51e0-",
        "5 1-",
        "5\u0661-",
        "5/a,",
        "5/a,1-",
        "6",
    ],
)
def test_a_binary_packet_has_a_number_of_attachments(head: str) -> None:
    refuse(f'{head}["a",{PLACEHOLDER % 0}]')
    refuse(f'{head}["a"]')
    refuse(head)


@pytest.mark.parametrize(
    "text", ["01-", "01-{}", "11-", '21-["a"]', '21-[{"_placeholder":true,"num":0}]', "31-1[]", '41-"a"']
)
def test_other_packets_have_no_number_of_attachments(text: str) -> None:
    assert refuse(text) == "a binary packet, and no other, has a number of attachments"


def placeholders(count: int) -> str:
    return ",".join(PLACEHOLDER % number for number in range(count))


@pytest.mark.parametrize(("decoder", "most"), [(Decoder, MAX_ATTACHMENTS), (lambda: Decoder(2), 2)])
def test_attachments_are_bounded(decoder: Callable[[], Decoder], most: int) -> None:
    reader = decoder()
    assert reader.receive(f'5{most}-["a",{placeholders(most)}]') is None
    *awaiting, packet = [reader.receive(b"%d" % number) for number in range(most)]
    assert awaiting == [None] * (most - 1)
    assert packet == Packet(EVENT, "/", ["a", *(b"%d" % number for number in range(most))])
    for count in (str(most + 1), "9" * 16, "9" * 5000):
        with pytest.raises(MalformedPacketError, match=f"^number of attachments above {most}$"):
            decoder().receive(f'5{count}-["a",{placeholders(most + 1)}]')


def test_an_event_is_bounded_with_its_attachments() -> None:
    decoder = Decoder(max_bytes=100)
    for _ in range(2):  # each event has the limit for itself
        assert decoder.receive('51-["x",{"_placeholder":true,"num":0}]') is None
        assert decoder.receive(b"x" * 50) is not None
    decoder.receive('52-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    decoder.receive(b"x" * 20)
    with pytest.raises(PacketTooLargeError):
        decoder.receive(b"x" * 20)


def test_few_values_are_looked_through_for_the_places_of_attachments() -> None:
    for many in ("[]", "0"):
        payload = ",".join([many] * socketio.MAX_SEARCHED)
        assert receive(f'2["x",{payload}]').data[0] == "x"
        with pytest.raises(PacketTooLargeError):
            receive(f'51-["x",{{"_placeholder":true,"num":0}},{payload}]', b"")


def test_the_reference_allows_ten_attachments() -> None:
    assert MAX_ATTACHMENTS == 10


@pytest.mark.parametrize(
    "number", ["1", "-1", "99999999999999999999", "0.0", "0.5", '"0"', "null", "true", "[]", "1e999"]
)
def test_a_placeholder_has_the_number_of_an_attachment(number: str) -> None:
    refuse(f'51-["a",{{"_placeholder":true,"num":{number}}}]')
    refuse('51-["a",{"_placeholder":true}]')


@pytest.mark.parametrize(
    "payload", ['["a"]', '["a",{"_placeholder":false,"num":0}]', '["a",{"_placeholder":1,"num":0}]']
)
def test_an_attachment_without_a_placeholder_is_left_out(payload: str) -> None:
    assert receive(f"51-{payload}", b"x") == Packet(EVENT, "/", json.loads(payload))
    assert receive(f"61-1{payload}", b"x") == Packet(ACK, "/", json.loads(payload), 1)


def test_an_attachment_has_no_two_placeholders() -> None:
    again = ",".join([PLACEHOLDER % 0] * 2)
    assert refuse(f'51-["a",{again}]') == "a placeholder without an attachment of its own"
    assert refuse(f'52-["a",{again}]') == "a placeholder without an attachment of its own"


@pytest.mark.parametrize(
    "frame", ['2["a",%s]', '2["a",[{"b":%s}]]', '2/a,1["a",%s]', "31[%s]", '0{"a":%s}', "0%s", "4%s", '50-["a",%s]']
)
@pytest.mark.parametrize("data", ['{"_placeholder":true}', PLACEHOLDER % 0, PLACEHOLDER % 99])
def test_in_a_packet_without_attachments_a_placeholder_is_plain_data(frame: str, data: str) -> None:
    plain = frame % data
    assert receive(plain).data == json.loads(plain[plain.index(plain.lstrip("0123456789-/a,")[0]) :])


def test_text_while_attachments_are_awaited_is_refused() -> None:
    decoder = Decoder()
    assert decoder.receive(f'52-["a",{placeholders(2)}]') is None
    assert decoder.receive(b"x") is None
    with pytest.raises(MalformedPacketError, match=r"^text while attachments are awaited$"):
        decoder.receive('2["a"]')


def test_binary_when_none_is_awaited_is_refused() -> None:
    assert refuse(b"\1").startswith("binary data without a packet")
    decoder = Decoder()
    decoder.receive(f'51-["a",{PLACEHOLDER % 0}]')
    decoder.receive(b"x")
    with pytest.raises(MalformedPacketError, match=r"^binary data without a packet"):
        decoder.receive(b"y")


# Everything that arrives.

heads = st.from_regex(r"[0-7](?:[0-9]{1,3}-)?(?:/[a-z?]{0,3},?)?[0-9]{0,2}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
found_placeholders = st.builds(
    lambda mark, number: {"_placeholder": mark, "num": number},
    st.just(True) | json_values,
    st.integers(-1, 3) | json_values,
)
payloads = (
    st.lists(st.text(max_size=3) | found_placeholders | json_values, max_size=4) | found_placeholders | json_values
).map(json.dumps)
texts = (
    st.text()
    | st.text(st.characters(categories=["Cs", "Lu", "Nd", "Po"]))
    | st.builds(str.__add__, heads, st.text() | payloads | st.just(""))
)


@given(st.lists(texts | st.binary(max_size=5), max_size=6))
@example(["0/\ud800"])
@example(['51-["a",{"_placeholder":true,"num":0}]', b""])
def test_whatever_arrives_is_a_packet_or_malformed(messages: list[str | bytes]) -> None:
    decoder = Decoder()
    for message in messages:
        try:
            packet = decoder.receive(message)
        except MalformedPacketError as error:
            str(error).encode()
            return
        if packet is not None:
            if packet.type in (EVENT, ACK) and packet.data is None:  # nothing that could be sent on
                continue
            try:
                text, attachments = socketio.encode(packet)
            except TypeError:  # holds what a client would take for an attachment's place
                continue
            assert isinstance(text, bytes)
            assert len(attachments) <= MAX_ATTACHMENTS


@pytest.mark.parametrize(("text", "ack_id"), [('2["a",1,{"b":[null]}]', None), ('27["a",1,{"b":[null]}]', 7)])
def test_a_plain_event_is_read_without_a_packet(text: str, ack_id: int | None) -> None:
    short = socketio.short_event(text)
    assert short is not None
    name, args, number = short
    assert (name, list(args), number) == ("a", [1, {"b": [None]}], ack_id)


@given(
    st.builds("2{}{}".format, st.sampled_from(["", "7", "007", "/chat,", " 1", "1_0", "\u0663"]), st.text(max_size=20))
    | st.builds(
        lambda digits, args: f"2{digits}{json.dumps(args)}", st.sampled_from(["", "0", "42"]), st.lists(st.text())
    )
)
@example("2" + "9" * 15 + '["a"]')
@example("2" + "9" * 16 + '["a"]')
@example('2["connect"]')
@example("2[]")
@example("2[1]")
@example("2[")
@example('2["\\ud800"]')
@example("2" + "[" * 1000)
@example("3[]")
def test_a_plain_event_is_what_its_packet_says_or_no_answer(text: str) -> None:
    short = socketio.short_event(text)
    if short is not None:
        name, args, ack_id = short
        assert receive(text) == Packet(EVENT, "/", [name, *args], ack_id)
