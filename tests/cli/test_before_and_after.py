"""What the demo says after a night that never got to train: the reasons, and no error about a missing candidate."""

import numpy as np

from embed_assets.cli.before_and_after import Asked, story
from embed_assets.night import NightOutcome
from embed_assets.serving.client import LiveEmbedder
from embed_assets.settings import Settings
from embed_assets.store import Store


def test_a_night_refused_before_training_tells_its_reasons(store: Store) -> None:
    outcome = NightOutcome(name="refused", run_id="run", reasons=("contrastive_pairs.no_leakage: 3 leaks",))
    before = Asked(model="minilm@base", space_id="space", vector=np.zeros(3, dtype=np.float32))
    told = list(story(Settings(data_dir=store.root), outcome, LiveEmbedder("http://127.0.0.1:9"), before))
    assert told == ["Verdict: refused\n- contrastive_pairs.no_leakage: 3 leaks"]
