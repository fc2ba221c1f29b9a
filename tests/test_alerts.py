"""Alerts: one for each run, to a real HTTP server, and an undelivered one is an error, not silence."""

from collections.abc import Iterator

import pytest

from embed_assets.alerts import Alert, AlertError, send_alert
from embed_assets.settings import AlertSettings
from embed_assets.store import Store
from tests.webhook import Webhook, listening

ALERT = Alert(run_id="0123456789ab", job="nightly", failed_checks=["finetuned_adapter.recall_beats_live: p = 0.4"])


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as server:
        yield server


def test_a_run_is_told_once(webhook: Webhook, store: Store) -> None:
    settings = AlertSettings(webhook_url=webhook.url)
    assert send_alert(ALERT, settings, store)
    assert not send_alert(ALERT, settings, store)
    [body] = webhook.posted
    assert body["run_id"] == ALERT.run_id
    assert "recall_beats_live: p = 0.4" in str(body["text"])


def test_without_a_webhook_nothing_is_sent(store: Store) -> None:
    assert not send_alert(ALERT, AlertSettings(), store)


def test_a_webhook_that_refuses_is_an_error_and_the_run_counts_as_untold(webhook: Webhook, store: Store) -> None:
    settings = AlertSettings(webhook_url=webhook.url)
    webhook.status = 500
    with pytest.raises(AlertError, match="answered 500"):
        send_alert(ALERT, settings, store)
    webhook.status = 200
    assert send_alert(ALERT, settings, store)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "nonsense", "http://[/"])
def test_a_webhook_that_cannot_be_reached_is_an_error(store: Store, url: str) -> None:
    with pytest.raises(AlertError, match="cannot be reached"):
        send_alert(ALERT, AlertSettings(webhook_url=url, timeout_seconds=2), store)
