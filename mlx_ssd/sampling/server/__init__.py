"""Samples from a server: any that answers as OpenAI's completions do, or SGLang's own way (docs/servers.md)."""
