"""Settings of the test run that pyproject.toml has no words for."""

import hypothesis

# Hypothesis fails an example that takes longer than 200 ms, which on a busy machine any one may.
# No test here is about wall-clock time; pytest's own timeout ends what hangs.
hypothesis.settings.register_profile("mars", deadline=None)
hypothesis.settings.load_profile("mars")
