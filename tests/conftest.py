"""What all tests share."""

import hypothesis

# A busy machine must not fail a test; the same examples every time keep a run repeatable.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")
