"""Makes pytest put this folder on the path: the tests in ``layouts`` import ``trees`` too."""
