"""Whatever a user gives (flags, files) to a whole `RunConfig`."""
