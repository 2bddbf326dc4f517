import io
import json
import logging

import pytest
import structlog

from orm_core import InvalidValue, StdlibLogger, StructlogLogger
from orm_core.loggers import AUDIT_LEVEL, check_logger

META = {"module": "db", "action": "service:create", "user_id": "u1"}


@pytest.fixture
def stdlib(caplog):
    caplog.set_level(logging.DEBUG, logger="a.service")
    return StdlibLogger(logging.getLogger("a.service"))


@pytest.fixture
def lines():
    """The lines of a structlog logger that renders JSON, and an adapter of it."""
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    return StructlogLogger(logger), lambda: [json.loads(x) for x in out.getvalue().splitlines()]


def failed(error):
    return {"module": "db", "action": "service:create", "error": error}


def raised():
    try:
        raise ValueError("broken")
    except ValueError as error:
        return error


def test_an_audit_is_a_stdlib_record_between_info_and_warning(stdlib, caplog):
    stdlib.audit("User created", META)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (AUDIT_LEVEL, "User created")
    assert logging.INFO < AUDIT_LEVEL < logging.WARNING


def test_a_stdlib_record_carries_the_meta(stdlib, caplog):
    stdlib.audit("User created", META)
    assert caplog.records[0].meta == META


def test_a_stdlib_error_carries_the_exception(stdlib, caplog):
    error = raised()
    stdlib.error("Failed to create user", failed(error))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info[1] is error
    assert "ValueError: broken" in caplog.text


def test_a_percent_sign_in_a_message_is_no_format(stdlib, caplog):
    stdlib.audit("100% of %s created", META)
    assert caplog.records[0].getMessage() == "100% of %s created"


def test_an_audit_is_a_structlog_event_with_the_meta_as_pairs(lines):
    logger, written = lines
    logger.audit("User created", META)
    assert written() == [{"event": "User created", "level": "info", "audit": True, **META}]


def test_a_structlog_error_carries_the_exception(lines):
    logger, written = lines
    logger.error("Failed to create user", failed(raised()))
    (line,) = written()
    assert (line["event"], line["level"]) == ("Failed to create user", "error")
    assert "ValueError: broken" in line["exception"]
    assert (line["module"], line["action"]) == ("db", "service:create")


@pytest.mark.parametrize(
    "logger",
    [None, StdlibLogger(logging.getLogger("a")), StructlogLogger(structlog.get_logger())],
    ids=["none", "stdlib", "structlog"],
)
def test_adapters_and_none_can_be_logged_to(logger):
    check_logger(logger)


class OnlyAudit:
    audit = print


class AuditIsNoMethod:
    audit = "yes"
    error = print


@pytest.mark.parametrize(
    ("logger", "lacks"),
    [
        (logging.getLogger("a"), "audit"),
        (print, "audit"),
        ("stdout", "audit"),
        (OnlyAudit(), "error"),
        (AuditIsNoMethod(), "audit"),
    ],
)
def test_what_cannot_be_logged_to_is_refused_with_the_way_out(logger, lacks):
    with pytest.raises(InvalidValue, match=rf"no {lacks}\(message, meta\).*StdlibLogger"):
        check_logger(logger)
