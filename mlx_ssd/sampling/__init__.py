"""Drawing completions from a model: the engine, the loop stop, and the journal-backed collector over them."""
