"""How a block of ours is left: ``Exit`` as an ``__exit__``."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from orm_core.database.leaving import Exit


class Block:
    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls: list[tuple[str, BaseException | None]] = []

    def __enter__(self) -> Block:
        return self

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _end(self, error: BaseException | None) -> None:
        self.calls.append(("end", error))
        self._fail()

    def _give_up(self, raised: BaseException) -> None:
        self.calls.append(("give up", raised))
        self._fail()

    __exit__ = Exit(_end, _give_up)


class Owner:
    """Is left by ending the block it has."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __enter__(self) -> Owner:
        return self

    def _block(self) -> Block:
        return self.block

    __exit__ = Block.__exit__.of(_block)


def test_a_block_is_ended_once():
    with Block() as block:
        assert block.calls == []
    assert block.calls == [("end", None)]


def test_what_leaves_a_block_is_told_to_its_end_and_goes_on():
    error = ValueError()
    with pytest.raises(ValueError), Block() as block:
        raise error
    assert block.calls == [("end", error)]


def test_an_end_that_fails_is_given_up():
    error = ValueError()
    with pytest.raises(ValueError), Block(error) as block:
        pass
    assert block.calls == [("end", None), ("give up", error)]


def test_giving_up_is_repeated_when_it_is_interrupted_itself():
    error = ValueError()
    with pytest.raises(KeyboardInterrupt), Block(error, KeyboardInterrupt()) as block:
        pass
    assert block.calls == [("end", None), ("give up", error), ("give up", error)]


def test_an_exit_that_is_looked_at_but_not_called_does_nothing():
    block = Block()
    assert callable(block.__exit__)
    assert block.calls == []


def test_a_block_is_ended_by_hand_too():
    block = Block()
    assert block.__exit__(None, None, None) is None
    assert block.calls == [("end", None)]


def test_an_exit_stack_ends_a_block():
    with ExitStack() as stack:
        block = stack.enter_context(Block())
    assert block.calls == [("end", None)]


def test_an_owner_ends_its_block():
    error = ValueError()
    block = Block(error)
    with pytest.raises(ValueError), Owner(block):
        pass
    assert block.calls == [("end", None), ("give up", error)]
