"""Drawing completions from a model: the engine, and the journal-backed collector over it."""
