"""How often each k-means unit is used, of the folders of units in a folder of experiments."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from espnet_lite.units.store import UnitStore


def read_unit_usage(expdir: Path) -> list[dict[str, object]]:
    """Return the units under a folder by name, JSON-able: `name`, `features` and `counts` of frames
    for each unit, the most used one first.

    Raises:
        InputError: a folder of units that is damaged.
    """
    found = []
    for path in sorted(expdir.glob("units_*/units.json")):
        if ".old-" in path.parent.name:
            continue
        store = UnitStore(path.parent)
        counts = np.sort(store.counts())[::-1]
        found.append(
            {
                "name": path.parent.name,
                "features": _features(store.description.get("features", {})),
                "counts": counts.tolist(),
                "perplexity": round(perplexity(counts), 2),
            }
        )
    return found


def perplexity(counts: np.ndarray) -> float:
    """Return exp of the entropy of the counts: how many units, evenly used, say as much.

    Args:
        counts: of each unit, not negative; 0 if nothing was counted.
    """
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def _features(features: Mapping) -> str:
    if "layer" in features:
        return f"block {features['layer']} of {Path(str(features.get('model', ''))).name}"
    return str(features.get("name", ""))
