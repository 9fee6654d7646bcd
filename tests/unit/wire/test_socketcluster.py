"""SocketCluster's messages, version 2, as its protocol document, its server and its client have them."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_wire import socketcluster
from socketcluster_wire.errors import MalformedMessageError
from socketcluster_wire.socketcluster import (
    MAX_BATCH,
    ErrorData,
    Event,
    HandshakeReply,
    Message,
    PublishData,
    Response,
    decode,
)

UNSET = msgspec.UNSET

# Whatever JSON.stringify may write, and then some.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
call_ids = st.one_of(st.integers(0, 2**53), st.text(), st.floats(allow_nan=False, allow_infinity=False))


def decode_one(text: str) -> Message:
    (message,) = socketcluster.decode(text)
    return message


def stringify(value: Any) -> str:
    """Write JSON as JavaScript does: without spaces, and everything but control characters and surrogates as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# What clients send.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"event":"hi","data":{"a":[1,null]}}', Event("hi", {"a": [1, None]})),
        ('{"event":"hi"}', Event("hi")),
        ('{"event":"hi","data":null}', Event("hi", None)),
        ('{"event":""}', Event("")),
        ('{"event":"hi","data":1,"cid":1}', Event("hi", 1, 1)),
        ('{"event":"hi","cid":null}', Event("hi")),
        ('{"event":"hi","cid":0}', Event("hi", cid=0)),
        ('{"event":"hi","data":1,"cid":"5f0c"}', Event("hi", 1, "5f0c")),  # "You could use UUID strings"
        ('{"event":"hi","cid":1.0}', Event("hi", cid=1)),
        ('{"event":"hi","cid":1.5}', Event("hi", cid=1.5)),
        ('{"event":"hi","cid":1e+21}', Event("hi", cid=1e21)),
        ('{"event":"hi","cid":9007199254740992}', Event("hi", cid=2**53)),
        ('{"cid":1,"data":{"authToken":null},"event":"#handshake"}', Event("#handshake", {"authToken": None}, 1)),
        ('{"rid":1,"data":"done"}', Response(1, "done")),
        ('{"rid":1}', Response(1)),
        ('{"rid":1,"data":null,"error":null}', Response(1)),
        ('{"rid":"5f0c","data":0}', Response("5f0c", 0)),
        ('{"rid":0,"error":false}', Response(0, error=False)),
        (
            '{"rid":1,"error":{"message":"no","name":"Error","stack":"a\\nb"}}',
            Response(1, error={"message": "no", "name": "Error", "stack": "a\nb"}),
        ),
        ('{"rid":1,"error":"no","data":2}', Response(1, 2, "no")),
        ('{"event":null,"rid":1,"data":2}', Response(1, 2)),  # packet.event != null decides
        ('{"event":"hi","rid":1}', Event("hi")),
        ('{"event":"hi","more":{"deep":[]}}', Event("hi")),
        (' \n{ "event" :\t"hi" }\r\n', Event("hi")),
        ('{"event":"\\ud83d\\ude00 \\u0000"}', Event("😀 \0")),
        ('{"event":"first","event":"last"}', Event("last")),  # as JSON.parse
    ],
)
def test_a_message_is_an_event_or_a_response(text: str, message: Message) -> None:
    assert socketcluster.decode(text) == [message]
    assert socketcluster.decode(f"[{text}]") == [message]


def test_missing_data_is_not_null() -> None:
    missing, null = socketcluster.decode('[{"event":"a"},{"event":"a","data":null}]')
    assert isinstance(missing, Event)
    assert missing.data is UNSET
    assert isinstance(null, Event)
    assert null.data is None


