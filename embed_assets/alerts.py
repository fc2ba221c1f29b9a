"""Tells people of a night that went wrong, once: a marker under the data directory remembers what was told.

It knows what to send and to whom; what counts as wrong is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from embed_assets.files import write_json
from embed_assets.settings import AlertSettings
from embed_assets.store import Store


class AlertError(RuntimeError):
    """The alert could not be delivered; the run counts as not told."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What went wrong in one run of the graph."""

    run_id: str
    job: str
    failed_checks: Sequence[str] = ()
    """`asset.check: description` of every failed check."""
    error: str = ""
    """Why the run failed, when no check explains it."""
    url: str = ""
    """Where to look."""

    @property
    def text(self) -> str:
        lines = [f"embed_assets: {self.job} run {self.run_id[:8]} needs a look; the live model is unchanged"]
        lines += [f"- {check}" for check in self.failed_checks]
        if self.error:
            lines.append(f"- {self.error}")
        if self.url:
            lines.append(self.url)
        return "\n".join(lines)


def send_alert(alert: Alert, settings: AlertSettings, store: Store) -> bool:
    """Posts `alert` to the webhook unless this run was told already; says whether it was sent.

    The body has `text`, which Slack, Mattermost and Teams show, and the fields for programs.

    Raises:
        AlertError: the webhook cannot be reached or answers with an error.
    """
    marker = store.alerts / alert.run_id
    if not settings.webhook_url or marker.exists():
        return False
    body = {
        "text": alert.text,
        "run_id": alert.run_id,
        "job": alert.job,
        "failed_checks": list(alert.failed_checks),
        "error": alert.error,
        "url": alert.url,
    }
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=2), timeout=settings.timeout_seconds) as client:
            client.post(settings.webhook_url, json=body).raise_for_status()
    except httpx.HTTPStatusError as error:
        raise AlertError(
            f"the webhook answered {error.response.status_code} to the alert of run {alert.run_id}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AlertError(f"the webhook cannot be reached: {type(error).__name__}: {error}") from error
    write_json(marker, body)
    return True
