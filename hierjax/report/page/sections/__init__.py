"""The sections of the page, each a pure function of findings."""
