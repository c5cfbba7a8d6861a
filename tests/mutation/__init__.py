"""The mutation check: promises of the engine broken on purpose, one at a time, to show that the tests notice each."""
