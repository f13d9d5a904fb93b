"""`mlx-ssd probe`: the room that self-distillation has, found before any training.

Two-stage decoding of the base is what an ideally fitted student would do (docs/method.md). So the base alone, decoded
on validation problems as a few such students would be and as itself, tells what training could gain, with which
sampling policy, and how sure that is.

    from mlx_ssd.probing import probe
    facts = probe("quickstart")            # runs/probe-quickstart/{probe.json,probe.md,recipe.yaml}
    facts["policies"][0]["measured"]       # what training with the best policy is expected to show on a test
"""

from mlx_ssd.probing.probe import probe

__all__ = ["probe"]
