"""Training of the bundled backbone by distillation; see scripts/distil_backbone.py."""