def test_a_batch_keeps_its_order() -> None:
    texts = ['{"event":"a"}', '{"rid":1}', '{"event":"b","cid":2}']
    assert socketcluster.decode(f"[{','.join(texts)}]") == [decode_one(text) for text in texts]
    assert socketcluster.decode("[]") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "#1",  # version 1's ping
        "hello",
        "null",
        "true",
        "1",
        '"event"',
        "{",
        "{}",
        '{"event":"hi"',
        '{"event":"hi"}}',
        '{"event":"hi"}{"event":"hi"}',
        "{'event':'hi'}",
        '{"event":1}',
        '{"event":["hi"]}',
        '{"event":null}',
        '{"data":1}',
        '{"cid":1}',
        '{"rid":null}',
        '{"event":"hi","cid":true}',
        '{"event":"hi","cid":[1]}',
        '{"event":"hi","cid":{}}',
        '{"rid":false}',
        '{"rid":{}}',
        '{"event":"hi","data":NaN}',
        '{"event":"hi","data":Infinity}',
        '{"event":"hi","data":1e999}',
        '{"event":"hi","data":01}',
        '{"event":"hi","data":undefined}',
        '{"event":"hi","data":"\x00"}',
        '{"event":"hi","data":"\\x"}',
        '{"event":"hi","data":"\\u12"}',
        '{"event":"hi","data":"\\ud8zz"}',
        '{"event":"hi","data":[1,]}',
        '\ufeff{"event":"hi"}',
        '{"event":"hi \ud83d"}',  # no UTF-8 has it
        "[[]]",
        "[null]",
        '["#1"]',
        '[{"event":"hi"},{}]',
        '[{"event":"hi"},1]',
        '[{"event":"hi"}',
    ],
)
def test_everything_else_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        socketcluster.decode(text)
    assert str(caught.value)
    str(caught.value).encode()  # it goes into a close frame


