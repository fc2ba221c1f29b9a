"""What a person at a terminal reads while a night runs: one line a step, a check, a message; no event soup."""

import logging
import sys
import time

import dagster as dg


class NightFormatter(logging.Formatter):
    """`  12 s  contrastive_pairs  4,211 rows`: seconds since the night began, the step, what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {}) or {}
        step = str(meta.get("step_key") or "").split(".")[0]
        message = str(meta.get("orig_message") or record.getMessage())
        return f"{time.monotonic() - self.started:6.0f} s  {step:22}  {message}"


class NightFilter(logging.Filter):
    """Keeps the stages' own messages, the start of steps, and failures."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta = getattr(record, "dagster_meta", {}) or {}
        if meta.get("dagster_event") is None:
            return record.levelno >= logging.INFO
        return False


def _terminal_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("embed_assets.night", level=logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(NightFormatter())
    handler.addFilter(NightFilter())
    logger.addHandler(handler)
    return logger


terminal_logger = dg.LoggerDefinition(_terminal_logger, description="One line a step, for a terminal")
