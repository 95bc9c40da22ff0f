"""Other training engines: a `RunConfig` as their files, and their files as a `RunConfig`."""
