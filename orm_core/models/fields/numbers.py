"""Columns of whole numbers, floats, decimals and truth."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Literal, Unpack, overload

from orm_core import peewee_facade as peewee
from orm_core.models.columns import (
    CheckedField,
    G,
    Options,
)


class _IntegerChecks(CheckedField[int, G]):
    refuses_sql = True
    bits = 32
    expected = "an int"

    def to_database(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse("an int (no bool, float or str)")
        if not self.least <= value <= self.most:
            raise self.refuse(f"an int of {self.bits} bits, from {self.least} to {self.most}")
        return int(value)

    @property
    def least(self) -> int:
        """The smallest int that fits."""
        return -(1 << self.bits - 1)

    @property
    def most(self) -> int:
        """The largest int that fits."""
        return (1 << self.bits - 1) - 1

    def literal(self, value: Any) -> str:
        return str(self.to_database(value))


class IntegerField(_IntegerChecks[G], peewee.IntegerField):
    """``integer``: an int of 32 bits."""

    @overload
    def __init__(
        self: IntegerField[int], *, null: Literal[False] = False, **options: Unpack[Options[int]]
    ) -> None: ...
    @overload
    def __init__(
        self: IntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class BigIntegerField(_IntegerChecks[G], peewee.BigIntegerField):
    """``bigint``: an int of 64 bits."""

    bits = 64

    @overload
    def __init__(
        self: BigIntegerField[int], *, null: Literal[False] = False, **options: Unpack[Options[int]]
    ) -> None: ...
    @overload
    def __init__(
        self: BigIntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class SmallIntegerField(_IntegerChecks[G], peewee.SmallIntegerField):
    """``smallint``: an int of 16 bits."""

    bits = 16

    @overload
    def __init__(
        self: SmallIntegerField[int],
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[int]],
    ) -> None: ...
    @overload
    def __init__(
        self: SmallIntegerField[int | None], *, null: Literal[True], **options: Unpack[Options[int]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class AutoField(_IntegerChecks[int], peewee.AutoField):
    """``serial``: an int of 32 bits that the server counts; for tables that have such a key."""


class BigAutoField(_IntegerChecks[int], peewee.BigAutoField):
    """``bigserial``: an int of 64 bits that the server counts."""

    bits = 64


class BooleanField(CheckedField[bool, G], peewee.BooleanField):
    """``boolean``: True or False, nothing that only acts like one."""

    refuses_sql = True
    expected = "True or False"

    @overload
    def __init__(
        self: BooleanField[bool], *, null: Literal[False] = False, **options: Unpack[Options[bool]]
    ) -> None: ...
    @overload
    def __init__(
        self: BooleanField[bool | None], *, null: Literal[True], **options: Unpack[Options[bool]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.refuse()
        return value

    def literal(self, value: Any) -> str:
        return "true" if self.to_database(value) else "false"


class DoubleField(CheckedField[float, G], peewee.DoubleField):
    """``double precision``: a float, or an int that is one exactly; no infinity, no NaN."""

    refuses_sql = True
    expected = "a finite float"

    @overload
    def __init__(
        self: DoubleField[float], *, null: Literal[False] = False, **options: Unpack[Options[float]]
    ) -> None: ...
    @overload
    def __init__(
        self: DoubleField[float | None], *, null: Literal[True], **options: Unpack[Options[float]]
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse()
        try:
            number = float(value)
        except OverflowError:
            raise self.refuse() from None
        if not math.isfinite(number) or number != value:
            raise self.refuse()
        return number

    def literal(self, value: Any) -> str:
        return repr(self.to_database(value))


class DecimalField(CheckedField[Decimal, G], peewee.DecimalField):
    """``numeric(max_digits, decimal_places)``: a Decimal or int that fits without rounding."""

    max_digits: int
    decimal_places: int

    @overload
    def __init__(
        self: DecimalField[Decimal],
        max_digits: int = 10,
        decimal_places: int = 5,
        *,
        null: Literal[False] = False,
        **options: Unpack[Options[Decimal]],
    ) -> None: ...
    @overload
    def __init__(
        self: DecimalField[Decimal | None],
        max_digits: int = 10,
        decimal_places: int = 5,
        *,
        null: Literal[True],
        **options: Unpack[Options[Decimal]],
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def to_database(self, value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, Decimal | int):
            raise self.refuse("a Decimal or an int (a float is not exact)")
        number = Decimal(value)
        if not number.is_finite():
            raise self.refuse("a finite Decimal")
        _, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)  # noqa: S101 - finite
        if -exponent > self.decimal_places or len(digits) + exponent > (
            self.max_digits - self.decimal_places
        ):
            raise self.refuse(
                f"a Decimal of at most {self.max_digits} digits, {self.decimal_places} of them "
                "after the point"
            )
        return number

    def literal(self, value: Any) -> str:
        return str(self.to_database(value))