def test_a_batch_is_bounded() -> None:
    one = '{"rid":1}'
    assert len(socketcluster.decode(f"[{','.join([one] * MAX_BATCH)}]")) == MAX_BATCH
    with pytest.raises(MalformedMessageError, match="more than 1000 messages"):
        socketcluster.decode(f"[{','.join([one] * (MAX_BATCH + 1))}]")


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"b":'])
@pytest.mark.parametrize(
    "frame", ['{"event":"hi","data":%s', '{"event":"hi","ignored":%s', '{"rid":1,"error":%s', "%s"]
)
def test_nesting_too_deep_is_malformed(frame: str, opening: str) -> None:
    closing = {"[": "]", '{"a":': "}", '[{"b":': "}]"}[opening]
    deep = 200_000
    for text in (frame % (opening * deep), frame % (opening * deep + "1" + closing * deep) + "}"):
        with pytest.raises(MalformedMessageError):
            socketcluster.decode(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(
    ("frame", "around"),
    [
        ('{"event":"hi","data":%s}', 1),
        ('{"event":"hi","data":{"channel":"c","data":%s}}', 2),
        ('[{"rid":2},{"event":"hi","data":%s}]', 2),
        ('{"rid":1,"error":%s}', 1),
        ('{"rid":1,"data":["\\ud83d",%s]}', 2),
    ],
)
def test_nesting_has_a_limit_that_is_told_exactly(frame: str, around: int, opening: str, closing: str) -> None:
    for depth in (127, 128):
        inner = depth - around
        assert socketcluster.decode(frame % (opening * inner + "1" + closing * inner))
    for depth in (129, 200, 500):
        inner = depth - around
        with pytest.raises(MalformedMessageError, match="nested deeper than 128"):
            socketcluster.decode(frame % (opening * inner + "1" + closing * inner))


def test_many_brackets_side_by_side_or_in_a_text_are_no_nesting() -> None:
    many: list[Any] = [[{}, {"a": "[{" * 500}]] * 500
    assert decode_one(stringify({"event": "hi", "data": many})) == Event("hi", many)


@pytest.mark.parametrize("field", ["data", "cid", "rid"])
@pytest.mark.parametrize("digits", [20, 400, 5000, 1_000_000])
def test_a_huge_integer_is_itself_or_malformed(field: str, digits: int) -> None:
    text = f'{{"event":"hi","{field}":{"9" * digits}}}'
    if digits > 4300:  # Python's own limit: reading it takes quadratic time
        with pytest.raises(MalformedMessageError):
            socketcluster.decode(text)
        return
    message = decode_one(text)
    assert isinstance(message, Event)
    assert message == Event("hi", **({} if field == "rid" else {field: 10**digits - 1}))
    if message.cid is not None:
        assert str(message.cid).encode() in socketcluster.encode_response(message.cid)


# Half a surrogate pair: JSON.stringify("😀"[0]) is legal, and nothing that UTF-8 can carry.


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83d", "�"),
        (r"\uDE00", "�"),
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\ud83d\ude00", "�😀"),
        (r"\ude00\ud83d", "��"),
        (r"a\ud83db", "a�b"),
        (r"\ud83d\n", "�\n"),
        (r"\ud83d\u0041", "�A"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\ud83d \ud83d", r"\ud83d �"),
        (r"\\\ud83d", "\\�"),
        (r"\\\\ud83d\ud83d", "\\\\ud83d�"),
        (r"\"\ud83d\"", '"�"'),
        (r"\ud83d\\ude00", "�\\ude00"),
    ],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(escaped: str, text: str) -> None:
    assert socketcluster.decode(f'{{"event":"say","data":"{escaped}"}}') == [Event("say", text)]
    assert socketcluster.decode(f'[{{"event":"{escaped}","data":{{"{escaped}":1}}}}]') == [Event(text, {text: 1})]


@given(st.text(st.sampled_from('a\\"u\n\ud83d\ude00\udbffd8😀'), max_size=12))
@example("\\ud83d")
def test_every_text_of_javascript_is_read(text: str) -> None:
    # Halves that follow each other are a pair to JavaScript; what is left over is replaced.
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert socketcluster.decode(json.dumps({"event": "say", "data": text})) == [Event("say", expected)]


@pytest.mark.parametrize("part", [r"\n", r"\\", r"\ud83d\n", r"\ud83d\ude00", r"\u0041", r"\ud83d"])
def test_many_escapes_are_read_without_trouble(part: str) -> None:
    count = 100_000
    expected = json.loads(f'"{part}"').replace("\ud83d", "�") * count + "�"
    assert socketcluster.decode(f'{{"event":"say","data":"{part * count}\\ud83d"}}') == [Event("say", expected)]


# Round trips.


@given(st.text(), values | st.just(UNSET), st.none() | call_ids)
def test_an_event_comes_back(name: str, data: Any, cid: socketcluster.CallId | None) -> None:
    written = socketcluster.encode_event(name, data, cid)
    assert socketcluster.decode(written.decode()) == [Event(name, data, cid)]
    fields = {"event": name} | ({} if data is UNSET else {"data": data}) | ({} if cid is None else {"cid": cid})
    assert json.loads(written) == fields


@given(call_ids, values | st.just(UNSET))
def test_a_response_comes_back(rid: socketcluster.CallId, data: Any) -> None:
    written = socketcluster.encode_response(rid, data)
    assert socketcluster.decode(written.decode()) == [Response(rid, None if data is UNSET else data)]
    assert json.loads(written) == ({"rid": rid} if data is UNSET else {"rid": rid, "data": data})


@given(call_ids, st.text(), st.text())
def test_an_error_comes_back(rid: socketcluster.CallId, name: str, message: str) -> None:
    written = socketcluster.encode_error(rid, ErrorData(name, message))
    assert json.loads(written) == {"rid": rid, "error": {"name": name, "message": message}}
    assert socketcluster.decode(written.decode()) == [Response(rid, error={"name": name, "message": message})]


def test_the_handshake_is_answered_in_the_words_of_the_protocol() -> None:
    reply = HandshakeReply("an-id", 20000)
    fields = {"id": "an-id", "pingTimeout": 20000, "isAuthenticated": False}
    assert json.loads(socketcluster.encode_response(1, reply)) == {"rid": 1, "data": fields}
    # "If cid is not present in Handshake event, rid is omitted from Handshake event response."
    assert json.loads(socketcluster.encode_response(None, reply)) == {"data": fields}


def test_what_is_written_holds_no_control_character() -> None:
    # Engine.IO's polling separates packets with one.
    written = socketcluster.encode_event("\x1e", {"\x1e": "\x1e\x00"})
    assert not any(byte < 0x20 for byte in written)


def test_what_json_has_no_word_for_is_refused_or_null() -> None:
    with pytest.raises(TypeError):
        socketcluster.encode_event("hi", object())
    with pytest.raises(TypeError):
        socketcluster.encode_response(1, {(1, 2): 3})
    with pytest.raises(UnicodeEncodeError):
        socketcluster.encode_event("hi", "\ud83d")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        socketcluster.encode_event("hi", endless)
    assert socketcluster.encode_event("hi", [math.nan, math.inf]) == b'{"event":"hi","data":[null,null]}'


# Whatever arrives.


def check_fields(message: Message) -> None:
    if isinstance(message, Event):
        assert type(message.name) is str
        assert type(message.cid) in (type(None), int, float, str)
    else:
        assert type(message.rid) in (int, float, str)


def decode_or_refuse(text: str) -> list[Message] | None:
    try:
        messages = socketcluster.decode(text)
    except MalformedMessageError as error:
        str(error).encode()
        return None
    for message in messages:
        check_fields(message)
        if isinstance(message, Event) and message.cid is not None:
            socketcluster.encode_error(message.cid, ErrorData("Error", "whatever can be asked can be answered"))
        socketcluster.encode_event("echo", message.data)
    return messages


@given(st.text() | st.text(st.characters(categories=["Cs", "Ps", "Pe", "Po", "Nd"])))
@example('{"event":"\ud800"}')
def test_whatever_text_arrives_is_messages_or_malformed(text: str) -> None:
    decode_or_refuse(text)


@given(st.binary())
def test_whatever_bytes_are_text_are_messages_or_malformed(data: bytes) -> None:
    decode_or_refuse(data.decode("utf-8", "surrogateescape"))
    decode_or_refuse(data.decode("latin-1"))


fields = st.fixed_dictionaries({}, optional=dict.fromkeys(["event", "data", "cid", "rid", "error", "other"], values))


@given(fields | st.lists(fields, max_size=4) | values)
def test_whatever_json_arrives_is_messages_or_malformed(value: Any) -> None:
    messages = decode_or_refuse(stringify(value))
    several = value if isinstance(value, list) else [value]
    assert (messages is not None) == all(map(is_message, several))
    if messages is not None:
        assert [isinstance(message, Event) for message in messages] == [one.get("event") is not None for one in several]


def is_message(value: Any) -> bool:
    """The protocol's rule, said once more."""
    if not isinstance(value, dict):
        return False
    named = isinstance(value.get("event"), str)
    ids = [value.get(key) for key in ("cid", "rid")]
    if any(isinstance(one, bool | list | dict) for one in ids) or not (named or value.get("event") is None):
        return False
    return named or value.get("rid") is not None


@given(fields.map(stringify), st.data())
def test_a_damaged_message_is_a_message_or_malformed(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    decode_or_refuse(
        text[:at]
        + data.draw(st.sampled_from(["", "\\", '"', "{", "[", "\\ud83d", "9" * 30, "\ud83d"]))
        + text[at + 1 :]
    )


@pytest.mark.parametrize("data", ["{}", "null", '[1, {"a" : 2}]', '"x"'])
def test_what_a_client_publishes_is_left_as_it_is(data: str) -> None:
    (event,) = decode(f'{{"event":"#publish","data":{{"channel":"c","data":{data}}},"cid":3}}')
    assert isinstance(event, Event)
    assert isinstance(event.data, PublishData)
    assert (event.name, event.data.channel, bytes(event.data.data), event.cid) == ("#publish", "c", data.encode(), 3)


@pytest.mark.parametrize(
    "rest",
    [
        '"data":"c"}',
        '"data":{"channel":"c","data":"\\ud800"}}',
        '"data":{"channel":"c","data":1},"event":"other"}',
        '"data":{"channel":"c","data":' + "[" * 129 + "]" * 129 + "}}",
    ],
    ids=["no object", "half a pair", "another name", "deep"],
)
def test_what_is_no_plain_publication_is_read_as_any_event(rest: str) -> None:
    if rest.count("[") > 128:
        with pytest.raises(MalformedMessageError):
            decode('{"event":"#publish",' + rest)
        return
    (event,) = decode('{"event":"#publish",' + rest)
    assert isinstance(event, Event)
    assert not isinstance(event.data, PublishData)


@pytest.mark.parametrize("data", ["tru", "01", '"\x01"', "[1,]", "{1:2}", "NaN", '"\\q"', "1 2", ""])
def test_what_is_no_json_is_refused_however_little_of_it_is_read(data: str) -> None:
    with pytest.raises(MalformedMessageError):
        decode(f'{{"event":"#publish","data":{{"channel":"c","data":{data}}},"cid":3}}')
