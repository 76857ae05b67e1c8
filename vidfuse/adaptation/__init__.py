"""Going on training a bundled encoder on one's own videos, without labels, from a teacher."""
