"""What workers say to each other, there and back."""

from __future__ import annotations

import pytest

from socketcluster_worker.mesh import frames


@pytest.mark.parametrize("namespace", ["/", "/with ümlauts", "/" + "long" * 1000])
def test_a_broadcast_is_read_as_it_was_written(namespace: str) -> None:
    frame = frames.write_broadcast(2**63, namespace.encode(), b"packed")
    assert frame[:1] == frames.BROADCAST
    assert frames.read_broadcast(frame) == (2**63, namespace, b"packed")


def test_what_has_come_is_read_as_it_was_written() -> None:
    assert frames.read_received(frames.write_received(70_000)) == 70_000


def test_a_proof_is_one_of_role_nonces_and_all_that_is_said() -> None:
    said = "worker", "process", "app"
    proofs = {
        frames.proof_of(b"key", b"dials", b"nonces", *said),
        frames.proof_of(b"other", b"dials", b"nonces", *said),
        frames.proof_of(b"key", b"accepts", b"nonces", *said),
        frames.proof_of(b"key", b"dials", b"others", *said),
        frames.proof_of(b"key", b"dials", b"nonces", "worker", "processapp", ""),
    }
    assert len(proofs) == 5
    hello = frames.Hello(*said, b"nonce", frames.proof_of(b"key", b"dials", b"nonces", *said))
    assert hello.is_proven(b"key", b"dials", b"nonces")
    assert not hello.is_proven(b"key", b"accepts", b"nonces")
